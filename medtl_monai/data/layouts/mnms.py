"""M&Ms cardiac MRI of several centres and vendors (Campello et al., IEEE Trans. Medical Imaging 40(12), 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..cases import PARTS, Cases
from ..find import glob
from .common import found, newest, number, read_table

__all__ = ["ABOUT", "CLASSES", "matches", "read"]

CLASSES = ("left ventricle", "myocardium", "right ventricle")
"""Their values in the masks are 1, 2 and 3."""

_TABLE = "*M&Ms_Dataset_information_diagnosis_opendataset.csv"
ABOUT = (_TABLE,)
_COLUMNS = ("External code", "VendorName", "Centre", "ED", "ES")


def matches(root: Path) -> bool:
    """Whether the folder holds the set's table of patients, ``*M&Ms_Dataset_information_diagnosis_opendataset.csv``."""
    return bool(glob(root, _TABLE))


def read(root: Path) -> Cases:
    """Two items a patient, ``phase`` ED and ES: ``frame`` counts from 0 in the volume over time and in its mask.

    ``domain`` is vendor and centre, ``group`` the pathology; the split is that of the folders.
    """
    images = {path.name: path for path in glob(root, "*_sa.nii.gz", deep=True)}
    masks = {path.name: path for path in glob(root, "*_sa_gt.nii.gz", deep=True)}
    items: list[dict[str, Any]] = []
    doubts: list[str] = []
    for row in read_table(newest(glob(root, _TABLE), doubts)[-1], _COLUMNS):
        code = row["External code"]
        image = images.get(f"{code}_sa.nii.gz")
        top = image.relative_to(root).parts[0].lower() if image else ""
        for phase in ("ED", "ES"):
            items.append(
                {
                    "image": image,
                    "label": masks.get(f"{code}_sa_gt.nii.gz"),
                    "patient": code,
                    "phase": phase,
                    "frame": int(number(row[phase], phase, f"the row of {code}")),
                    "domain": f"{row['VendorName']}, centre {row['Centre']}",
                    "group": row.get("Pathology"),
                    "split": PARTS.get(top),
                }
            )
    return found(root, "mnms", items, CLASSES, "segmentation", doubts=doubts)
