"""Duke's Breast Cancer Screening DBT (Buda et al., JAMA Network Open 4(8), 2021): tables of views, boxes and files."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from ...utils import UserError
from ..cases import PARTS, Cases
from ..find import glob
from .common import found, newest, number, read_table

__all__ = ["ABOUT", "CLASSES", "matches", "read", "read_views"]

ABOUT = ("BCS-DBT*.csv",)

CLASSES = ("normal", "actionable", "benign", "cancer")
_KEY = ("PatientID", "StudyUID", "View")
_BOX = ("Slice", "X", "Y", "Width", "Height")


def matches(root: Path) -> bool:
    """Whether the folder holds ``BCS-DBT labels-*.csv``."""
    return bool(_tables(root, "labels"))


def read(root: Path) -> Cases:
    """The views of all parts; the DICOM files from ``BCS-DBT file-paths-*.csv``, below the folder.

    Of tables in several versions the newest of each part is read.

    Raises:
        UserError: a table or its images are missing, or an option is none of the layout's.
    """
    doubts: list[str] = []
    paths = {
        _key(row): (row.get("descriptive_path"), row.get("classic_path"))
        for table, _ in _tables(root, "file-paths", doubts)
        for row in read_table(table, [*_KEY, "descriptive_path"])
    }
    if not paths:
        raise UserError(f"{root} has no table BCS-DBT file-paths-*.csv: it is needed to find the DICOM files.")
    tops = [root, *(path for path in root.iterdir() if path.is_dir())]  # downloads stand in a folder manifest-<number>
    items = read_views(root, doubts)
    for item in items:
        names = paths.get((item["patient"], item["study"], item["view"]), ())
        places = (top / name.replace("\\", "/") for name in names if name for top in tops)
        item["image"] = next((place for place in places if place.is_file()), None)
    return found(root, "bcs_dbt", items, CLASSES, doubts=list(dict.fromkeys(doubts)))


def read_views(root: Path, doubts: list[str] | None = None) -> list[dict[str, Any]]:
    """What the tables say of every view, without its image; ``doubts`` gets a sentence about each table left out.

    Each has ``patient``, ``study``, ``view`` (such as ``lmlo``), ``laterality`` (L or R), ``label`` (an index into
    ``CLASSES``), ``split``, and ``boxes``: slice, x, y, width and height (in pixels, from 0), and class.

    Raises:
        UserError: a view of no class or of several.
    """
    doubts = [] if doubts is None else doubts
    boxes: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for table, _ in _tables(root, "boxes", doubts):
        for row in read_table(table, [*_KEY, *_BOX, "Class"]):
            box: dict[str, Any] = {name.lower(): int(number(row[name], name, table.name)) for name in _BOX}
            boxes[_key(row)].append(box | {"class": row["Class"].lower()})
    items = []
    for table, part in _tables(root, "labels", doubts):
        for row in read_table(table, [*_KEY, *map(str.capitalize, CLASSES)]):
            patient, study, view = key = _key(row)
            marks = [row[name.capitalize()].removesuffix(".0") for name in CLASSES]
            if sorted(marks) != ["0", "0", "0", "1"]:
                raise UserError(f"{table.name}: view {view} of {patient} has the marks {marks}: expected a single 1.")
            item = {"patient": patient, "study": study, "view": view, "laterality": view[0].upper(), "split": part}
            items.append(item | {"label": marks.index("1"), "boxes": boxes.get(key, [])})
    return items


def _key(row: dict[str, str]) -> tuple[str, str, str]:
    return row["PatientID"], row["StudyUID"], row["View"]


def _tables(root: Path, kind: str, doubts: list[str] | None = None) -> list[tuple[Path, str]]:
    """Tables of a kind, of each part the newest, with the part that it is for."""
    named = [(path, re.search(r"-(train|validation|test)\b", path.name)) for path in glob(root, "BCS-DBT*.csv")]
    parts = {path: PARTS[part[1]] for path, part in named if part and f"{kind}-" in path.name}
    kept = newest(parts, doubts) if doubts is not None else list(parts)
    return [(path, parts[path]) for path in kept]
