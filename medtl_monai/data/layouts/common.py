"""What the layouts share: tables with known columns, their versions, and cases whose files are there."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...utils import UserError
from .. import tables
from ..cases import Cases
from ..find import find, stem_of
from ..tables import has_columns

__all__ = ["by_name", "found", "has_columns", "newest", "number", "read_table"]

_VERSION = re.compile(r"[-_ ]v(\d+)(?=[-_. ]|$)", re.IGNORECASE)
_COPY = re.compile(r" ?\(\d+\)$")  # what a browser adds to a second download


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has these columns, and perhaps more.

    Raises:
        UserError: it lacks one, or is no table.
    """
    table = tables.read_table(path)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(
            f"{path.name} has no column {', '.join(missing)}: it has {', '.join(table.columns)}; expected the table as "
            "the set's authors publish it, or another layout."
        )
    return table.rows


def number(text: str, column: str, where: str) -> float:
    """The number that a cell says.

    Raises:
        UserError: it says none.
    """
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{where} has {text!r} for {column}: expected a number.") from None


def newest(paths: Iterable[Path], doubts: list[str]) -> list[Path]:
    """Of tables whose names differ in their version alone (``-v2``) the newest, in the order of their names.

    Args:
        paths: of tables.
        doubts: gets a sentence about each that is left out.

    Raises:
        UserError: two of the same version.
    """
    groups: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in sorted(paths):
        stem = _COPY.sub("", path.stem)
        version = _VERSION.search(stem)
        groups[_VERSION.sub("", stem).lower()].append((int(version[1]) if version else 1, path))
    kept = []
    for group in groups.values():
        *older, (number, last) = sorted(group)
        if any(version == number for version, _ in older):
            names = " and ".join(path.name for version, path in sorted(group) if version == number)
            raise UserError(f"{names} are tables of one version: keep one of them in {last.parent}.")
        doubts += [f"{path.name} is an older version of {last.name} and is left out" for _, path in older]
        kept.append(last)
    return sorted(kept)


def by_name(root: Path, stems: bool = False) -> dict[str, Path]:
    """The images below ``root`` by their file names, or by these without their endings.

    Raises:
        UserError: two files of one name.
    """
    files: dict[str, Path] = {}
    for path in find(root).images:
        name = stem_of(path.name) if stems else path.name
        before = files.setdefault(name, path)
        if before != path and before.name == path.name:
            raise UserError(
                f"{before.relative_to(root)} and {path.relative_to(root)} are two images of one name: keep one version "
                "of the images below the folder."
            )
        if before != path:
            files[name] = min(before, path)
    return files


def found(
    root: Path,
    layout: str,
    items: Sequence[dict[str, Any]],
    classes: Sequence[str],
    task: str = "classification",
    label_values: Sequence[int] = (),
    *,
    no_patients: bool = False,
    doubts: Sequence[str] = (),
) -> Cases:
    """The cases whose image (and mask) is there; those that are listed without it are counted.

    Args:
        root: the folder.
        layout: its name.
        items: ``image`` and ``label`` as paths, or empty where there is none.
        classes: names of the labels.
        task: as in :class:`Cases`.
        label_values: for segmentation, the value of each class; default: 1, 2, ...
        no_patients: the set does not tell patients, and each image counts as one.
        doubts: what else is to be said.

    Raises:
        UserError: no file is there at all, or an image stands twice with different labels.
    """
    kept = [item for item in items if all(item[key] for key in _files(task))]
    kind = "images with their masks" if task == "segmentation" else "images"
    if not kept:
        raise UserError(
            f"{root} looks like {layout}, but none of its {len(items)} {kind} is there: {_what_is_there(root)}."
        )
    _refuse_twice(kept, task)
    said = list(doubts)
    if len(kept) < len(items):
        said.append(f"{layout}: {len(items) - len(kept)} of {len(items)} {kind} are not there and are left out.")
    if no_patients:
        said.append(f"{layout} does not tell patients: each image counts as a patient of its own.")
    values = list(label_values) or list(range(1, len(classes) + 1)) if task == "segmentation" else []
    return Cases([_plain(item) for item in kept], list(classes), root, layout, task, values, doubts=said)


def _what_is_there(root: Path) -> str:
    below = find(root)
    if not below.images and not below.masks:
        return "there is no image below it; copy them below it"
    files = [*below.images, *below.masks]
    shown = ", ".join(str(path.relative_to(root)) for path in files[:3]) + " ..." * (len(files) > 3)
    return (
        f"found {len(below.images)} images and {len(below.masks)} masks of other names, such as {shown}; name them as "
        "the set does, or give a table index.csv"
    )


def _refuse_twice(items: Sequence[dict[str, Any]], task: str) -> None:
    seen: dict[str, str] = {}
    for item in items:
        about = str([item[key] for key in ("label", "patient")])
        name = f"{item['image']} {item.get('frame', '')}"
        if seen.setdefault(name, about) != about and task != "segmentation":
            raise UserError(
                f"{item['image']} stands twice in the tables, as {seen[name]} and as {about}: keep one version of them."
            )


def _files(task: str) -> tuple[str, ...]:
    return ("image", "label") if task == "segmentation" else ("image",)


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """Paths as text, and no entries without a value."""
    kept = {key: value for key, value in item.items() if value is not None}
    return {key: str(value) if isinstance(value, Path) else value for key, value in kept.items()}
