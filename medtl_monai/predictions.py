"""``predictions.csv``: one row an image, one probability column a class."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .utils import UserError, atomic_path

__all__ = ["Predictions", "class_name", "read_predictions", "write_predictions"]

Array = NDArray[Any]

CASE_COLUMNS = ["image", "patient", "label"]
NO_FINDING = "No Finding"


class Predictions(NamedTuple):
    """The content of a ``predictions.csv``: labels as they were written and probabilities ``(N, C)``."""

    images: list[str]
    patients: list[str]
    labels: Array
    probabilities: Array
    classes: list[str]


def write_predictions(
    path: str | os.PathLike[str],
    images: Sequence[str],
    patients: Sequence[str],
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Sequence[str],
) -> None:
    """Write ``predictions.csv``, whole or not at all: image, patient, label, then one probability column per class.

    Args:
        path: the file.
        images: N names.
        patients: N names.
        labels: ``(N,)`` integers, -1 for an unlabelled image, whose label stays empty; or, of findings that may stand
            together, ``(N, C)`` with 1, 0 and NaN for unknown: written as ``Mass|Effusion?``, the second unknown, or as
            ``No Finding``.
        probabilities: ``(N, C)``, written with ten significant digits.
        classes: C names, which are the names of the columns.

    Raises:
        UserError: a class is called like one of the other columns.
    """
    clash = sorted(set(classes) & set(CASE_COLUMNS))
    if clash:
        raise UserError(f"Expected class names other than {', '.join(CASE_COLUMNS)}, found '{clash[0]}': rename it.")
    names = [class_name(label, classes) for label in np.asarray(labels)]
    columns = zip(images, patients, names, np.asarray(probabilities), strict=True)
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*CASE_COLUMNS, *classes])
        writer.writerows([*case, *(f"{p:.10g}" for p in row)] for *case, row in columns)


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read a ``predictions.csv`` of `write_predictions`.

    Raises:
        UserError: the file is missing or is not such a table.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Expected a table of predictions, found no file {path}: check the path.")
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    classes = header[3:]
    if header[:3] != CASE_COLUMNS or not classes:
        raise UserError(f"Expected columns {', '.join(CASE_COLUMNS)} and one per class in {path}, found {header}.")
    single = all(row[2] in ["", *classes] for row in rows if len(row) > 2)
    parts = {part.removesuffix("?") for row in rows if len(row) > 2 for part in row[2].split("|")}
    if any(len(row) != len(header) for row in rows) or not (single or parts <= {NO_FINDING, *classes}):
        raise UserError(f"Expected {len(header)} columns and labels among {classes} in every row of {path}.")
    try:
        probabilities = np.array([row[3:] for row in rows], dtype=float).reshape(len(rows), len(classes))
    except ValueError as error:
        raise UserError(f"Expected numbers as probabilities in {path}: {error}.") from error
    if single:
        labels = np.array([classes.index(row[2]) if row[2] else -1 for row in rows], dtype=int)
    else:
        labels = np.array([_values(row[2].split("|"), classes) for row in rows], dtype=float)
    return Predictions([row[0] for row in rows], [row[1] for row in rows], labels, probabilities, classes)


def class_name(label: ArrayLike, classes: Sequence[str]) -> str:
    """A label in words: the class; of findings (1, 0, NaN) those present, unknown ones with a question mark.

    Example:
        >>> class_name(1, ["benign", "cancer"]), class_name([1, 0, float("nan")], ["Mass", "Nodule", "Effusion"])
        ('cancer', 'Mass|Effusion?')
    """
    if np.ndim(label) == 0:
        return "" if label < 0 else classes[label]
    marks = zip(classes, label, strict=True)
    return "|".join(f"{name}?" if np.isnan(y) else name for name, y in marks if y != 0) or NO_FINDING


def _values(names: Sequence[str], findings: Sequence[str]) -> list[float]:
    return [1.0 if name in names else np.nan if f"{name}?" in names else 0.0 for name in findings]
