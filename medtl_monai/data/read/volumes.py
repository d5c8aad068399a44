"""NRRD, MetaImage and what else ITK reads, with a look at the header first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monai.data import ITKReader
from numpy.typing import NDArray

from ...utils import UserError
from .limits import UnreadableError, check_size

__all__ = ["read_volume"]

_HEADER = 1 << 16  # bytes in which a header of text ends
_ELSEWHERE = re.compile(r"^(?:data ?file|elementdatafile)\s*[:=]\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_SPACING = re.compile(r"^(?:spacings|space directions|elementspacing|elementsize)\s*[:=]", re.IGNORECASE | re.MULTILINE)
_SIDES = re.compile(r"^(?:sizes|dimsize)\s*[:=]\s*([\d ]+)", re.IGNORECASE | re.MULTILINE)


def read_volume(path: str) -> tuple[NDArray[Any], dict[str, Any]]:
    """The array ``(x, y)`` or ``(x, y, z)``, or with colour last, and MONAI's metadata.

    Raises:
        UserError: ITK cannot read it; its header names pixels outside its folder, or more of them than memory holds.
    """
    with open(path, "rb") as file:
        header = file.read(_HEADER).partition(b"\n\n")[0].decode("latin-1")
    text = header if header.startswith(("NRRD", "ObjectType", "NDims")) else ""
    text = text.replace("\r", "")
    for sides in _SIDES.findall(text):
        check_size(path, *map(int, sides.split()))
    for name in _ELSEWHERE.findall(text):
        _check_within(path, name)
    reader = ITKReader()
    try:
        array, meta = reader.get_data(reader.read(path))
    except Exception as error:  # ITK's are long, and many
        last = [line for line in str(error).splitlines() if line.strip()][-1:] or [type(error).__name__]
        raise UnreadableError(path, last[0].strip()[:120]) from error
    told = not text or _SPACING.search(text) is not None
    return array, {**meta, "tells_spacing": told, "located": told}


def _check_within(path: str, name: str) -> None:
    folder = Path(path).resolve().parent
    if name.upper() not in ("LOCAL", "") and not (folder / name).resolve().is_relative_to(folder):
        raise UserError(f"{path} takes its pixels from {name}, outside its folder: put them beside it.")
