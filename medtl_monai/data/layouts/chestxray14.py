"""NIH ChestX-ray14 (Wang et al., ChestX-ray8, CVPR 2017): 14 findings in frontal chest radiographs."""

from __future__ import annotations

from pathlib import Path

from ...utils import UserError
from ..cases import PARTS, Cases
from .common import found, has_columns, read_table

__all__ = ["FINDINGS", "matches", "read"]

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""In the order of the paper."""

_TABLE = "Data_Entry_2017*.csv"
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def matches(root: Path) -> bool:
    """Whether the folder holds ``Data_Entry_2017*.csv``, or the tables by part of its well-known small copies."""
    return any(root.glob(_TABLE)) or bool(_part_tables(root))


def read(root: Path) -> Cases:
    """The images in ``images*`` folders; patients by Patient ID, the official split from its two lists.

    Small copies have one table for each part (``train*.csv``, ``valid*.csv``, ``test*.csv``), with a column for each
    finding.
    """
    files = {path.name: path for path in root.glob("images*/**/*.png")}
    tables = sorted(root.glob(_TABLE))
    items = []
    if tables:
        parts = {
            name: part
            for file, part in _LISTS.items()
            if (root / file).is_file()
            for name in (root / file).read_text(encoding="utf-8").split()
        }
        for row in read_table(tables[-1], ["Image Index", "Finding Labels", "Patient ID"]):
            name, shown = row["Image Index"], row["Finding Labels"].split("|")
            unknown = set(shown) - {*FINDINGS, "No Finding"}
            if unknown:
                raise UserError(f"{tables[-1].name} has the finding {min(unknown)!r}: expected {', '.join(FINDINGS)}.")
            label = [float(finding in shown) for finding in FINDINGS]
            item = {"image": files.get(name), "label": label, "patient": row["Patient ID"], "split": parts.get(name)}
            items.append(item | {"view": row.get("View Position")})
    for table, part in _part_tables(root).items() if not tables else ():
        for row in read_table(table, ["Image", "PatientId", *FINDINGS]):
            label = [float(row[finding]) for finding in FINDINGS]
            items.append({"image": files.get(row["Image"]), "label": label, "patient": row["PatientId"], "split": part})
    return found(root, "chestxray14", items, FINDINGS, "multilabel")


def _part_tables(root: Path) -> dict[Path, str]:
    parts = {path: PARTS.get(path.stem.partition("-")[0].lower()) for path in sorted(root.glob("*.csv"))}
    columns = ["Image", "PatientId", *FINDINGS]
    return {path: part for path, part in parts.items() if part and has_columns(path, columns)}
