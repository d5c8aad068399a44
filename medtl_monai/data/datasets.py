"""The user's folder into a MONAI datalist, whatever its layout."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

from ..utils import UserError
from .boxes import BOX_COLUMNS, gather_boxes, with_boxes, without_boxes
from .cases import PARTS, Cases, check_exist, read_datalist, select
from .layouts import LAYOUTS, read_layout
from .layouts.common import delimiter
from .read.arrays import stored_in

__all__ = ["EXTENSIONS", "Cases", "load_cases", "unlabelled"]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz", ".dcm", ".dicom", ".nrrd", ".mha")
"""File names that are taken for images, in any case; besides, DICOM files without an extension."""

NO_FINDING = "No Finding"
_GENERIC = ("table", "datalist", "folders")
PATIENT_COLUMNS = ("patient", "patient_id", "PatientID")
_KEPT = ("image_key", "label_key", "weight", "phase", "laterality", "view", "study")  # columns that some bundles use


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
    layout: str = "auto",
    layout_options: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
    box_columns: str | Sequence[str] | None = None,
    box_mode: str = "xywh",
) -> Cases:
    """Find the labelled images of a folder.

    Layouts, the first that fits: that of a public data set (:data:`medtl_monai.data.LAYOUTS`), unless the arguments
    name a table or columns; a table (CSV with comma, semicolon or tab) named ``table``; a MONAI datalist
    (``dataset.json``, or ``table`` if it ends in ``.json``); class folders, ``<class>/**/<image>`` or
    ``<part>/<class>/**/<image>``, where a folder between class and image names the patient.

    Args:
        dataset_dir: the folder.
        table: name of the table in it.
        image_column: paths, relative to the folder.
        label_column: class names, or findings joined by ``|`` (``No Finding`` for none); or a list of columns, one a
            finding, with 1 (present), 0 (absent), or -1 or nothing (unknown); or paths of masks.
        patient_column: ``auto``: the first of patient, patient_id and PatientID that is there; ``None``: each image
            is its own patient.
        split_column: ``train``, ``val`` or ``test``, used if it is there.
        domain_column: scanner or hospital, used if it is there.
        classes: names in the wanted order; default: those found, sorted. For masks: the structures in the order of
            their values 1, 2, ...; default: ``foreground``.
        task: ``classification``, ``multilabel`` or ``segmentation``: stop if the labels are for another; default: what
            the labels are for, which is segmentation where they are paths of files.
        layout: ``auto``; ``table``, ``datalist`` or ``folders``; or one of :data:`medtl_monai.data.LAYOUTS`.
        layout_options: of a public data set's layout, such as ``{"uncertain": "ones"}`` for CheXpert.
        keep: further columns of a table or datalist that the items keep, as text, where they are there.
        box_columns: four columns that tell where each image's lesion lies, empty where there is none: items get
            ``box``, for each of their rows x and y of the top left, width and height, in pixels or as fractions of the
            image. ``auto``: those of the layout, or the first of :data:`medtl_monai.data.BOX_COLUMNS`, if any.
        box_mode: what the columns named are: ``xywh``, ``ccwh`` (centre first) or ``xyxy``.

    Raises:
        UserError: the folder, the table, a column, an image or a label is missing or does not fit.
    """
    root = Path(dataset_dir).expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"dataset_dir: there is no folder {dataset_dir}: check the path.")
    if layout not in ("auto", *_GENERIC, *LAYOUTS):
        raise UserError(f"there is no layout {layout!r}: expected auto, {', '.join((*_GENERIC, *LAYOUTS))}.")
    findings = [] if isinstance(label_column, str) else list(label_column)
    columns = {"image": image_column, "split": split_column, "domain": domain_column}
    columns |= {f"label {name}": name for name in findings} if findings else {"label": label_column}  # type: ignore[dict-item]
    usual = all(key == name for key, name in columns.items()) and patient_column in ("auto", None)
    named = () if box_columns is None else chain(*BOX_COLUMNS) if box_columns == "auto" else box_columns
    cases = None
    if layout in LAYOUTS or (layout == "auto" and usual and table in ("index.csv", None)):
        cases = read_layout(root, layout, layout_options, boxes=box_columns == "auto")
    cases = (
        select(cases, classes)
        if cases
        else _load(root, table, columns, patient_column, classes, layout, (*_KEPT, *keep), tuple(named))
    )
    if task not in (None, cases.task):
        raise UserError(f"the labels in {root} are for {cases.task}, not for {task}: check label_column.")
    return without_boxes(cases) if box_columns is None else with_boxes(cases, box_columns, box_mode)


def _load(
    root: Path,
    table: str | None,
    columns: dict[str, str],
    patient_column: str | None,
    classes: Sequence[str] | None,
    wanted: str,
    kept: Sequence[str],
    boxes: Sequence[str],
) -> Cases:
    listed = table if table is not None and table.endswith(".json") else "dataset.json"
    if wanted in ("auto", "table") and table not in (None, listed) and (root / table).is_file():
        layout, rows = "table", _table_rows(root / table, columns, patient_column, (*kept, *boxes))
    elif wanted in ("auto", "datalist") and (root / listed).is_file():
        written = read_datalist(root / listed)
        if written is not None:
            return select(written, classes)
        layout, rows = "datalist", _datalist_rows(root / listed, columns, patient_column, (*kept, *boxes))
    elif wanted in ("table", "datalist") or table not in (None, "index.csv"):
        table = listed if wanted == "datalist" else table
        tables = sorted(path.name for path in root.iterdir() if path.suffix in (".csv", ".tsv", ".json"))
        raise UserError(f"there is no table {table} in {root}: found {', '.join(tables) or 'none'}.")
    else:
        layout, rows = "folders", _folder_rows(root, patient_column)
    rows = [{**row, "image": str((root / row["image"]).resolve())} for row in rows]
    _check_images(rows, root)
    rows = _without_duplicates(gather_boxes(rows, boxes))
    if "label" in columns and _is_mask(root / rows[0]["label"]):
        rows = [{**row, "label": str((root / row["label"]).resolve())} for row in rows]
        check_exist(rows, root, "segmentation")
        names = list(classes or ["foreground"])
        return Cases(rows, names, root, layout, "segmentation", list(range(1, len(names) + 1)))
    findings = [name for key, name in columns.items() if key.startswith("label ")]
    if findings or any("|" in row["label"] or row["label"] == NO_FINDING for row in rows):
        names, labels = _findings(rows, findings, classes)
        bare = [{key: value for key, value in row.items() if not key.startswith("label")} for row in rows]
        items = [{**row, "label": label} for row, label in zip(bare, labels, strict=True)]
        return Cases(items, names, root, layout, "multilabel")
    names = _class_names(rows, classes)
    return Cases([{**row, "label": names.index(row["label"])} for row in rows], names, root, layout)


def unlabelled(path: str | Path) -> list[dict[str, str]]:
    """Images for inference: one file, or all below a folder, sorted by path.

    Raises:
        UserError: there is none.
    """
    path = Path(path).expanduser().resolve()
    files = [path] if stored_in(path).is_file() else _files(path) if path.is_dir() else []
    if not files:
        raise UserError(f"dataset_dir: there is no image at {path}: expected a file or a folder of {_kinds()} files.")
    return [{"image": str(file)} for file in files]


def _table_rows(
    path: Path, columns: dict[str, str], patient_column: str | None, kept: Sequence[str]
) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"the table {path.name} is no UTF-8 text ({error.reason}): save it as CSV UTF-8.") from error
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter(text.partition("\n")[0]))
    found = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = found
    patient = _patient_column(patient_column, found, f"the table {path.name}")
    needed = {key: name for key, name in columns.items() if key == "image" or key.startswith("label")}
    needed |= {"patient": patient} if patient else {}
    needed |= {"split": columns["split"]} if columns["split"] in found else {}
    for key, column in needed.items():
        if column not in found:
            near = get_close_matches(column, found, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(
                f"the table {path.name} has no column {column!r}{hint}: it has {', '.join(found)}; "
                f"name the right one with {key.split()[0]}_column."
            )
    rows = []
    kept = [name for name in kept if name in found]
    for number, cells in enumerate(reader, start=2):
        row = {key: (cells.get(column) or "").strip() for key, column in needed.items()}
        empty = [needed[key] for key, value in row.items() if not value and not key.startswith("label ")]
        if empty:
            raise UserError(f"line {number} of the table {path.name} has no {' and no '.join(empty)}: fill it in.")
        row.setdefault("patient", row["image"])
        if columns["domain"] in found:
            row["domain"] = (cells.get(columns["domain"]) or "").strip()
        row |= {name: (cells.get(name) or "").strip() for name in kept}
        if "split" in row:
            row["split"] = _part(row["split"], f"line {number} of the table {path.name}")
        rows.append(row)
    if not rows:
        raise UserError(f"the table {path.name} has no rows: expected one for each image.")
    return rows


def _patient_column(wanted: str | None, found: Sequence[str], where: str) -> str | None:
    if wanted != "auto":
        return wanted
    column = next((name for name in PATIENT_COLUMNS if name in found), None)
    if column is None:
        raise UserError(
            f"{where} has no patient column (columns: {', '.join(found)}), and images of one patient must not stand on "
            "both sides of a split: name it with patient_column, or give null if each image is of another patient."
        )
    return column


def _datalist_rows(
    path: Path, columns: dict[str, str], patient_column: str | None, kept: Sequence[str]
) -> list[dict[str, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"the datalist {path.name} is no JSON ({error}): expected lists of image and label.") from error
    content = content if isinstance(content, dict) else {}
    lists = {key: value for key, value in content.items() if key in PARTS and isinstance(value, list)}
    entries = [(key, entry) for key, value in lists.items() for entry in value if isinstance(entry, dict)]
    if not entries:
        raise UserError(f"the datalist {path.name} has no entries under training, validation or testing.")
    patient = _patient_column(patient_column, list(entries[0][1]), f"the datalist {path.name}")
    kept = [name for name in kept if any(name in entry for _, entry in entries)]  # in all: batches are alike
    rows = []
    for key, entry in entries:
        labels = {key: name for key, name in columns.items() if key.startswith("label")}
        missing = [c for c in (columns["image"], *labels.values(), *([patient] if patient else [])) if c not in entry]
        if missing:
            raise UserError(f"an entry of the datalist {path.name} has no {', '.join(missing)}: it has {list(entry)}.")
        row = {"image": str(entry[columns["image"]]), **{key: _text(entry[name]) for key, name in labels.items()}}
        row["patient"] = str(entry[patient]) if patient else row["image"]
        if len(lists) > 1:
            row["split"] = PARTS[key]
        if columns["domain"] in entry:
            row["domain"] = str(entry[columns["domain"]])
        row |= {name: _text(entry.get(name)) for name in kept}
        rows.append(row)
    return rows


def _folder_rows(root: Path, patient_column: str | None) -> list[dict[str, str]]:
    files = [file.relative_to(root) for file in _files(root)]
    if not files:
        raise UserError(
            f"there is no image below {root}: expected a table, a datalist, or class folders of {_kinds()}."
        )
    split = all(file.parts[0].lower() in PARTS for file in files)
    rows = []
    for file in files:
        inner = file.parts[1:] if split else file.parts
        if len(inner) < 2:
            raise UserError(f"{file} lies in no class folder: expected <class>/{file.name}, or a table index.csv.")
        if patient_column is not None and len(inner) < 3:
            raise UserError(
                f"{file} lies directly in its class folder, so its patient is not known: expected "
                f"<class>/<patient>/{file.name} or a table, or give --patient_column null if each image is of another "
                "patient."
            )
        # class and patient: folders of one name under two classes are one patient
        row = {"image": str(file), "label": inner[0], "patient": str(file) if patient_column is None else inner[1]}
        if split:
            row["split"] = PARTS[file.parts[0].lower()]
        rows.append(row)
    return rows


def _files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.name.lower().endswith(EXTENSIONS) or _is_dicom(path))


def _is_dicom(path: Path) -> bool:
    if path.suffix and not path.suffix[1:].isdigit():  # files named by a UID end in .<number>
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _check_images(rows: Sequence[dict[str, str]], root: Path) -> None:
    missing = [row["image"] for row in rows if not stored_in(row["image"]).is_file()]
    if missing:
        shown = ", ".join(path.removeprefix(f"{root}/") for path in missing[:3])
        name = Path(missing[0]).name
        near = next((file for file in _files(root) if name in (file.name, file.name.split(".")[0])), None)
        hint = f" (did you mean {near.relative_to(root)}?)" if near else ""
        raise UserError(
            f"{len(missing)} of {len(rows)} images that the labels name do not exist in {root}: {shown}"
            f"{' ...' * (len(missing) > 3)}{hint}: paths must be relative to dataset_dir, with their extension."
        )


def _is_mask(path: Path) -> bool:
    return bool(path.suffix) and path.is_file()


def _class_names(rows: Sequence[dict[str, str]], wanted: Sequence[str] | None) -> list[str]:
    found = Counter(row["label"] for row in rows)
    if wanted is None:
        if len(found) < 2:
            raise UserError(f"at least two classes are needed, found {', '.join(found)}: check the labels.")
        return sorted(found, key=int if all(name.isdecimal() for name in found) else None)
    unknown = sorted(set(found) - set(wanted))
    if unknown:
        raise UserError(f"the data has images of {', '.join(unknown)}, which are not among {', '.join(wanted)}.")
    return list(wanted)


def _findings(
    rows: Sequence[dict[str, str]], columns: Sequence[str], wanted: Sequence[str] | None
) -> tuple[list[str], list[list[float]]]:
    """Names of the findings, and 1, 0 or NaN for each in every row."""
    if columns:
        names, labels = list(columns), [[_finding(row, name) for name in columns] for row in rows]
    else:
        shown = [[name.strip() for name in row["label"].split("|")] for row in rows]
        names = sorted({name for row in shown for name in row if name != NO_FINDING})
        labels = [[float(name in row) for name in names] for row in shown]
    if wanted is not None and list(wanted) != names:
        unknown = sorted(set(names) - set(wanted))
        if unknown:
            raise UserError(f"the data has the findings {', '.join(unknown)}, which are not among {', '.join(wanted)}.")
        absent = math.nan if columns else 0.0
        labels = [[row[names.index(name)] if name in names else absent for name in wanted] for row in labels]
        names = list(wanted)
    return names, labels


def _finding(row: dict[str, str], name: str) -> float:
    value = row[f"label {name}"]
    try:
        return {"": math.nan, "-1": math.nan, "0": 0.0, "1": 1.0}[value.removesuffix(".0")]
    except KeyError:
        raise UserError(
            f"the finding {name!r} of {Path(row['image']).name} is {value!r}: expected 1, 0, -1 or nothing."
        ) from None


def _text(value: Any) -> str:
    """A datalist's value as a table would hold it."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def _without_duplicates(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    seen: dict[str, dict[str, str]] = {}
    for row in rows:
        before = seen.setdefault(row["image"], row)
        if before != row:
            differ = " and ".join(
                f"{key} {before.get(key)!r} or {row[key]!r}" for key in row if before.get(key) != row[key]
            )
            raise UserError(f"{row['image']} stands twice in the labels, with {differ}: keep the right one.")
    return list(seen.values())


def _part(value: str, where: str) -> str:
    if value.lower() not in PARTS:
        raise UserError(f"{where} has the split {value!r}: expected train, val or test.")
    return PARTS[value.lower()]


def _kinds() -> str:
    return ", ".join(extension.removeprefix(".") for extension in EXTENSIONS)
