"""What the labels of rows are for: one class an image, findings that may stand together, or masks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils import UserError
from .cases import Cases, check_exist
from .find import EXTENSIONS, Names, is_file
from .ids import as_written
from .tables import truth

__all__ = ["labelled"]

NO_FINDING = "No Finding"
Row = Mapping[str, Any]


def labelled(rows: Sequence[Row], root: Path, layout: str, classes: Sequence[str] | None, names: Names) -> Cases:
    """The cases that rows tell: with masks where the labels are files, else of findings or of classes.

    Args:
        rows: with absolute paths of their images; labels as text, or one of each finding under ``label <finding>``.
        root: the folder.
        layout: where the rows are from.
        classes: see :func:`medtl_monai.data.load_cases`.
        names: of the images in the folder.

    Raises:
        UserError: a mask is missing, a finding is no truth value, or the classes do not fit.
    """
    columns = [key for key in rows[0] if key.startswith("label ")]
    if columns:
        return _of_findings(rows, root, layout, *_by_columns(rows, columns, classes))
    if _are_masks(rows, root):
        return _of_masks(rows, root, layout, classes, names)
    if any("|" in row["label"] or _is_none(row["label"]) for row in rows):
        return _of_findings(rows, root, layout, *_joined(rows, classes))
    return _of_classes(rows, root, layout, classes)


def _are_masks(rows: Sequence[Row], root: Path) -> bool:
    """Whether a label is a file, or all are named as files of images are."""
    files = (root / row["label"].replace("\\", "/") for row in rows if Path(row["label"]).suffix)
    return any(map(is_file, files)) or all(row["label"].lower().endswith(EXTENSIONS) for row in rows)


def _of_masks(rows: Sequence[Row], root: Path, layout: str, classes: Sequence[str] | None, names: Names) -> Cases:
    items = [{**row, "label": names.locate(row["label"])} for row in rows]
    check_exist(items, root, "segmentation")
    structures = list(classes or ["foreground"])
    return Cases(items, structures, root, layout, "segmentation", list(range(1, len(structures) + 1)))


def _of_classes(rows: Sequence[Row], root: Path, layout: str, classes: Sequence[str] | None) -> Cases:
    if classes is not None:
        rows = [{**row, "label": as_written(row["label"], classes)} for row in rows]
    found = _class_names(rows, classes)
    return Cases([{**row, "label": found.index(row["label"])} for row in rows], found, root, layout)


def _of_findings(
    rows: Sequence[Row], root: Path, layout: str, names: list[str], labels: Sequence[list[float]]
) -> Cases:
    bare = [{key: value for key, value in row.items() if not key.startswith("label")} for row in rows]
    items = [{**row, "label": label} for row, label in zip(bare, labels, strict=True)]
    return Cases(items, names, root, layout, "multilabel")


def _by_columns(
    rows: Sequence[Row], columns: Sequence[str], wanted: Sequence[str] | None
) -> tuple[list[str], list[list[float]]]:
    names = [column.removeprefix("label ") for column in columns]
    labels = [[_finding(row, name) for name in names] for row in rows]
    return _chosen(names, labels, wanted, math.nan)


def _joined(rows: Sequence[Row], wanted: Sequence[str] | None) -> tuple[list[str], list[list[float]]]:
    shown = [[name.strip() for name in row["label"].split("|")] for row in rows]
    names = sorted({name for row in shown for name in row if name and not _is_none(name)})
    return _chosen(names, [[float(name in row) for name in names] for row in shown], wanted, 0.0)


def _is_none(name: str) -> bool:
    return name.casefold() == NO_FINDING.casefold()


def _chosen(
    names: list[str], labels: list[list[float]], wanted: Sequence[str] | None, absent: float
) -> tuple[list[str], list[list[float]]]:
    """The findings that are wanted, in their order; ``absent`` for those that the data does not name."""
    if wanted is None or list(wanted) == names:
        return names, labels
    unknown = sorted(set(names) - set(wanted))
    if unknown:
        raise UserError(f"the data has the findings {', '.join(unknown)}, which are not among {', '.join(wanted)}.")
    places = [names.index(name) if name in names else None for name in wanted]
    return list(wanted), [[absent if place is None else row[place] for place in places] for row in labels]


def _finding(row: Row, name: str) -> float:
    value = row[f"label {name}"]
    try:
        known = truth(value)
    except KeyError:
        raise UserError(
            f"the finding {name!r} of {Path(row['image']).name} is {value!r}: expected 1, 0, -1 or nothing (true and "
            "false, yes and no are understood)."
        ) from None
    return math.nan if known is None else known


def _class_names(rows: Sequence[Row], wanted: Sequence[str] | None) -> list[str]:
    found = Counter(row["label"] for row in rows)
    if wanted is None:
        if len(found) < 2:
            raise UserError(f"at least two classes are needed, found {', '.join(found)}: check the labels.")
        return sorted(found, key=int if all(name.isdecimal() for name in found) else None)
    unknown = sorted(set(found) - set(wanted))
    if unknown:
        raise UserError(f"the data has images of {', '.join(unknown)}, which are not among {', '.join(wanted)}.")
    return list(wanted)
