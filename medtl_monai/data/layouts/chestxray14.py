"""NIH ChestX-ray14 (Wang et al., ChestX-ray8, CVPR 2017): 14 findings in frontal chest radiographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...utils import UserError
from ..cases import PARTS, Cases
from ..find import glob, stem_of
from .common import by_name, found, has_columns, newest, number, read_table

__all__ = ["ABOUT", "FINDINGS", "matches", "read"]

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""In the order of the paper."""

_TABLE = "Data_Entry_2017*.csv"
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


ABOUT = ("Data_Entry_2017*.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017*.csv", "*-small.csv")
_Items = list[dict[str, Any]]


def matches(root: Path) -> bool:
    """Whether the folder holds ``Data_Entry_2017*.csv``, or the tables by part of its well-known small copies."""
    return bool(glob(root, _TABLE)) or bool(_part_tables(root))


def read(root: Path) -> Cases:
    """The images below the folder; patients by Patient ID, the official split from its two lists.

    Images may be of another format than the table says, as smaller copies are. Small copies have one table for each
    part (``train*.csv``, ``valid*.csv``, ``test*.csv``), with a column for each finding.
    """
    files, doubts = by_name(root, stems=True), list[str]()
    tables = newest(glob(root, _TABLE), doubts)
    items = _of_one_table(root, tables[-1]) if tables else _of_parts(root)
    for item in items:
        item["image"] = files.get(stem_of(item["image"]))
    return found(root, "chestxray14", items, FINDINGS, "multilabel", doubts=doubts)


def _of_one_table(root: Path, table: Path) -> _Items:
    parts = {
        stem_of(name): part
        for file, part in _LISTS.items()
        if (root / file).is_file()
        for name in (root / file).read_text(encoding="utf-8").split()
    }
    items: _Items = []
    for row in read_table(table, ["Image Index", "Finding Labels", "Patient ID"]):
        name, shown = row["Image Index"], row["Finding Labels"].split("|")
        unknown = set(shown) - {*FINDINGS, "No Finding"}
        if unknown:
            raise UserError(f"{table.name} has the finding {min(unknown)!r}: expected {', '.join(FINDINGS)}.")
        label = [float(finding in shown) for finding in FINDINGS]
        item = {"image": name, "label": label, "patient": row["Patient ID"], "split": parts.get(stem_of(name))}
        items.append(item | {"view": row.get("View Position")})
    return items


def _of_parts(root: Path) -> _Items:
    items: _Items = []
    for table, part in _part_tables(root).items():
        for row in read_table(table, ["Image", "PatientId", *FINDINGS]):
            label = [number(row[finding], finding, table.name) for finding in FINDINGS]
            items.append({"image": row["Image"], "label": label, "patient": row["PatientId"], "split": part})
    return items


def _part_tables(root: Path) -> dict[Path, str]:
    parts = {path: PARTS.get(path.stem.partition("-")[0].lower()) for path in glob(root, "*.csv")}
    columns = ["Image", "PatientId", *FINDINGS]
    return {path: part for path, part in parts.items() if part and has_columns(path, columns)}
