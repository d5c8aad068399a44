"""What a file is, by its first bytes; its name counts only where they do not tell."""

from __future__ import annotations

import zlib
from pathlib import Path

from ...utils import UserError
from .arrays import split_array
from .dicom_header import split_frame
from .limits import UnreadableError

__all__ = ["GZIP", "kind_of"]

GZIP = b"\x1f\x8b"
_HEAD = 560  # bytes; NIfTI-2 has 540
_SIGNS = {  # at the beginning of a file
    b"\x89PNG": "picture", b"\xff\xd8\xff": "picture", b"BM": "picture", b"GIF8": "picture",
    b"II*\0": "picture", b"MM\0*": "picture", b"II+\0": "picture", b"MM\0+": "picture",
    b"\0\0\0\x0cjP  ": "picture", b"\xff\x4f\xff\x51": "picture",
    b"\x89HDF": "hdf5", b"NRRD": "volume", b"ObjectType": "volume", b"NDims": "volume",
}  # fmt: skip
_NAMES = {
    "picture": (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm"),
    "nifti": (".nii", ".nii.gz", ".hdr", ".img", ".img.gz"),
    "hdf5": (".h5", ".hdf5", ".mat"),
    "dicom": (".dcm", ".dicom", ".ima"),
}


def kind_of(name: str | Path) -> str:
    """``array``, ``dicom``, ``hdf5``, ``nifti``, ``picture``, or ``volume`` for all else, which is left to ITK.

    Raises:
        UserError: there is no such file, or it is empty, or its compression is damaged.
    """
    if split_array(name):
        return "array"
    path, frame = split_frame(name)
    if frame is not None or Path(path).is_dir():
        return "dicom"
    return _by_content(path) or next((kind for kind, ends in _NAMES.items() if path.lower().endswith(ends)), "volume")


def _by_content(path: str) -> str | None:
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}: check the path.")
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise UserError(f"{path} is empty: repair or remove it.")
    if head[:2] == GZIP:
        head = _inflated(head, path)
    if head[128:132] == b"DICM":
        return "dicom"
    if _is_nifti(head):
        return "nifti"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "picture"
    return next((kind for sign, kind in _SIGNS.items() if head.startswith(sign)), None)


def _inflated(head: bytes, path: str) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _HEAD)
    except zlib.error as error:
        raise UnreadableError(path, f"its compression is damaged: {error}") from error


def _is_nifti(head: bytes) -> bool:
    """By the size of the header that stands first, in either order of bytes, and the magic."""
    first = head[:4]
    one = first in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and head[344:347] in (b"n+1", b"ni1")
    return one or (first in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") and head[4:7] in (b"n+2", b"ni2"))
