"""Class folders into rows: the class, the patient and the part are folders of each image's path."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ..utils import UserError
from .cases import PARTS
from .find import Found, find, kinds, render_unused, unused

__all__ = ["folder_rows"]

_HELPERS = {"images", "image", "imgs", "img", "pictures", "png", "pngs", "jpg", "jpeg", "jpegs", "dicom", "data", "raw"}
_SET = re.compile(rf"({'|'.join(PARTS)})[ _-]?(?:set|data|dataset|images|imgs|split|part|folder)", re.IGNORECASE)
_ENDING = re.compile(r"(.*\w)([ _-]+[A-Za-z]\w*)")
_MANY = 0.2  # of all images


def folder_rows(root: Path, patient_column: str | None) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of ``image``, ``label``, ``patient`` and perhaps ``split``, and what is to be said of them.

    Args:
        root: holds ``<class>/**/<image>`` or ``<part>/<class>/**/<image>``.
        patient_column: ``auto``: the folder between class and image; ``None``: each image is its own patient; else a
            pattern with one group that finds the patient in the path within ``root``.

    Raises:
        UserError: an image without a class or a patient, folders that are no classes or no patients, a wrong pattern.
    """
    found = find(root)
    files = [file.relative_to(root) for file in found.images]
    if not files:
        _refuse_nothing(root, found)
    split = _of_parts(root, files)
    inner = {file: file.parts[1:] if split else file.parts for file in files}
    _refuse_bare([file for file, parts in inner.items() if len(parts) < 2], root)
    _refuse_masks({parts[0] for parts in inner.values()}, [file.relative_to(root) for file in found.masks], split)
    rows = []
    for file, parts in inner.items():
        # class and patient: folders of one name under two classes are one patient
        row = {"image": str(file), "label": parts[0], "patient": _patient(file, parts, patient_column, root)}
        rows.append({**row, "split": PARTS[file.parts[0].lower()]} if split else row)
    return rows, [*_doubts(inner.values(), rows), *_twins(files)]


def _refuse_bare(files: Sequence[Path], root: Path) -> None:
    if files:
        file = files[0]
        raise UserError(
            f"{file} lies in no class folder: expected <class>/{file.name}, or a table index.csv{_tables(root)}.",
            lacks="labels",
        )


def _refuse_nothing(root: Path, found: Found) -> None:
    masks = found.masks
    if masks:
        raise UserError(
            f"the {len(masks)} images below {root} are masks by their names, such as {masks[0].relative_to(root)}: "
            "expected images; rename them, or name them in a table index.csv."
        )
    others = unused(found, ())
    there = f"; {render_unused(others)}" if others else ""
    raise UserError(
        f"there is no image below {root}: expected a table, a datalist, or class folders of {kinds()}{there}"
        f"{_tables(root)}."
    )


