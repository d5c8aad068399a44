"""The user's folder into a MONAI datalist, whatever its layout."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..utils import UserError
from .boxes import BOX_COLUMNS, gather_boxes, with_boxes, without_boxes
from .cases import Cases, read_datalist, select
from .find import Found, Names, absolute, find, glob, is_file, is_there, kinds, render_unused, unused
from .folders import folder_rows
from .ids import joined, unified
from .labels import labelled
from .layouts import LAYOUTS, about_files, read_layout, recognised
from .read.arrays import stored_in
from .rows import Columns, datalist_rows, table_rows
from .tables import has_columns, read_table

__all__ = ["Cases", "find_images", "load_cases", "log_cases", "unlabelled"]

_log = logging.getLogger("medtl_monai")

_GENERIC = ("table", "datalist", "folders")
_KEPT = ("image_key", "label_key", "weight", "phase", "laterality", "view", "study")  # columns that some bundles use
_SAID = ("image", "label", "patient", "split", "domain", "group")  # what a table says, and no layout beside it
_SHOWN = 3


def load_cases(
    dataset_dir: str | Path,
    *,
    table: str | None = "index.csv",
    image_column: str = "image",
    label_column: str | Sequence[str] = "label",
    patient_column: str | None = "auto",
    split_column: str = "split",
    domain_column: str = "domain",
    classes: Sequence[str] | None = None,
    task: str | None = None,
    layout: str | None = "auto",
    layout_options: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
    box_columns: str | Sequence[str] | None = None,
    box_mode: str = "xywh",
) -> Cases:
    """Find the labelled images of a folder, and say in the log how, what is doubtful and what is not used.

    Layouts, the first that fits: a table (CSV with comma, semicolon or tab) named ``table``; that of a public data set
    (:data:`medtl_monai.data.LAYOUTS`), unless the arguments name columns; a MONAI datalist (``dataset.json``, or
    ``table`` if it ends in ``.json``); class folders, ``<class>/**/<image>`` or ``<part>/<class>/**/<image>``, where a
    folder between class and image names the patient.

    Args:
        dataset_dir: the folder.
        table: name of the table in it.
        image_column: paths, relative to the folder; a name without folder or ending is understood if it says one image.
        label_column: class names, or findings joined by ``|`` (``No Finding`` for none); or a list of columns, one a
            finding, with 1 (present), 0 (absent), or -1 or nothing (unknown); or paths of masks. ``a,b`` and
            ``['a','b']`` are lists too.
        patient_column: ``auto``: the first of patient, patient_id and PatientID that is there; ``None``: each image
            is its own patient; of class folders also a pattern with one group that finds the patient in the path.
        split_column: ``train``, ``val`` or ``test``, used if it is there.
        domain_column: scanner or hospital, used if it is there.
        classes: names in the wanted order; default: those found, sorted. For masks: the structures in the order of
            their values 1, 2, ...; default: ``foreground``.
        task: ``classification``, ``multilabel`` or ``segmentation``: stop if the labels are for another; default: what
            the labels are for, which is segmentation where they are paths of files.
        layout: ``auto`` or ``None``; ``table``, ``datalist`` or ``folders``; or one of
            :data:`medtl_monai.data.LAYOUTS`.
        layout_options: of a public data set's layout, such as ``{"uncertain": "ones"}`` for CheXpert.
        keep: further columns of a table or datalist that the items keep, as text, where they are there.
        box_columns: four columns that tell where each image's lesion lies, empty where there is none: items get
            ``box``, for each of their rows x and y of the top left, width and height, in pixels or as fractions of the
            image. ``auto``: those of the layout, or the first of :data:`medtl_monai.data.BOX_COLUMNS`, if any.
        box_mode: what the columns named are: ``xywh``, ``ccwh`` (centre first) or ``xyxy``.

    Raises:
        UserError: the folder, the table, a column, an image or a label is missing or does not fit.
    """
    root = _folder(dataset_dir)
    named = () if box_columns is None else chain(*BOX_COLUMNS) if box_columns == "auto" else box_columns
    label = label_column if isinstance(label_column, str) else list(label_column)
    boxes = tuple(named)
    columns = Columns(image_column, label, patient_column, split_column, domain_column, (*_KEPT, *keep, *boxes))
    chosen, why = _choose(root, layout or "auto", table, columns)
    if chosen in LAYOUTS:
        _refuse_columns(chosen, columns)
        cases = select(read_layout(root, chosen, layout_options, boxes=box_columns == "auto"), classes)
    else:
        _refuse_options(root, chosen, why, layout_options)
        try:
            cases = _generic(root, chosen, table, columns, classes, boxes)
        except UserError as error:
            raise UserError(f"{error}{_or_layout(root, chosen, layout)}", lacks=error.lacks) from error
        cases = _beside_layout(cases, classes, box_columns == "auto") if chosen == "table" else cases
    if task not in (None, cases.task):
        raise UserError(f"the labels in {root} are for {cases.task}, not for {task}: check label_column.")
    cases = _told(cases, why, _tables(chosen, table))
    log_cases(cases)
    return without_boxes(cases) if box_columns is None else with_boxes(cases, box_columns, box_mode)


def log_cases(cases: Cases) -> None:
    """Say in the log where cases are from, what is doubtful in them and what of their folder is not used."""
    _log.info(f"data: {cases.root}, of the layout {cases.layout}, as {cases.why}")
    for doubt in cases.doubts:
        _log.warning(doubt)
    if cases.unused:
        _log.info(render_unused(cases.unused))


def _folder(dataset_dir: str | Path) -> Path:
    try:
        root = Path(absolute(Path(dataset_dir).expanduser()))
        there = root.is_dir()
    except (OSError, ValueError) as error:  # names that are too long or hold NUL
        raise UserError(f"dataset_dir: {str(dataset_dir)[:80]!r} names no folder ({error}): check the path.") from error
    if not there:
        raise UserError(f"dataset_dir: there is no folder {dataset_dir}: check the path.")
    return root


def _choose(root: Path, wanted: str, table: str | None, columns: Columns) -> tuple[str, str]:
    """The layout, and why that one."""
    if wanted not in ("auto", *_GENERIC, *LAYOUTS):
        raise UserError(f"there is no layout {wanted!r}: expected auto, {', '.join((*_GENERIC, *LAYOUTS))}.")
    if wanted != "auto":
        return wanted, "the key layout says"
    if table not in (None, "index.csv"):
        return ("datalist" if table.endswith(".json") else "table"), f"the key table names {table}"
    path = _named(root, table)
    fits = recognised(root) if columns.usual and not (path and _holds_cases(path, columns)) else []
    if fits:
        return fits[0], (LAYOUTS[fits[0]].matches.__doc__ or "").removeprefix("Whether ").rstrip(".")
    return _plain_layout(root, path.name if path else None)


def _plain_layout(root: Path, table: str | None) -> tuple[str, str]:
    if table is not None:
        return "table", f"{table} lies in the folder"
    if (root / "dataset.json").is_file():
        return "datalist", "dataset.json lies in the folder"
    return "folders", "there is no table"


def _holds_cases(path: Path, columns: Columns) -> bool:
    """Whether a table says of cases: it may be wrong then, but something else is not what is meant."""
    names = [columns.image, *columns.with_label([]).labels.values()]
    return any(has_columns(path, [name]) for name in names)


def _refuse_columns(layout: str, columns: Columns) -> None:
    if not columns.usual:
        raise UserError(
            f"the layout {layout} says itself what the labels and the patients are: leave out image_column, "
            "label_column, patient_column, split_column and domain_column, or give --layout table."
        )


def _refuse_options(root: Path, chosen: str, why: str, options: Mapping[str, Any] | None) -> None:
    if options:
        fits = recognised(root)
        hint = f"give --layout {fits[0]}, or leave them out" if fits else "leave them out"
        raise UserError(f"layout_options are of public data sets, and the layout is {chosen}, as {why}: {hint}.")


def _or_layout(root: Path, chosen: str, wanted: str | None) -> str:
    """The line to type where a table was taken that goes before a public set's layout."""
    fits = recognised(root) if chosen == "table" and wanted in ("auto", None) else []
    return f" Or give --layout {fits[0]}, which the folder looks like, to leave the table out." if fits else ""


