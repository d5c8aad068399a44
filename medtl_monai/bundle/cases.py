"""The user's images, read once, split by patient and audited, before anything is trained."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import (
    Cases,
    LeakageReport,
    audit,
    present_classes,
    raise_on_shared_patients,
    split_patients,
)
from ..data.readable import read_all
from ..utils import UserError
from .unreadable import LeftOut

__all__ = ["Parts", "audited", "read_parts", "refuse_channels"]

_log = logging.getLogger("medtl_monai")


@dataclass(frozen=True)
class Parts:
    """Cases with the part each stands in.

    Attributes:
        classes: names of the labels.
        items: MONAI datalist items (``image``, ``label``, ``patient`` and what else the data has).
        names: the part of each item: ``train``, ``val`` or ``test``.
        leakage: what the parts share.
    """

    classes: list[str]
    items: list[dict[str, Any]]
    names: list[str]
    leakage: LeakageReport

    def labels(self, part: str) -> list[Any]:
        """The labels of one part."""
        return [item["label"] for item, name in zip(self.items, self.names, strict=True) if name == part]

    def of(self, part: str) -> list[dict[str, Any]]:
        """The items of one part, each with its place ``index`` in it; without ``box``, which is for training alone."""
        chosen = (item for item, name in zip(self.items, self.names, strict=True) if name == part)
        unused = () if part == "train" else ("box",)
        return [{**{k: v for k, v in item.items() if k not in unused}, "index": i} for i, item in enumerate(chosen)]


def read_parts(
    cases: Cases,
    *,
    val_fraction: float = 0.2,
    fold: int | None = None,
    seed: int = 0,
    part: str | None = None,
    allow_shared_patients: bool = False,
    left_out: LeftOut | None = None,
) -> Parts:
    """Read every image once, give each patient a part, and look for what the parts share.

    Args:
        cases: from :func:`medtl_monai.data.load_cases`.
        val_fraction: share of the images for validation, about; patients are never divided.
        fold: which of ``round(1 / val_fraction)`` folds validates, instead of a random choice.
        seed: of the choice.
        part: put all cases in this part instead of splitting (to score a whole set).
        allow_shared_patients: go on although a patient stands in two parts (by the data's own ``split`` column).
        left_out: what takes the images that cannot be read; ``None``: they end the run.

    Raises:
        UserError: an unreadable image, a class with too few patients, patients shared by parts.
    """
    refuse_channels(cases)
    hashes, failed = read_all(cases.items)
    items = (left_out or LeftOut(strict=True)).rest(cases.items, failed, "images")
    settings: dict[str, Any] = {"classes": cases.classes, "val_fraction": val_fraction, "fold": fold, "seed": seed}
    names = [part] * len(items) if part else split_patients(items, **settings)
    leakage = audited(items, names, hashes, allow_shared_patients)
    for name in dict.fromkeys(names):
        _tell_part(cases, name, [item for item, where in zip(items, names, strict=True) if where == name])
    return Parts(cases.classes, items, names, leakage)


def refuse_channels(cases: Cases) -> None:
    """Stop at cases of several files, as the bundles look at one image a case.

    Raises:
        UserError: with the line to type where the layout can choose one.
    """
    several = [item["image"] for item in cases.items if not isinstance(item["image"], str)]
    if several:
        option = {"decathlon": '{"channel": 0}', "brats": '{"sequence": "t1ce"}'}.get(cases.layout)
        choose = f", such as --layout_options '{option}'" if option else ""
        raise UserError(
            f"{len(several)} of {len(cases.items)} cases have several files as channels, such as "
            f"{' and '.join(Path(file).name for file in several[0])}: expected one image a case; choose one{choose}."
        )


def _tell_part(cases: Cases, name: str, items: Sequence[Mapping[str, Any]]) -> None:
    """Say in the log what a part holds; a class without an image to learn it from ends the run."""
    counts = Counter(k for item in items for k in present_classes(item["label"]))
    per_class = ", ".join(f"{counts[i]} {label}" for i, label in enumerate(cases.classes))
    _log.info(f"{name}: {len(items)} images of {len({i['patient'] for i in items})} patients ({per_class})")
    if name == "train":
        _refuse_missing([label for i, label in enumerate(cases.classes) if not counts[i]], cases.task)


def _refuse_missing(missing: Sequence[str], task: str) -> None:
    if missing and task == "multilabel":
        _log.warning(f"no training image shows {', '.join(missing)}: the model cannot learn to find it")
    elif missing:
        raise UserError(f"the training part has no image of {', '.join(missing)}: give each class two patients.")


def audited(
    items: Sequence[dict[str, Any]], names: Sequence[str], hashes: Mapping[str, int], allow_shared_patients: bool
) -> LeakageReport:
    """What the parts share; a shared patient ends the run, unless that is allowed."""
    leakage = audit(items, names, hashes)
    if not allow_shared_patients:
        raise_on_shared_patients(leakage)
    _log.info(f"leakage: {leakage.verdict}")
    return leakage
