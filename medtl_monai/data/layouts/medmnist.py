"""MedMNIST (Yang et al., MedMNIST v2, Scientific Data 10, 2023), such as PneumoniaMNIST: an npz file of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ...utils import UserError
from ..cases import Cases
from ..find import glob
from .common import found

__all__ = ["matches", "read"]


_CLASSES = {"pneumoniamnist": ("normal", "pneumonia"), "breastmnist": ("malignant", "normal, benign")}


def matches(root: Path) -> bool:
    """Whether the folder holds a file ``*mnist*.npz``."""
    return bool(glob(root, "*mnist*.npz"))


def read(root: Path) -> Cases:
    """Images by their names in the file, ``file.npz#train_images/12``; the official split; no patients.

    Raises:
        UserError: there are several sets, or findings instead of classes.
    """
    path, *others = glob(root, "*mnist*.npz")
    if others:
        raise UserError(f"{path.name} and {others[0].name} are two sets: keep one of them in {root}.")
    items: list[dict[str, Any]] = []
    for part, labels in _labels(path).items():
        if labels.ndim == 2 and labels.shape[1] > 1:
            raise UserError(f"{path.name} has {labels.shape[1]} labels an image: expected one class for each.")
        items += [
            {
                "image": f"{path}#{part}_images/{i}",
                "label": int(label),
                "patient": f"{part}-{i}",
                "split": part,
            }
            for i, label in enumerate(labels.ravel())
        ]
    name = path.name.partition("_")[0].removesuffix(".npz")
    classes = _CLASSES.get(name) or [str(k) for k in range(1 + max(item["label"] for item in items))]
    return found(root, "medmnist", items, classes, no_patients=True)


def _labels(path: Path) -> dict[str, np.ndarray]:
    """The labels of each part.

    Raises:
        UserError: it is no file of the set.
    """
    try:
        with np.load(path) as arrays:
            return {part: arrays[f"{part}_labels"] for part in ("train", "val", "test")}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(
            f"{path.name} holds no labels of MedMNIST: expected arrays train_labels, val_labels and test_labels; "
            "download it again, or move it away."
        ) from error
