"""``predictions.csv``: one row an image, one probability column a class."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .utils import UserError, read_cell, write_table

__all__ = ["Predictions", "class_name", "read_predictions", "relative", "write_predictions"]

Array = NDArray[Any]

CASE_COLUMNS = ["image", "patient", "part", "label", "predicted"]
NO_FINDING = "No Finding"


class Predictions(NamedTuple):
    """The content of a ``predictions.csv``.

    Attributes:
        images: N names, relative to the folder of the data.
        patients: N names; empty where they are not known.
        parts: of the split; empty for images without labels.
        labels: ``(N,)`` integers, -1 for an unlabelled image; or, of findings that may stand together, ``(N, C)`` with
            1, 0 and NaN for unknown.
        predicted: the class, or the findings, that the probabilities say.
        probabilities: ``(N, C)``.
        classes: C names.
    """

    images: list[str]
    patients: list[str]
    parts: list[str]
    labels: Array
    predicted: list[str]
    probabilities: Array
    classes: list[str]


def write_predictions(
    path: str | os.PathLike[str],
    images: Sequence[str],
    patients: Sequence[str],
    parts: Sequence[str],
    labels: ArrayLike,
    predicted: Sequence[str],
    probabilities: ArrayLike,
    classes: Sequence[str],
) -> None:
    """Write ``predictions.csv``, whole or not at all: :class:`Predictions`, one row an image, one column a class.

    Args:
        path: the file.
        images: see :class:`Predictions`; so are the others.
        patients: there.
        parts: there.
        labels: there, ``(N,)`` or ``(N, C)``; findings are written as ``Mass|Effusion?``, the second unknown, or as
            ``No Finding``.
        predicted: there.
        probabilities: there; written with ten significant digits.
        classes: there; they are the names of the columns.

    Raises:
        UserError: a class is called like one of the other columns.
    """
    clash = sorted(set(classes) & set(CASE_COLUMNS))
    if clash:
        raise UserError(f"Expected class names other than {', '.join(CASE_COLUMNS)}, found '{clash[0]}': rename it.")
    names = [class_name(label, classes) for label in np.asarray(labels)]
    columns = zip(images, patients, parts, names, predicted, np.asarray(probabilities), strict=True)
    write_table(path, [[*CASE_COLUMNS, *classes], *([*case, *(f"{p:.10g}" for p in row)] for *case, row in columns)])


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read a ``predictions.csv`` of `write_predictions`.

    Raises:
        UserError: the file is missing or is not such a table.
    """
    n = len(CASE_COLUMNS)
    classes, rows = _table(Path(path))
    labels = None if any(len(row) != n + len(classes) for row in rows) else _labels(rows, classes)
    if labels is None:
        raise UserError(f"Expected {n + len(classes)} columns and labels among {classes} in every row of {path}.")
    try:
        probabilities = np.array([row[n:] for row in rows], dtype=float).reshape(len(rows), len(classes))
    except ValueError as error:
        raise UserError(f"Expected numbers as probabilities in {path}: {error}.") from error
    images, patients, parts, _, predicted = ([row[i] for row in rows] for i in range(n))
    return Predictions(images, patients, parts, labels, predicted, probabilities, classes)


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The classes that the header names, and the rows."""
    if not path.is_file():
        raise UserError(f"Expected a table of predictions, found no file {path}: check the path.")
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = [[read_cell(cell) for cell in row] for row in csv.reader(file)] or [[]]
    classes = header[len(CASE_COLUMNS) :]
    if header[: len(CASE_COLUMNS)] != CASE_COLUMNS or not classes:
        raise UserError(f"Expected columns {', '.join(CASE_COLUMNS)} and one per class in {path}, found {header}.")
    return classes, rows


def _labels(rows: Sequence[Sequence[str]], classes: Sequence[str]) -> Array | None:
    """Labels of :class:`Predictions` from words; ``None``: one of these is neither a class nor a finding."""
    said = [row[CASE_COLUMNS.index("label")] for row in rows]
    if all(name in ("", *classes) for name in said):
        return np.array([classes.index(name) if name else -1 for name in said], dtype=int)
    if not {word.removesuffix("?") for name in said for word in name.split("|")} <= {NO_FINDING, *classes}:
        return None
    return np.array([_values(name.split("|"), classes) for name in said], dtype=float)


def relative(image: str, root: str | os.PathLike[str]) -> str:
    """An image's name in the folder of the data, so that tables say the same on every machine; else as it is.

    Example:
        >>> relative("/data/brain/a/1.png", "/data/brain"), relative("/elsewhere/1.png", "/data/brain")
        ('a/1.png', '/elsewhere/1.png')
    """
    folder, path = Path(root).expanduser().absolute(), Path(image).absolute()
    folder = folder.parent if folder.is_file() else folder
    for within in (folder, folder.resolve()):  # images may be named by either
        if path.is_relative_to(within):
            return str(path.relative_to(within))
    return str(image)


def class_name(label: ArrayLike, classes: Sequence[str]) -> str:
    """A label in words: the class; of findings ``(C,)``, 1, 0 or NaN, those present, unknown ones with a question mark.

    Example:
        >>> class_name(1, ["benign", "cancer"]), class_name([1, 0, float("nan")], ["Mass", "Nodule", "Effusion"])
        ('cancer', 'Mass|Effusion?')
    """
    given: Any = label
    if np.ndim(given) == 0:
        return "" if given < 0 else classes[given]
    marks = zip(classes, given, strict=True)
    return "|".join(f"{name}?" if np.isnan(y) else name for name, y in marks if y != 0) or NO_FINDING


def _values(names: Sequence[str], findings: Sequence[str]) -> list[float]:
    return [1.0 if name in names else np.nan if f"{name}?" in names else 0.0 for name in findings]
