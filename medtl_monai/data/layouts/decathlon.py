"""Medical Segmentation Decathlon (Antonelli et al., Nature Communications 13, 2022): a task's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..cases import Cases
from .common import found

__all__ = ["matches", "read"]

_FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"))


def matches(root: Path) -> bool:
    """Whether ``dataset.json`` names labels by value, or ``images(Tr)`` and ``labels(Tr)`` hold NIfTI files."""
    return _about(root) is not None or _folders(root) is not None


def read(root: Path, *, structures: Sequence[str] = ("foreground",)) -> Cases:
    """The labelled volumes; each file is a patient.

    Args:
        root: the folder of a task.
        structures: names for the values 1, 2, ... where there is no ``dataset.json``.
    """
    about, folders = _about(root), _folders(root)
    if about is not None:
        names = {int(value): name for value, name in about["labels"].items() if int(value)}
        pairs = [(root / entry["image"], root / entry["label"]) for entry in about["training"]]
    else:
        names = dict(enumerate(structures, start=1))
        pairs = [(path, folders[1] / path.name) for path in sorted(folders[0].glob("*.nii*"))]  # type: ignore[index]
    items = [
        {
            "image": image.resolve() if image.is_file() else None,
            "label": label.resolve() if label.is_file() else None,
            "patient": image.name.partition(".")[0],
        }
        for image, label in pairs
    ]
    values = sorted(names)
    return found(root, "decathlon", items, [names[value] for value in values], "segmentation", values)


def _about(root: Path) -> dict[str, Any] | None:
    path = root / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError:
        return None
    known = isinstance(content, dict) and isinstance(content.get("labels"), dict) and content.get("training")
    return content if content is not None and known and all(key.isdecimal() for key in content["labels"]) else None


def _folders(root: Path) -> tuple[Path, Path] | None:
    pairs = [(root / images, root / labels) for images, labels in _FOLDERS]
    return next((pair for pair in pairs if all(any(path.glob("*.nii*")) for path in pair)), None)
