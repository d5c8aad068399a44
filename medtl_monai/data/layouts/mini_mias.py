"""mini-MIAS mammograms (Suckling et al., The Mammographic Image Analysis Society digital mammogram database, 1994)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..cases import Cases
from ..find import glob
from .common import found

__all__ = ["ABOUT", "CLASSES", "matches", "read"]

ABOUT = ("info.txt", "licence.txt", "readme")

CLASSES = ("normal", "benign", "malignant")
_LINE = re.compile(
    r"(mdb(\d{3}))\s+([FGD])\s+(CALC|CIRC|SPIC|MISC|ARCH|ASYM|NORM)(?:\s+([BM]))?(?:\s+(\d+) (\d+) (\d+))?"
)
_SIDE = 1024  # pixels


def matches(root: Path) -> bool:
    """Whether the folder holds ``Info.txt`` with lines of ``mdb001`` and so on."""
    path = root / "Info.txt"
    return path.is_file() and bool(_LINE.search(path.read_text(encoding="latin-1")))


def read(root: Path) -> Cases:
    """One item an image; each pair of an odd (right) and the next even number (left) is a patient.

    ``lesions``: centre and radius in pixels from the top left, with the kind of abnormality; malignant goes before
    benign where an image has both. ``tissue``: F fatty, G glandular, D dense.
    """
    files = {path.stem: path for path in glob(root, "mdb*.pgm", "mdb*.png", deep=True)}
    items: dict[str, dict[str, Any]] = {}
    for name, number, tissue, kind, severity, x, y, radius in _LINE.findall(
        (root / "Info.txt").read_text(encoding="latin-1")
    ):
        patient, side = f"P{(int(number) + 1) // 2:03d}", "R" if int(number) % 2 else "L"
        new = {"image": files.get(name), "label": 0, "patient": patient, "laterality": side, "tissue": tissue}
        item = items.setdefault(name, new | {"lesions": []})
        item["label"] = max(item["label"], ("", "B", "M").index(severity))
        if x:
            lesion = {"x": int(x), "y": _SIDE - int(y), "radius": int(radius), "kind": kind}  # counted from the bottom
            item["lesions"].append(lesion)
    return found(root, "mini_mias", list(items.values()), CLASSES)