def _generic(
    root: Path,
    chosen: str,
    table: str | None,
    columns: Columns,
    classes: Sequence[str] | None,
    boxes: Sequence[str],
) -> Cases:
    """The cases of a table, a datalist or class folders."""
    said: list[str] = []
    if chosen == "folders":
        _refuse_unused(root, columns)
        rows, said = folder_rows(root, columns.patient)
    else:
        path = _there(root, chosen, table)
        if chosen == "datalist":
            written = read_datalist(path)
            if written is not None:
                return select(written, classes)
        rows = table_rows(path, columns) if chosen == "table" else datalist_rows(path, columns)
    rows, alike = unified(rows, ("patient", "label", "domain"))
    alike += joined(row["label"] for row in rows if "label" in row)
    names = Names(root)
    rows, renamed = _located(rows, root, names)
    rows = _without_duplicates(gather_boxes(rows, boxes))
    return replace(labelled(rows, root, chosen, classes, names), doubts=[*said, *alike, *renamed])


def _refuse_unused(root: Path, columns: Columns) -> None:
    """Stop where columns are named, and there is no table."""
    named = {"image_column": columns.image != "image", "label_column": columns.label != "label"}
    key = next((key for key, given in named.items() if given), None)
    if key:
        raise UserError(
            f"{key} names a column, and there is no table index.csv in {root}: name the table with table, or leave "
            f"{key} out to take class folders."
        )


