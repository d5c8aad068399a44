"""The values of masks: whole numbers, each the name of a structure, or a reason to stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils import UserError

__all__ = ["FractionsError", "MaskValues", "as_whole"]

_NEARLY = 0.01  # from a whole number; more was interpolated
_LISTED = 8


class FractionsError(UserError):
    """A mask that was interpolated."""


def as_whole(mask: NDArray[Any]) -> NDArray[Any]:
    """A mask's values, those that are nearly whole numbers rounded.

    Example:
        >>> as_whole(np.array([0.0, 1.99998, 0.4])).tolist()
        [0.0, 2.0, 0.4]
    """
    if mask.dtype.kind != "f":
        return mask
    whole = np.rint(mask)
    return np.where(np.abs(mask - whole) < _NEARLY, whole, mask)


@dataclass
class MaskValues:
    """What the masks of a data set hold.

    Attributes:
        voxels: of each value but 0.
        lossy: likewise, in masks that were compressed with loss alone.
    """

    voxels: Counter[int] = field(default_factory=Counter)
    lossy: Counter[int] = field(default_factory=Counter)

    def add(self, mask: NDArray[Any], name: str, *, lossy: bool = False) -> set[int]:
        """Count the values of one mask of :func:`as_whole`; those that it holds.

        Raises:
            FractionsError: some are no whole numbers, with these and their share of what is marked.
        """
        between = mask != np.rint(mask)
        if between.any():
            found = Counter(np.round(mask[between].astype(float), 2).ravel().tolist())
            raise FractionsError(
                f"the mask {name} has values between whole numbers, {_listed(found, int((mask != 0).sum()))} of what "
                "is marked: it was interpolated; resample it by the nearest voxel, and name its values, as in "
                "--structures \"{'myocardium':1}\"."
            )
        least = int(mask.min(initial=0))
        counts = np.bincount(mask.ravel().astype(np.int64) - least) if mask.size else np.zeros(1, int)
        held = {int(value) + least: int(counts[value]) for value in np.flatnonzero(counts) if value + least != 0}
        self.voxels.update(held)
        if lossy:
            self.lossy.update(held)
        return set(held)

    def problem(self, structures: Mapping[str, int], *, rest: bool = False) -> str | None:
        """Why these masks cannot be taken for these structures, and the line to type; ``None`` if they can.

        Args:
            structures: value by name, all that are known.
            rest: all other values were said to be background.
        """
        known = set(structures.values())
        blurred = {value: n for value, n in self.lossy.items() if value not in known}
        if blurred:
            shares = _listed(blurred, sum(self.lossy.values()))
            return (
                f"masks that were saved as JPEG hold values of no structure, {shares} of what is marked: JPEG changes "
                "values; save the original masks as PNG."
            )
        others = {value: n for value, n in self.voxels.items() if value not in known}
        if not others or rest:
            return None
        shares = _listed(others, sum(self.voxels.values()))
        return f"the masks hold values without a name, {shares} of what is marked: {self._advice(structures, others)}."

    def _advice(self, structures: Mapping[str, int], others: Mapping[int, int]) -> str:
        """The line to type."""
        if not set(structures.values()) & set(self.voxels) and len(structures) == len(others):
            return f"name them, as in {_line(dict(zip(structures, sorted(others), strict=True)))}"
        named = dict(structures) | {f"structure {value}": value for value in sorted(others)[:_LISTED]}
        return f"name them, as in {_line(named)}, or say that all else is background with {_line(structures)}"


def _line(structures: Mapping[str, int]) -> str:
    said = ",".join(f"'{name}':{value}" for name, value in structures.items())
    return f'--structures "{{{said}}}"'


def _listed(found: Mapping[Any, int], marked: int) -> str:
    shown = sorted(found, key=lambda value: (-found[value], value))[:_LISTED]
    more = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return ", ".join(f"{value:g} ({found[value] / max(1, marked):.1%})" for value in sorted(shown)) + more
