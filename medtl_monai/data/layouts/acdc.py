"""ACDC cardiac cine MRI (Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018): ED and ES, short axis."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...utils import UserError
from ..cases import PARTS, Cases
from ..find import below, glob
from .common import found, number

__all__ = ["ABOUT", "CLASSES", "frames", "matches", "read"]

ABOUT = ("info.cfg", "*_4d.nii*", "mandatory_citation.md")

CLASSES = ("right ventricle", "myocardium", "left ventricle")
"""Their values in the masks are 1, 2 and 3."""

_HDF5 = re.compile(r"(patient\d{3})_frame(\d{2})\.h5")


def matches(root: Path) -> bool:
    """Whether there are folders ``patient<number>`` with ``Info.cfg``, or the h5 volumes made from them."""
    return bool(_patients(root)) or any(_HDF5.fullmatch(path.name) for path in glob(root, "patient*.h5"))


def read(root: Path) -> Cases:
    """Two items a patient, ``phase`` ED and ES; ``group`` is the pathology (NOR, MINF, DCM, HCM, RV).

    The split is that of the folders ``training`` and ``testing``. HDF5 volumes (``image`` and ``label``) tell no group,
    and the earlier frame is taken for ED.
    """
    items: list[dict[str, Any]] = []
    for folder in _patients(root):
        info = _info(folder)
        for name, phase in frames(folder).items():
            items.append(
                {
                    "image": _volume(folder, name),
                    "label": _volume(folder, f"{name}_gt"),
                    "patient": folder.name,
                    "phase": phase,
                    "group": info.get("Group"),
                    "split": PARTS.get(folder.parent.name.lower()),
                }
            )
    seen: set[str] = set()
    for path in glob(root, "patient*.h5") if not items else ():
        named = _HDF5.fullmatch(path.name)
        if named:
            keys = {"image_key": "image", "label_key": "label"}
            phase = "ES" if named[1] in seen else "ED"
            items.append({"image": path, "label": path, **keys, "patient": named[1], "phase": phase})
            seen.add(named[1])
    return found(root, "acdc", items, CLASSES, "segmentation")


def frames(folder: Path) -> dict[str, str]:
    """``ED`` and ``ES`` by the name of the frame, as ``Info.cfg`` in a patient's folder tells.

    Raises:
        UserError: it does not tell both.
    """
    info = _info(folder)
    if not {"ED", "ES"} <= info.keys():
        raise UserError(f"{folder.name}/Info.cfg has no ED or no ES: expected the numbers of their frames.")
    where = f"{folder.name}/Info.cfg"
    return {f"{folder.name}_frame{number(info[phase], phase, where):02.0f}": phase for phase in ("ED", "ES")}


def _info(folder: Path) -> dict[str, str]:
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in glob(folder, "Info.cfg"))
    lines = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in lines}


def _patients(root: Path) -> list[Path]:
    files = glob(root, "patient*/Info.cfg", "*/patient*/Info.cfg", "*/*/patient*/Info.cfg")  # zipped: database/training
    return sorted(path.parent for path in files)


def _volume(folder: Path, name: str) -> Path | None:
    wanted = (f"{name}.nii.gz", f"{name}.nii")
    return next((path for path in below(folder, 1) if path.name.lower() in wanted), None)