def _there(root: Path, chosen: str, table: str | None) -> Path:
    if chosen == "datalist":
        table = table if table is not None and table.endswith(".json") else "dataset.json"
    path = _named(root, table or "index.csv")
    if path is None:
        tables = sorted(path.name for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv", ".json"))
        raise UserError(f"there is no table {table or 'index.csv'} in {root}: found {', '.join(tables) or 'none'}.")
    return path


def _named(root: Path, table: str | None) -> Path | None:
    """The table of this name, in another case if there is none in this."""
    if table is None or "\0" in table:
        return None
    path = root / table
    return path if is_file(path) else next(iter(glob(path.parent, path.name)), None)


def _located(rows: Sequence[dict[str, str]], root: Path, names: Names) -> tuple[list[dict[str, str]], list[str]]:
    """The rows with absolute paths of their images, and what is said of names that were not written as the files are.

    Raises:
        UserError: an image is not there.
    """
    places = [names.locate(row["image"]) for row in rows]
    missing = [place.removeprefix(f"{root}/") for place in places if not is_there(place)]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + " ..." * (len(missing) > _SHOWN)
        near = names.near(missing[0]) or names.near(Path(missing[0]).name)
        hint = f" (did you mean {near.relative_to(root)}?)" if near else ""
        raise UserError(
            f"{len(missing)} of {len(rows)} images that the labels name do not exist in {root}: {shown}{hint}: paths "
            "must be relative to dataset_dir, with their extension."
        )
    return [{**row, "image": place} for row, place in zip(rows, places, strict=True)], _renamed(rows, places, root)


def _renamed(rows: Sequence[dict[str, str]], places: Sequence[str], root: Path) -> list[str]:
    """What is said of names that are not written as the files are."""
    written = [row["image"] for row in rows]
    other = [(name, place) for name, place in zip(written, places, strict=True) if place != absolute(root / name)]
    if not other:
        return []
    name, place = other[0]
    return [
        f"{len(other)} of {len(rows)} images stand in the table by other names than their files have, such as {name} "
        f"for {place.removeprefix(f'{root}/')}"
    ]


def _without_duplicates(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        before = seen.setdefault(row["image"], row)
        if before != row:
            differ = " and ".join(
                f"{key} {before.get(key)!r} or {row[key]!r}" for key in row if before.get(key) != row[key]
            )
            raise UserError(f"{row['image']} stands twice in the labels, with {differ}: keep the right one.")
    return list(seen.values())


def _beside_layout(cases: Cases, classes: Sequence[str] | None, boxes: bool) -> Cases:
    """A table's cases with what only the layout of the public set knows: the masks' values, the order of the classes,
    and what else it tells of the same images."""
    known = _known(cases.root, boxes)
    if known is None or known.task != cases.task:
        return cases
    more = {str(item["image"]): {k: v for k, v in item.items() if k not in _SAID} for item in known.items}
    cases = replace(cases, items=[{**more.get(item["image"], {}), **item} for item in cases.items])
    if classes is None and cases.task == "segmentation":
        return replace(cases, classes=known.classes, label_values=known.label_values)
    return select(cases, known.classes) if classes is None and set(known.classes) == set(cases.classes) else cases


def _known(root: Path, boxes: bool) -> Cases | None:
    """What the layout of a public set makes of the folder, if it looks like one and holds it."""
    fits = recognised(root)
    try:
        return read_layout(root, fits[0], boxes=boxes) if fits else None
    except UserError:  # not the whole set: the table is what counts
        return None


def _told(cases: Cases, why: str, about: Sequence[str]) -> Cases:
    """The cases with why their layout was taken, what is doubtful in them, and what of the folder is not used."""
    used = _files(cases)
    files = sorted({str(stored_in(file)) for file in used})
    outside = [file for file in files if not file.startswith(f"{cases.root}/")]
    doubts = list(cases.doubts)
    if outside:
        doubts.append(f"{len(outside)} of {len(files)} files lie outside of the folder, such as {outside[0]}")
    doubts += _linked(files, cases.root)
    return replace(cases, why=why, doubts=doubts, unused=unused(find(cases.root), used, about))


def _files(cases: Cases) -> set[str]:
    """The names of all images and masks."""
    keys = ("image", "label") if cases.task == "segmentation" else ("image",)
    named = (item[key] for item in cases.items for key in keys)
    return {file for one in named for file in (one if isinstance(one, list) else [one])}


def _linked(files: Sequence[str], root: Path) -> list[str]:
    """What is said of files of two names."""
    first: dict[tuple[int, int], str] = {}
    pairs = []
    for file in files:
        place = Path(file).stat()
        before = first.setdefault((place.st_dev, place.st_ino), file)
        if before != file:
            pairs.append(f"{before.removeprefix(f'{root}/')} and {file.removeprefix(f'{root}/')}")
    return [f"{len(pairs)} files have two names, such as {pairs[0]}: links to one file"] if pairs else []


def _tables(chosen: str, table: str | None) -> list[str]:
    """Patterns of the names of files that a layout reads besides images and masks."""
    if chosen in LAYOUTS:
        return list(about_files(chosen))
    name = Path(table or "index.csv").name
    return {"table": [name], "datalist": [name, "dataset.json"]}.get(chosen, [])


def unlabelled(path: str | Path) -> list[dict[str, str]]:
    """Images for inference: one file, or all below a folder that are no masks, sorted by path.

    Raises:
        UserError: there is none.
    """
    found = find_images(path)
    left = unused(found, {str(file) for file in found.images})
    if left:
        _log.info(render_unused(left))
    return [{"image": str(file)} for file in found.images]


def find_images(path: str | Path) -> Found:
    """One file, or what lies below a folder; masks are also those that its ``index.csv`` names as labels.

    Raises:
        UserError: there is no image.
    """
    path = Path(absolute(Path(path).expanduser()))
    if stored_in(path).is_file():
        return Found(images=[path])
    found = find(path) if path.is_dir() else Found()
    labels = _labels(path / "index.csv")
    named = [file for file in found.images if str(file) in labels]
    found = replace(found, images=[file for file in found.images if str(file) not in labels], masks=found.masks + named)
    if not found.images:
        masks = f" (the {len(found.masks)} files there are masks by their names)" if found.masks else ""
        raise UserError(
            f"dataset_dir: there is no image at {path}{masks}: expected a file or a folder of {kinds()} files."
        )
    return found


def _labels(table: Path) -> set[str]:
    """The files that a table's column of labels names."""
    if not has_columns(table, ["label"]):
        return set()
    try:
        rows = read_table(table).rows
    except UserError:  # the labels are not asked for
        return set()
    return {absolute(table.parent / row["label"]) for row in rows if row["label"]}