def _tables(root: Path) -> str:
    """The line to type where a table of another name is there."""
    books = sorted(path.name for path in root.iterdir() if path.suffix.lower() in (".xlsx", ".xls", ".ods"))
    names = sorted(path.name for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    if books and not names:
        return f"; there is {books[0]}: save it as index.csv (CSV UTF-8)"
    return f"; there is {', '.join(names[:3])}: name a table with --table {names[0]!r}" if names else ""


def _of_parts(root: Path, files: Sequence[Path]) -> bool:
    """Whether the first folders are the parts of a split.

    Raises:
        UserError: some are, and others hold classes too.
    """
    inside = [file.parts[0] for file in files if len(file.parts) > 1]
    parts = [name for name in dict.fromkeys(inside) if name.lower() in PARTS]
    others = [name for name in dict.fromkeys(inside) if name.lower() not in PARTS]
    _refuse_sets(others, root)
    if parts and others:
        raise UserError(
            f"the folders {', '.join(parts)} are parts of a split and {', '.join(others[:3])} are not: expected "
            f"<part>/<class>/... or <class>/... for all images in {root}; move the others."
        )
    return bool(parts) and len(inside) == len(files)


def _refuse_sets(names: Sequence[str], root: Path) -> None:
    """Stop where all folders that are no parts are named as parts are, such as ``train_set``: they are no classes."""
    meant = {name: match[1].lower() for name in names if (match := _SET.fullmatch(name))}
    if meant and len(meant) == len(names):
        name, part = next(iter(meant.items()))
        raise UserError(
            f"the folders {', '.join(names)} in {root} look like parts of a split, not like classes: call them train, "
            f"val and test, as in mv {name!r} {part}."
        )


def _patient(file: Path, inner: Sequence[str], wanted: str | None, root: Path) -> str:
    if wanted is None:
        return str(file)
    if wanted != "auto":
        match = _pattern(wanted).search(file.as_posix())
        if match is None or not match[1]:
            raise UserError(f"patient_column: the pattern {wanted!r} finds no patient in {file}: correct it.")
        return match[1]
    folders = [name for name in inner[1:-1] if name.lower() not in _HELPERS]
    if not folders:
        lies = "directly in its class folder" if len(inner) < 3 else f"in the folder {inner[-2]} of its class"
        raise UserError(
            f"{file} lies {lies}, so its patient is not known: expected <class>/<patient>/{file.name} or a table, or "
            "give --patient_column null if each image is of another patient, or a pattern with one group, such as "
            f"--patient_column '([^/_]+)_[^/]*$'{_tables(root)}.",
            lacks="patients",
        )
    return folders[0]


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error:
        pattern = re.compile("")
    if pattern.groups != 1:
        raise UserError(
            f"patient_column: there is no table with a column {text!r}, and class folders take auto, null or a pattern "
            "with one group that finds the patient in the path, such as --patient_column '([^/_]+)_[^/]*$'."
        )
    return pattern


def _refuse_masks(classes: Collection[str], masks: Sequence[Path], split: bool) -> None:
    """Stop where a folder of images and one of masks would be taken for classes."""
    where = [file.parts[split] for file in masks if len(file.parts) > 1 + split and file.parts[split] not in classes]
    if len(classes) == 1 and where:
        raise UserError(
            f"the folders {next(iter(classes))} and {where[0]} hold images and their masks, not two classes: for "
            "segmentation give a table index.csv with the columns image, label (paths of the masks) and patient."
        )


def _twins(files: Sequence[Path]) -> list[str]:
    """Images that have the names of others but for one ending: masks, perhaps, that no word tells."""
    stems = {str(file.parent / file.name.split(".")[0]) for file in files}
    endings: dict[str, list[str]] = defaultdict(list)
    for stem in sorted(stems):
        match = _ENDING.fullmatch(stem)
        if match and match[1] in stems:
            endings[match[2]].append(stem)
    return [
        f"{len(found)} images have the names of others with {ending!r} at the end, such as {found[0]}: if they are "
        f"masks, rename them so that they end in _mask, or name the images in a table index.csv"
        for ending, found in endings.items()
        if len(found) >= _MANY * len(files)
    ]


def _doubts(places: Iterable[Sequence[str]], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The same patients or files under every class: right if each patient has images of every class."""
    patients: dict[str, set[str]] = defaultdict(set)
    files: dict[str, set[str]] = defaultdict(set)
    for parts, row in zip(places, rows, strict=True):
        patients[row["label"]].add(row["patient"])
        files[row["label"]].add("/".join(parts[1:]))
    for found, what in ((patients, "patients"), (files, "file names")):
        same = list(found.values())
        if len(same) > 1 and all(one == same[0] for one in same):
            names = ", ".join(sorted(same[0])[:3]) + " ..." * (len(same[0]) > 3)
            return [
                f"every class folder has the same {what} ({names}): if these folders are no classes or no patients, "
                "give a table index.csv, or patient_column null or a pattern"
            ]
    return []
