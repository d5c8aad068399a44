"""Cases with masks: their structures' values, the split, and where the structures lie."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from ..data import (
    Cases,
    perceptual_hash,
    split_patients,
    stack_of,
    suspicious_spacing,
    unlabelled,
)
from ..data.find import absolute
from ..data.layouts.acdc import frames
from ..data.layouts.common import has_columns, read_table
from ..data.masks import MaskValues
from ..data.stacks import check_shapes
from ..utils import UserError, with_bar
from .cases import Parts, audited, refuse_channels
from .unreadable import LeftOut

__all__ = ["middle_share", "read_stacks", "stem", "structure_values", "unmasked", "ventricles"]

_log = logging.getLogger("medtl_monai")

_BEAT = ("patient", "phase")
_NO_SPACING = (
    "nothing tells the size of their voxels, so that distances are in pixels and there are no volumes; give it in mm "
    'along x, y and z, as in --spacing "[1.4,1.4,8]"'
)


def structure_values(
    cases: Cases,
    structures: Mapping[str, int] | Sequence[str] | None = None,
    *,
    model: Mapping[str, int] | Sequence[str] | None = None,
) -> dict[str, int]:
    """Each structure's value in the masks.

    Args:
        cases: with masks.
        structures: names, where the data tells their values, or names with values; ``None``: all that the data has.
        model: the structures of a trained model, which are wanted in this order; with the values that they had in its
            training, a name that the data does not know keeps its value, unless ``structures`` says all.

    Raises:
        UserError: a name whose value is not known, or values that are not different whole numbers above 0.
    """
    told = dict(zip(cases.classes, cases.label_values, strict=True))
    values: dict[str, int] = dict(structures) if isinstance(structures, Mapping) else told
    names = model or (values if structures is None or isinstance(structures, Mapping) else structures)
    if structures is None and isinstance(model, Mapping):
        values = {**values, **_kept(model, values)}
    unknown = [name for name in names if name not in values]
    if unknown:
        raise UserError(
            f"the masks' value of {', '.join(map(str, unknown))} is not known: known are {', '.join(values)}; give "
            f"structures with their values, such as {{'{unknown[0]}': 1}}."
        )
    return _different({name: values[name] for name in names})


def _different(values: dict[str, int]) -> dict[str, int]:
    whole = all(isinstance(value, int) and value > 0 for value in values.values())
    if not values or len(set(values.values())) < len(values) or not whole:
        raise UserError(f"structures must have different values, whole numbers above 0, got {values}.")
    return values


def _kept(model: Mapping[str, int], known: Mapping[str, int]) -> dict[str, int]:
    """The values that a trained model gave to names that the data does not know."""
    kept = {name: value for name, value in model.items() if name not in known}
    for name, value in kept.items():
        _log.info(f"{name}: the value {value} in the masks, as in the training; the data has no such name")
    return kept


def read_stacks(
    cases: Cases,
    structures: Mapping[str, int],
    *,
    chosen: Mapping[str, int] | Sequence[str] | None = None,
    slice_axis: int | None = None,
    spacing: Sequence[float] | None = None,
    val_fraction: float = 0.2,
    fold: int | None = None,
    seed: int = 0,
    part: str | None = None,
    allow_shared_patients: bool = False,
    left_out: LeftOut | None = None,
) -> Parts:
    """Read every image and mask once, give each patient a part, and look for what the parts share.

    Args:
        cases: whose items' ``label`` is the path of a mask.
        structures: value in the masks by name.
        chosen: what the user said of the structures: with values, all other values are background.
        slice_axis: see :func:`medtl_monai.data.read_stack`.
        spacing: see there.
        val_fraction: share of the cases for validation, about; patients are never divided.
        fold: which of ``round(1 / val_fraction)`` folds validates, instead of a random choice.
        seed: of the choice.
        part: put all cases in this part instead of splitting (to score a whole set).
        allow_shared_patients: go on although a patient stands in two parts (by the data's own split).
        left_out: what takes the cases whose files cannot be read or do not fit each other; ``None``: they end the run.

    Raises:
        UserError: files that cannot be read or do not fit each other, values in the masks without a name, a structure
            that is in no mask, too few patients, patients shared by parts.
    """
    refuse_channels(cases)
    looked = _Look(cases, slice_axis, spacing, left_out or LeftOut(strict=True))
    looked.check(structures, rest=isinstance(chosen, Mapping))
    plain = [{**item, "label": 0} for item in looked.items]  # no classes to balance
    settings: dict[str, Any] = {"val_fraction": val_fraction, "fold": fold, "seed": seed, "classes": ["of masks"]}
    names = [part] * len(plain) if part else split_patients(plain, **settings)
    leakage = audited(plain, names, looked.hashes, allow_shared_patients)
    for name in dict.fromkeys(names):
        chosen_items = [item for item, where in zip(plain, names, strict=True) if where == name]
        _log.info(f"{name}: {len(chosen_items)} cases of {len({item['patient'] for item in chosen_items})} patients")
    return Parts(["background", *structures], looked.items, names, leakage)


class _Look:
    """All images and masks, read once: perceptual hashes, the masks' values, and what is worth a warning."""

    def __init__(
        self, cases: Cases, slice_axis: int | None, spacing: Sequence[float] | None, left_out: LeftOut
    ) -> None:
        self.cases, self.values = cases, MaskValues()
        self.hashes: dict[str, int] = {}
        self._doubts: Counter[str] = Counter()
        said: dict[str, Any] = {"slice_axis": slice_axis, "spacing": spacing}
        failed: dict[str, Exception] = {}
        for item in with_bar(cases.items, "reading images and masks"):
            try:
                image, mask = (stack_of(item, key, **said) for key in ("image", "label"))
                check_shapes(item, image, mask)
            except Exception as error:  # every reader has its own kinds
                failed[str(item["image"])] = error
                continue
            self._doubt(image)
            self.hashes[str(item["image"])] = perceptual_hash(image[0, ..., image.shape[-1] // 2].numpy())
            self.values.add(mask.numpy(), str(item["label"]), lossy=mask.meta.get("lossy", False))
        self.items = left_out.rest(cases.items, failed, "images or masks")

    def _doubt(self, image: MetaTensor) -> None:
        if "spacing" not in image.meta:
            self._doubts[_NO_SPACING] += 1
        elif reason := suspicious_spacing(image):
            self._doubts[f"{reason}; volumes and distances in mm may be wrong"] += 1
        axis = image.meta["slice_axis"]
        if axis != 2:
            self._doubts[f"slices run along axis {axis} of the file, the thickest; --slice_axis names another"] += 1

    def check(self, structures: Mapping[str, int], rest: bool) -> None:
        """Warn of what is doubtful; stop at values without a name, and at a structure that no mask shows."""
        for reason, count in self._doubts.items():
            _log.warning(f"{count} of {len(self.items)} images: {reason}")
        known = dict(zip(self.cases.classes, self.cases.label_values, strict=True))
        others = {name: value for name, value in known.items() if value not in structures.values()}
        problem = self.values.problem({**others, **structures}, rest=rest)
        if problem:
            raise UserError(problem)
        for name, value in structures.items():
            if value not in self.values.voxels:
                held = ", ".join(map(str, sorted(self.values.voxels))) or "none"
                raise UserError(
                    f"no mask holds the value {value} of the {name}: the masks hold {held}; give the right values with "
                    "structures."
                )


def middle_share(
    items: Sequence[Mapping[str, Any]],
    structures: Mapping[str, int],
    margin: float = 1.2,
    slice_axis: int | None = None,
) -> float:
    """The side of the middle square that holds every structure of these masks, as a share of the slice's shorter side.

    Args:
        items: of a datalist, with ``label``.
        structures: value in the masks by name.
        margin: times the square that just holds them; the result is rounded up to a multiple of 0.05, and at most 1.
        slice_axis: see :func:`medtl_monai.data.read_stack`.
    """
    farthest = 0.0
    for item in with_bar(items, "looking where the structures lie"):
        mask: Any = stack_of(item, "label", slice_axis=slice_axis)[0]
        size = torch.tensor(mask.shape[:2])
        inside = torch.isin(mask.as_tensor(), torch.tensor(list(structures.values()))).any(-1).nonzero()
        if len(inside):
            farthest = max(farthest, float(2 * (inside + 0.5 - size / 2).abs().max() / size.min()))
    share = min(1.0, math.ceil(round(20 * margin * farthest, 6)) / 20)
    _log.info(f"crop: the middle {share:g} of each slice; the training masks' structures lie within {farthest:.2f}")
    return share


def unmasked(path: str | Path) -> list[dict[str, str]]:
    """Images for inference: one file, or all below a folder that are neither masks (``_gt``) nor whole beats (``_4d``).

    ``patient`` and ``phase`` (``ED`` or ``ES``) are there where a table ``index.csv`` in the folder has columns of
    these names beside ``image``, or ACDC's ``Info.cfg`` lies beside the image.

    Raises:
        UserError: there is none.
    """
    left_out = ("_gt", "_4d")
    items = [item for item in unlabelled(path) if not Path(item["image"]).name.split(".")[0].endswith(left_out)]
    told = _beats(Path(path), {Path(item["image"]).parent for item in items})
    return [{**item, **dict(zip(_BEAT, told.get(item["image"], ()), strict=False))} for item in items]


def _beats(folder: Path, inner: set[Path]) -> dict[str, tuple[str, str]]:
    """Patient and phase of each image, by its path."""
    table, columns = folder / "index.csv", ("image", *_BEAT)
    rows = read_table(table, columns) if has_columns(table, columns) else []
    told = {absolute(folder / row["image"]): (row["patient"], row["phase"]) for row in rows}
    for place in inner:
        phases = frames(place) if (place / "Info.cfg").is_file() else {}
        told |= {str(file): (place.name, phases[name]) for file in place.iterdir() if (name := stem(file)) in phases}
    return told


def stem(file: Path) -> str:
    """Without the ending."""
    return file.name.removesuffix(".gz").rsplit(".", 1)[0]


def ventricles(structures: Sequence[str]) -> list[tuple[int, str]]:
    """The structures that hold blood, with their places: all but the myocardium."""
    return [(k, name) for k, name in enumerate(structures) if "myocard" not in name.lower()]
