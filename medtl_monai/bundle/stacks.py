"""Cases with masks: their structures' values, the split, and where the structures lie."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import (
    Cases,
    perceptual_hash,
    split_patients,
    stack_of,
    suspicious_spacing,
    tells_spacing,
    unlabelled,
)
from ..data.find import absolute
from ..data.layouts.acdc import frames
from ..data.layouts.common import has_columns, read_table
from ..utils import UserError, with_bar
from .cases import Parts, audited, refuse_channels

__all__ = ["middle_share", "read_stacks", "stem", "structure_values", "unmasked", "ventricles"]

_log = logging.getLogger("medtl_monai")


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
    values = dict(
        structures if isinstance(structures, Mapping) else zip(cases.classes, cases.label_values, strict=True)
    )
    names = model or (values if structures is None or isinstance(structures, Mapping) else structures)
    if structures is None and isinstance(model, Mapping):
        kept = {name: value for name, value in model.items() if name not in values}
        values |= kept
        for name, value in kept.items():
            _log.info(f"{name}: the value {value} in the masks, as in the training; the data has no such name")
    unknown = [name for name in names if name not in values]
    if unknown:
        raise UserError(
            f"the masks' value of {', '.join(map(str, unknown))} is not known: known are {', '.join(values)}; give "
            f"structures with their values, such as {{'{unknown[0]}': 1}}."
        )
    values = {name: values[name] for name in names}
    whole = all(isinstance(value, int) and value > 0 for value in values.values())
    if not values or len(set(values.values())) < len(values) or not whole:
        raise UserError(f"structures must have different values, whole numbers above 0, got {values}.")
    return values


def read_stacks(
    cases: Cases,
    structures: Mapping[str, int],
    *,
    val_fraction: float = 0.2,
    fold: int | None = None,
    seed: int = 0,
    part: str | None = None,
    allow_shared_patients: bool = False,
) -> Parts:
    """Read every image and mask once, give each patient a part, and look for what the parts share.

    Args:
        cases: whose items' ``label`` is the path of a mask.
        structures: value in the masks by name.
        val_fraction: share of the cases for validation, about; patients are never divided.
        fold: which of ``round(1 / val_fraction)`` folds validates, instead of a random choice.
        seed: of the choice.
        part: put all cases in this part instead of splitting (to score a whole set).
        allow_shared_patients: go on although a patient stands in two parts (by the data's own split).

    Raises:
        UserError: files that cannot be read or do not fit each other, a structure that is in no mask, too few
            patients, patients shared by parts.
    """
    refuse_channels(cases)
    hashes = _look(cases, structures)
    plain = [{**item, "label": 0} for item in cases.items]  # no classes to balance
    settings: dict[str, Any] = {"val_fraction": val_fraction, "fold": fold, "seed": seed, "classes": ["of masks"]}
    names = [part] * len(plain) if part else split_patients(plain, **settings)
    leakage = audited(plain, names, hashes, allow_shared_patients)
    for name in dict.fromkeys(names):
        chosen = [item for item, where in zip(plain, names, strict=True) if where == name]
        _log.info(f"{name}: {len(chosen)} cases of {len({item['patient'] for item in chosen})} patients")
    return Parts(["background", *structures], cases.items, names, leakage)


def _look(cases: Cases, structures: Mapping[str, int]) -> dict[str, int]:
    """Perceptual hashes of all images, which were read with their masks and found to fit."""
    hashes, found = {}, np.zeros(len(structures), dtype=int)
    failed, doubts = [], []
    for item in with_bar(cases.items, "reading images and masks"):
        try:
            image, mask = (stack_of(item, key) for key in ("image", "label"))
        except UserError:
            raise
        except Exception as error:  # every reader has its own kinds
            failed.append(f"{item['image']} ({str(error).partition(chr(10))[0][:80] or type(error).__name__})")
            continue
        _check_shapes(item, image, mask)
        if tells_spacing(item["image"]):
            doubts += [reason for reason in [suspicious_spacing(image)] if reason]
        hashes[str(item["image"])] = perceptual_hash(image[0, ..., image.shape[-1] // 2].numpy())
        found += [bool((mask == value).any()) for value in structures.values()]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(cases.items)} images or masks cannot be read: {', '.join(failed[:3])}: "
            "repair or remove them."
        )
    for reason, count in Counter(doubts).items():
        _log.warning(f"{count} of {len(cases.items)} images: {reason}; volumes and distances in mm may be wrong")
    _check_structures(cases, structures, found)
    return hashes


def _check_shapes(item: Mapping[str, Any], image: Tensor, mask: Tensor) -> None:
    if image.shape != mask.shape:
        raise UserError(
            f"{item['image']} has the shape {tuple(image.shape[1:])} and its mask {item['label']} "
            f"{tuple(mask.shape[1:])}: they must be equal."
        )


def _check_structures(cases: Cases, structures: Mapping[str, int], found: NDArray[Any]) -> None:
    """Stop at a structure that no mask shows."""
    for name, count in zip(structures, found, strict=True):
        if not count:
            values = sorted({int(v) for item in cases.items[:5] for v in stack_of(item, "label").unique()} - {0})
            raise UserError(
                f"no mask holds the value {structures[name]} of the {name}: the first masks hold "
                f"{', '.join(map(str, values)) or 'none'}; give the right values with structures."
            )


def middle_share(items: Sequence[Mapping[str, Any]], structures: Mapping[str, int], margin: float = 1.2) -> float:
    """The side of the middle square that holds every structure of these masks, as a share of the slice's shorter side.

    Args:
        items: of a datalist, with ``label``.
        structures: value in the masks by name.
        margin: times the square that just holds them; the result is rounded up to a multiple of 0.05, and at most 1.
    """
    farthest = 0.0
    for item in with_bar(items, "looking where the structures lie"):
        mask: Any = stack_of(item, "label")[0]
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
    table = Path(path) / "index.csv"
    columns = ("image", "patient", "phase")
    rows = read_table(table, columns) if has_columns(table, columns) else []
    told = {absolute(table.parent / row["image"]): (row["patient"], row["phase"]) for row in rows}
    for folder in {Path(item["image"]).parent for item in items}:
        phases = frames(folder) if (folder / "Info.cfg").is_file() else {}
        told |= {str(file): (folder.name, phases[name]) for file in folder.iterdir() if (name := stem(file)) in phases}
    return [{**item, **dict(zip(columns[1:], told.get(item["image"], ()), strict=False))} for item in items]


def stem(file: Path) -> str:
    """Without the ending."""
    return file.name.removesuffix(".gz").rsplit(".", 1)[0]


def ventricles(structures: Sequence[str]) -> list[tuple[int, str]]:
    """The structures that hold blood, with their places: all but the myocardium."""
    return [(k, name) for k, name in enumerate(structures) if "myocard" not in name.lower()]
