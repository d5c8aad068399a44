"""Brain tumours in contrast-enhanced T1 slices (Cheng, figshare 1512427, 2017): MATLAB 7.3 files with patients' ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...utils import UserError
from ..cases import Cases
from ..find import glob
from .common import found

__all__ = ["ABOUT", "CLASSES", "matches", "read"]

ABOUT = ("cvind.mat", "readme.txt")

CLASSES = ("meningioma", "glioma", "pituitary")
"""Their labels in the files are 1, 2 and 3."""


def matches(root: Path) -> bool:
    """Whether there are files ``<number>.mat``, at the top or in folders."""
    return bool(_files(root))


def read(root: Path, *, task: str = "classification", boxes: bool = False) -> Cases:
    """One item a file; the image is the array ``cjdata/image``.

    Args:
        root: the folder.
        task: ``classification`` by the kind of tumour, or ``segmentation`` of the tumour (``cjdata/tumorMask``).
        boxes: for classification: give each item ``box``, that around its tumour: x, y, width and height in pixels.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError("MATLAB 7.3 files need h5py: pip install 'medtl_monai[formats]'.") from error

    if task not in ("classification", "segmentation"):
        raise UserError(f"task must be classification or segmentation, got {task!r}.")
    items: list[dict[str, Any]] = []
    for path in _files(root):
        try:
            with h5py.File(path) as file:
                items.append(_item(path, file, boxes and task == "classification"))
        except (OSError, KeyError) as error:
            raise UserError(f"{path.name} is no file of the set ({error}): expected MATLAB 7.3 with cjdata.") from error
    if task == "classification":
        return found(root, "figshare_brain", items, CLASSES)
    masks = [item["image"].replace("#cjdata/image", "#cjdata/tumorMask") for item in items]
    items = [{**item, "label": mask, "group": CLASSES[item["label"]]} for item, mask in zip(items, masks, strict=True)]
    return found(root, "figshare_brain", items, ["tumour"], task)


def _item(path: Path, file: Any, boxes: bool) -> dict[str, Any]:
    patient = "".join(chr(code) for code in file["cjdata/PID"][()].ravel())
    box = {"box": _around(file["cjdata/tumorMask"][()])} if boxes else {}
    label = int(file["cjdata/label"][()].item()) - 1
    return {"image": f"{path}#cjdata/image", "label": label, "patient": patient, **box}


def _around(mask: np.ndarray) -> list[list[int]]:
    """The box around a mask whose columns come first, as MATLAB's do; none around nothing."""
    places = np.argwhere(mask)
    if not len(places):
        return []
    low = places.min(0)
    return [[*low.tolist(), *(places.max(0) + 1 - low).tolist()]]


def _files(root: Path) -> list[Path]:
    files = [path for path in glob(root, "*.mat", "*/*.mat") if path.stem.isdigit()]
    return sorted(files, key=lambda path: int(path.stem))
