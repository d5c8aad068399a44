"""Labelled images, and the datalist file that keeps them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..utils import UserError, write_json
from .find import absolute, is_there

__all__ = [
    "PARTS",
    "TASKS",
    "Cases",
    "check_exist",
    "present_classes",
    "read_datalist",
    "select",
    "write_datalist",
]

TASKS = ("classification", "multilabel", "segmentation")
PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
PARTS |= {"validate": "val", "test": "test", "testing": "test"}
"""What the parts of a split are called, in files and folders."""

_LISTS = {"train": "training", "val": "validation", "test": "testing"}


@dataclass(frozen=True)
class Cases:
    """Labelled images.

    Attributes:
        items: a MONAI datalist; each item has ``image`` (absolute path; a list of paths where each is a channel),
            ``label`` (see ``task``), ``patient``, and where the data has them ``split`` (``train``, ``val`` or
            ``test``) and ``domain``. Where a file holds several arrays (HDF5, npz), ``image_key`` and ``label_key``
            name them, and ``image_index`` counts images in an array from 0. A column ``weight`` is kept as it is
            written.
        classes: names of the labels.
        root: the folder.
        layout: ``table``, ``datalist``, ``folders`` or one of :data:`medtl_monai.data.LAYOUTS`.
        task: ``classification``: a label is an index into ``classes``; ``multilabel``: a list in the order of
            ``classes``, 1 present, 0 absent, NaN unknown; ``segmentation``: the absolute path of the mask.
        label_values: for segmentation: the value of each class in the masks.
        why: what the layout was recognised by.
        doubts: what looks wrong in names and tables, a sentence each.
        unused: what lies in the folder and is not used, counted by kind.
    """

    items: list[dict[str, Any]]
    classes: list[str]
    root: Path
    layout: str
    task: str = "classification"
    label_values: list[int] = field(default_factory=list)
    why: str = "given"
    doubts: list[str] = field(default_factory=list)
    unused: dict[str, int] = field(default_factory=dict)


def write_datalist(path: str | Path, cases: Cases) -> None:
    """Write a MONAI datalist that :func:`medtl_monai.data.load_cases` reads back as it was.

    Besides the lists ``training``, ``validation`` and ``testing``, with all that the items hold, it names the task,
    the classes and, for masks, their values. Paths below its folder are relative to it; an unknown finding is null.
    """
    path = Path(absolute(Path(path).expanduser()))
    lists: dict[str, list[dict[str, Any]]] = {"training": []}
    for item in cases.items:
        entry = dict(item)
        for key in ("image", "label") if cases.task == "segmentation" else ("image",):
            entry[key] = _each(entry[key], lambda file: _relative(file, path.parent))
        if cases.task == "multilabel":
            entry["label"] = [None if math.isnan(value) else value for value in entry["label"]]
        lists.setdefault(_LISTS[item.get("split") or "train"], []).append(entry)
    about: dict[str, Any] = {"task": cases.task, "classes": cases.classes, "layout": cases.layout}
    if cases.label_values:
        about["label_values"] = cases.label_values
    write_json(path, about | lists)


def read_datalist(path: Path) -> Cases | None:
    """The cases of a file of :func:`write_datalist`; ``None`` for other datalists.

    Raises:
        UserError: no such file of an image or a mask.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(content, dict) or content.get("task") not in TASKS or "classes" not in content:
        return None
    task, folder = content["task"], path.parent
    entries = [entry for key in _LISTS.values() for entry in content.get(key, [])]
    items = [_read_entry(entry, task, folder) for entry in entries]
    check_exist(items, folder, task)
    layout = content.get("layout", "datalist")
    return Cases(items, content["classes"], folder, layout, task, content.get("label_values", []))


def _read_entry(entry: Mapping[str, Any], task: str, folder: Path) -> dict[str, Any]:
    item = dict(entry)
    for key in ("image", "label") if task == "segmentation" else ("image",):
        item[key] = _each(item[key], lambda file: absolute(folder / file))
    if task == "multilabel":
        item["label"] = [math.nan if value is None else float(value) for value in item["label"]]
    return item


def select(cases: Cases, classes: Sequence[str] | None) -> Cases:
    """The cases with these classes, in this order; findings and structures that are not named are left out.

    Raises:
        UserError: an unknown class, or images of a class that is not named.
    """
    if classes is None or list(classes) == cases.classes:
        return cases
    wanted = list(classes)
    unknown = [name for name in wanted if name not in cases.classes]
    if unknown:
        known = ", ".join(cases.classes)
        raise UserError(f"there is no class {', '.join(unknown)} in {cases.root}: there are {known}.")
    places = [cases.classes.index(name) for name in wanted]
    if cases.task == "segmentation":
        return replace(cases, classes=wanted, label_values=[cases.label_values[k] for k in places])
    labels: list[Any]
    if cases.task == "multilabel":
        labels = [[item["label"][k] for k in places] for item in cases.items]
    else:
        _refuse_others(cases, places)
        labels = [places.index(item["label"]) for item in cases.items]
    items = [{**item, "label": label} for item, label in zip(cases.items, labels, strict=True)]
    return replace(cases, classes=wanted, items=items)


def _refuse_others(cases: Cases, places: Sequence[int]) -> None:
    left = sorted({item["label"] for item in cases.items} - set(places))
    if left:
        names, wanted = (", ".join(cases.classes[k] for k in chosen) for chosen in (left, places))
        raise UserError(f"the data has images of {names}, which are not among {wanted}.")


def present_classes(label: Any) -> list[int]:
    """Indices of the classes that an image is known to show: its class, or its findings; none of a mask."""
    if isinstance(label, list):
        return [k for k, value in enumerate(label) if value == 1]
    return [] if isinstance(label, str) else [int(label)]


def check_exist(items: Sequence[dict[str, Any]], root: Path, task: str = "classification") -> None:
    """Stop where a file that the items name does not exist.

    Raises:
        UserError: naming some.
    """
    for key, kind in (("image", "images"), ("label", "masks")) if task == "segmentation" else (("image", "images"),):
        files = [file for item in items for file in ([item[key]] if isinstance(item[key], str) else item[key])]
        missing = [file for file in files if not is_there(file)]
        if missing:
            shown = ", ".join(file.removeprefix(f"{root}/") for file in missing[:3]) + " ..." * (len(missing) > 3)
            raise UserError(
                f"{len(missing)} of {len(files)} {kind} that the labels name do not exist in {root}: {shown}: "
                "paths must be relative to dataset_dir, with their extension."
            )


def _each(files: str | list[str], change: Any) -> str | list[str]:
    return change(files) if isinstance(files, str) else [change(file) for file in files]


def _relative(file: str, folder: Path) -> str:
    return str(Path(file).relative_to(folder)) if Path(file).is_relative_to(folder) else file
