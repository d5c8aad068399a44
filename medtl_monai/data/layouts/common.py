"""What the layouts share: tables with known columns, and cases whose files are there."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...utils import UserError
from ..cases import Cases

__all__ = ["delimiter", "found", "has_columns", "read_table"]

_log = logging.getLogger("medtl_monai")


def delimiter(header: str) -> str:
    """What parts the columns of a table's first line: a comma, a semicolon or a tab."""
    return max(",;\t", key=header.count)


def has_columns(path: Path, columns: Sequence[str]) -> bool:
    """Whether there is such a CSV file with these columns."""
    if not path.is_file():
        return False
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return set(columns) <= {name.strip() for name in next(csv.reader([header], delimiter=delimiter(header)), [])}


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has these columns, and perhaps more.

    Raises:
        UserError: it lacks one, or has no rows.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        separator = delimiter(file.readline())
        file.seek(0)
        reader = csv.DictReader(file, delimiter=separator)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        missing = [name for name in columns if name not in (reader.fieldnames or [])]
        if missing:
            raise UserError(
                f"{path.name} has no column {', '.join(missing)}: it has {', '.join(reader.fieldnames or ['none'])}; "
                "expected the table as the set's authors publish it, or another layout."
            )
        rows = [{key: (value or "").strip() for key, value in row.items() if isinstance(key, str)} for row in reader]
    if not rows:
        raise UserError(f"{path.name} has no rows: expected one for each image.")
    return rows


def found(
    root: Path,
    layout: str,
    items: Sequence[dict[str, Any]],
    classes: Sequence[str],
    task: str = "classification",
    label_values: Sequence[int] = (),
    *,
    no_patients: bool = False,
) -> Cases:
    """The cases whose image (and mask) is there; those that are listed without it are counted in the log.

    Args:
        root: the folder.
        layout: its name.
        items: ``image`` and ``label`` as paths, or empty where there is none.
        classes: names of the labels.
        task: as in :class:`Cases`.
        label_values: for segmentation, the value of each class; default: 1, 2, ...
        no_patients: the set does not tell patients, and each image counts as one: said in the log.

    Raises:
        UserError: no file is there at all.
    """
    kept = [item for item in items if all(item[key] for key in _files(task))]
    kind = "images with their masks" if task == "segmentation" else "images"
    if not kept:
        raise UserError(
            f"{root} looks like {layout}, but none of its {len(items)} {kind} is there: copy them below it."
        )
    if len(kept) < len(items):
        _log.warning(f"{layout}: {len(items) - len(kept)} of {len(items)} {kind} are not there and are left out.")
    if no_patients:
        _log.warning(f"{layout} does not tell patients: each image counts as a patient of its own.")
    values = list(label_values) or list(range(1, len(classes) + 1)) if task == "segmentation" else []
    return Cases([_plain(item) for item in kept], list(classes), root, layout, task, values)


def _files(task: str) -> tuple[str, ...]:
    return ("image", "label") if task == "segmentation" else ("image",)


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """Paths as text, and no entries without a value."""
    kept = {key: value for key, value in item.items() if value is not None}
    return {key: str(value) if isinstance(value, Path) else value for key, value in kept.items()}
