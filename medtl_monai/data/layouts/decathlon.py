"""Medical Segmentation Decathlon (Antonelli et al., Nature Communications 13, 2022): a task's folder.

Also the raw folders of nnU-Net (Isensee et al., Nature Methods 18, 2021), which descend from it: labels by name, and
images by channel, ``heart_001_0000.nii.gz``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils import UserError
from ..cases import Cases
from ..find import EXTENSIONS, below, stem_of
from ..read.dicom import is_dicom
from .common import found

__all__ = ["ABOUT", "matches", "read"]

ABOUT = ("dataset.json",)
_FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"))
_Cases = dict[str, tuple[list[Path], Path | None]]


def matches(root: Path) -> bool:
    """Whether ``dataset.json`` names labels and their values, or ``images(Tr)`` and ``labels(Tr)`` hold volumes."""
    return _about(root) is not None or _folders(root) is not None


def read(root: Path, *, structures: Sequence[str] = ("foreground",), channel: int | None = None) -> Cases:
    """The labelled volumes; each file is a patient, or all files that differ in the number of their channel alone.

    Args:
        root: the folder of a task.
        structures: names for the values 1, 2, ... where there is no ``dataset.json``.
        channel: of several files of a case this one alone, from 0, as bundles for single images take it.

    Raises:
        UserError: ``dataset.json`` or its images are missing, or there is no such channel.
    """
    about, folders = _about(root), _folders(root)
    names = dict(enumerate(structures, start=1)) if about is None else _structures(about)
    if about is not None and about.get("training"):
        cases = _listed(root, about["training"])
    elif folders is not None:
        cases = _beside(*folders)
    else:
        raise UserError(f"{root} has a dataset.json, and no volumes in imagesTr and labelsTr: copy them there.")
    items = [
        {"image": _channels(images, channel), "label": label, "patient": name}
        for name, (images, label) in cases.items()
    ]
    values = sorted(names)
    return found(root, "decathlon", items, [names[value] for value in values], "segmentation", values)


def _listed(root: Path, entries: Sequence[Any]) -> _Cases:
    """The cases that ``dataset.json`` lists; nnU-Net's first version lists them without the number of the channel."""
    cases: _Cases = {}
    for entry in entries:
        if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
            raise UserError(f"dataset.json lists {entry!r} under training: expected image and label of each case.")
        image, label = root / entry["image"], root / entry["label"]
        name = stem_of(image.name)
        images = [image] if image.exists() else [path for path in _volumes(image.parent) if _numbered(path) == name]
        cases[name] = images, label if label.is_file() else None
    return cases


def _beside(images: Path, labels: Path) -> _Cases:
    """The cases of two folders, each image with the label of its name, or of that without the number of the channel."""
    masks = {stem_of(path.name): path for path in _volumes(labels)}
    cases: _Cases = {}
    for path in _volumes(images):
        name, numbered = stem_of(path.name), _numbered(path)
        case = numbered if name not in masks and numbered in masks else name
        cases.setdefault(case, ([], masks.get(case)))[0].append(path)
    return cases


def _channels(images: Sequence[Path], channel: int | None) -> Path | list[str] | None:
    if channel is not None and len(images) > 1:
        if not 0 <= channel < len(images):
            raise UserError(f"channel must be from 0 to {len(images) - 1}, got {channel!r}.")
        return images[channel]
    return [str(path) for path in images] if len(images) > 1 else next(iter(images), None)


def _numbered(path: Path) -> str:
    """The name without the number of its channel; empty if it has none."""
    name = re.fullmatch(r"(.+)_\d{4}", stem_of(path.name))
    return name[1] if name else ""


def _structures(about: Mapping[str, Any]) -> dict[int, str]:
    """Names by value: the decathlon has them by value, nnU-Net's second version by name.

    Raises:
        UserError: labels that are no single values, such as nnU-Net's regions.
    """
    labels = about["labels"].items()
    pairs = [(value, name) if str(value).isdecimal() else (name, value) for value, name in labels]
    odd = [f"{name}: {value}" for value, name in pairs if not str(value).isdecimal()]
    if odd:
        raise UserError(
            f"dataset.json names the label {odd[0]}: expected one whole number for each name; regions of several "
            "values are not taken."
        )
    return {int(value): str(name) for value, name in pairs if int(value)}


def _about(root: Path) -> dict[str, Any] | None:
    path = root / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else None
    except ValueError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        return None
    return content if content.get("training") or {"numTraining", "file_ending"} & content.keys() else None


def _folders(root: Path) -> tuple[Path, Path] | None:
    for images, labels in _FOLDERS:
        pair = root / images, root / labels
        kind = None if images == "imagesTr" else ".nii"  # the name tells enough
        if all(any(kind is None or kind in path.name.lower() for path in _volumes(folder)) for folder in pair):
            return pair
    return None


def _volumes(folder: Path) -> list[Path]:
    """The image files in a folder, and the folders in it that hold a series of DICOM files."""
    if not folder.is_dir():
        return []
    files = below(folder, 2)
    single = [path for path in files if path.parent == folder and path.name.lower().endswith(EXTENSIONS)]
    return sorted({*single, *(path.parent for path in files if path.parent != folder and is_dicom(path))})
