"""Sunnybrook Cardiac Data (Radau et al., The MIDAS Journal, 2009), as pictures of slices with masks of the cavity."""

from __future__ import annotations

import re
from pathlib import Path

from ..cases import Cases
from ..find import glob
from .common import found

__all__ = ["matches", "read"]


_NAME = re.compile(r"(SC-(HF-I|HF-NI|HYP|N)-\d+)-IM-\d+-\d+\.dcm\.png")


def matches(root: Path) -> bool:
    """Whether ``Images`` and ``Labels`` hold files such as ``SC-HF-I-01-IM-0001-0048.dcm.png``."""
    files = glob(root / "Images", "SC-*.png", deep=True)
    return (root / "Labels").is_dir() and any(_NAME.fullmatch(path.name) for path in files)


def read(root: Path) -> Cases:
    """One item a slice; patient and ``group`` (HF-I, HF-NI, HYP, N) from the file name; the masks hold 0 and 255."""
    items = []
    for path in glob(root / "Images", "SC-*.png", deep=True):
        name, mask = _NAME.fullmatch(path.name), root / "Labels" / path.relative_to(root / "Images")
        if name:
            label = mask if mask.is_file() else None
            items.append({"image": path, "label": label, "patient": name[1], "group": name[2]})
    return found(root, "sunnybrook", items, ["left ventricle"], "segmentation", [255])
