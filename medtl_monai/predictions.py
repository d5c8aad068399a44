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

__all__ = ["Predictions", "read_predictions", "write_predictions"]

Array = NDArray[Any]

CASE_COLUMNS = ["image", "patient", "label"]


class Predictions(NamedTuple):
    """The content of a ``predictions.csv``: labels ``(N,)``, -1 where unlabelled, and probabilities ``(N, C)``."""

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
        labels: ``(N,)`` integers; -1 for an unlabelled image, whose label stays empty.
        probabilities: ``(N, C)``, written with ten significant digits.
        classes: C names, which are the names of the columns.

    Raises:
        UserError: a class is called like one of the other columns.
    """
    clash = sorted(set(classes) & set(CASE_COLUMNS))
    if clash:
        raise UserError(f"Expected class names other than {', '.join(CASE_COLUMNS)}, found '{clash[0]}': rename it.")
    names = ["" if label < 0 else classes[label] for label in np.asarray(labels)]
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
    if any(len(row) != len(header) or row[2] not in ["", *classes] for row in rows):
        raise UserError(f"Expected {len(header)} columns and labels among {classes} in every row of {path}.")
    try:
        probabilities = np.array([row[3:] for row in rows], dtype=float).reshape(len(rows), len(classes))
    except ValueError as error:
        raise UserError(f"Expected numbers as probabilities in {path}: {error}.") from error
    labels = np.array([classes.index(row[2]) if row[2] else -1 for row in rows], dtype=int)
    return Predictions([row[0] for row in rows], [row[1] for row in rows], labels, probabilities, classes)
