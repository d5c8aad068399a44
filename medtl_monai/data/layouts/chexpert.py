"""CheXpert (Irvin et al., CheXpert: a large chest radiograph dataset with uncertainty labels, AAAI 2019)."""

from __future__ import annotations

import math
import re
from pathlib import Path

from ...utils import UserError
from ..cases import Cases
from ..tables import truth
from .common import found, has_columns, read_table

__all__ = ["ABOUT", "OBSERVATIONS", "matches", "read"]

OBSERVATIONS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
"""The columns, in their order."""

ABOUT = ("train.csv", "valid.csv", "test.csv")
_TABLES = {"train.csv": "train", "valid.csv": "val", "test.csv": "test"}
_UNCERTAIN = {"ignore": math.nan, "ones": 1.0, "zeros": 0.0}


def matches(root: Path) -> bool:
    """Whether ``train.csv`` or ``valid.csv`` has the columns of CheXpert."""
    return any(has_columns(root / name, ["Path", *OBSERVATIONS]) for name in _TABLES)


def read(root: Path, *, uncertain: str = "ignore") -> Cases:
    """The images that the tables name; patients by their folders.

    Args:
        root: the folder with ``train.csv`` and ``valid.csv``.
        uncertain: what -1 means: ``ignore`` (unknown, masked in training), ``ones`` or ``zeros`` (the U-Ones and
            U-Zeros of the paper). An observation that the report does not mention is taken as absent.

    Raises:
        UserError: a table or its images are missing, or an option is none of the layout's.
    """
    if uncertain not in _UNCERTAIN:
        raise UserError(f"uncertain must be {', '.join(_UNCERTAIN)}, got {uncertain!r}.")
    items = []
    for name, part in _TABLES.items():
        for row in read_table(root / name, ["Path", *OBSERVATIONS]) if (root / name).is_file() else ():
            path = Path(row["Path"].replace("\\", "/"))  # begins with the name of the set's own folder
            places = (root / path, root.parent / path, root.joinpath(*path.parts[1:]))
            patient = re.search(r"patient\d+", row["Path"])
            if patient is None:
                raise UserError(
                    f"{name} names {path}, without a patient's folder: expected .../patient00001/study1/..."
                )
            items.append(
                {
                    "image": next((place for place in places if place.is_file()), None),
                    "label": [_value(row[observation], observation, path, uncertain) for observation in OBSERVATIONS],
                    "patient": patient[0],
                    "split": part,
                    "view": row.get("Frontal/Lateral"),
                }
            )
    return found(root, "chexpert", items, OBSERVATIONS, "multilabel")


def _value(text: str, observation: str, path: Path, uncertain: str) -> float:
    try:
        if text.removesuffix(".0") == "-1":
            return _UNCERTAIN[uncertain]
        return truth(text) or 0.0  # what is not mentioned is absent
    except KeyError:
        raise UserError(f"{path} has {text!r} for {observation}: expected 1, 0, -1 or nothing.") from None
