"""What a file is by its first bytes, whatever its name says: a weight file, or what people have in place of one."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path
from typing import Literal

from ..utils import UserError, damaged_entry

__all__ = ["Kind", "check_sums", "kind_of"]

Kind = Literal["torch", "safetensors", "onnx"]

_HEAD = 512
_LFS = re.compile(rb"version https://git-lfs.*?size (\d+)", re.DOTALL)
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<!--", b"<head", b"<body")
_ELSEWHERE = "its weights lie in another order: take the network's file for PyTorch, as torch.save writes it"
_UNPACK = "unpack it and give the weight file in it"
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras writes", _ELSEWHERE),
    (b"\x93NUMPY", "one array of NumPy", "give a file of tensors by name, as torch.save writes it"),
    (b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"%PDF", "a PDF document", "download the weights that it writes about"),
    (b"\x89PNG", "a picture", "give the weight file"),
    (b"GGUF", "a GGUF file", _ELSEWHERE),
    (b"MATLAB", "a file of MATLAB", _ELSEWHERE),
)
"""First bytes, what such a file is, and what to do."""


def kind_of(path: Path) -> Kind:
    """Which reader a weight file is for.

    Raises:
        UserError: it is empty, or something else that can be told by its first bytes: a web page, a pointer of git-lfs,
            a file of Keras or NumPy, an archive.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.strip():
        raise UserError(f"{path} is empty: download it again.")
    _refuse_text(path, head)
    for start, what, instead in _OTHERS:
        if head.startswith(start):
            raise UserError(f"{path} is {what}, not a weight file: {instead}.")
    if head[4:8] == b"TFL3":
        raise UserError(f"{path} is a network of TensorFlow Lite, not a weight file: {_ELSEWHERE}.")
    if head.startswith((b"PK\x03\x04", b"\x80\x02")):  # an archive, or older: a pickle
        _refuse_archive(path)
        return "torch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    # the first field of ONNX is its version, a small number
    return "onnx" if head[:1] == b"\x08" and b"\x00" < head[1:2] < b"\x40" else _by_name(path)


def check_sums(path: Path) -> None:
    """Whether the tensors in a file of torch are as they were written: torch keeps a checksum of each and reads none.

    Raises:
        UserError: one is another; archives that cannot be opened are torch's to refuse.
    """
    damaged = damaged_entry(path) if _members(path) else None
    if damaged is not None:
        raise UserError(f"{path} is damaged: the checksum of {damaged} is another: copy or download it again.")


def _by_name(path: Path) -> Kind:
    names: dict[str, Kind] = {".safetensors": "safetensors", ".onnx": "onnx"}
    return names.get(path.suffix.lower(), "torch")


def _refuse_text(path: Path, head: bytes) -> None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.lower().startswith(_PAGES):
        raise UserError(f"{path} is a web page, not a weight file: download the file itself, not the page about it.")
    if pointer := _LFS.search(head):
        raise UserError(
            f"{path} is a pointer of git-lfs to a file of {int(pointer[1]):,} bytes, not the file: run `git lfs pull` "
            "in its repository, or download the file itself."
        )
    if start.startswith((b"{", b"[")) and not start[1:2] == b"\x00" and _is_text(start):
        raise UserError(
            f"{path} is text in JSON, such as a server's answer or a list of parts, not a weight file: it begins "
            f"{start[:60].decode('ascii', 'replace').split(chr(10))[0]!r}: download the file itself."
        )


def _is_text(content: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\r\n" for byte in content)


def _refuse_archive(path: Path) -> None:
    """Archives of zip that torch has not written; one that is cut short cannot be told, and is torch's to refuse."""
    names = _members(path)
    if not names or any(name.endswith("data.pkl") for name in names):
        return
    what, instead = f"a zip archive with {', '.join(names[:3])}", _UNPACK
    if any(name.endswith(".weights.h5") for name in names):
        what, instead = "a network of Keras", _ELSEWHERE
    elif all(name.endswith(".npy") for name in names):
        what, instead = "an archive of NumPy's arrays (npz)", _ELSEWHERE
    raise UserError(f"{path} is {what}, not a weight file: {instead}.")


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, struct.error, OSError, RuntimeError, ValueError):
        return []
