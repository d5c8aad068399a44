"""Small helpers that every layer may use: errors, wrapped networks, name prefixes, whole files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "UNKNOWN",
    "MonaiEngine",
    "UserError",
    "atomic_path",
    "cache_dir",
    "damaged_entry",
    "first_process",
    "is_under",
    "last_layer",
    "make_folder",
    "one_thread",
    "read_cell",
    "sum_over_processes",
    "unwrap",
    "with_bar",
    "write_json",
    "write_table",
    "write_torch",
]

UNKNOWN = 255
"""In maps of labels: a place of which nothing is known."""

MonaiEngine: TypeAlias = Any
"""An engine of MONAI. Ignite's types know neither its network and optimizer, nor what its state and output hold."""


class UserError(ValueError):
    """A mistake that the user can put right.

    The message is one sentence or two: what was expected, what was found, what to do. The bundles print it without a
    stack trace and exit with its ``status``.

    Args:
        message: for people.
        lacks: what of a folder of images is missing, ``labels`` or ``patients``, where there is something to say of
            the images nevertheless.

    Attributes:
        status: 1; 3 where the work was done but for some of the images.
    """

    status = 1

    def __init__(self, message: str = "", *, lacks: str | None = None) -> None:
        super().__init__(message)
        self.lacks = lacks


def unwrap(network: nn.Module) -> nn.Module:
    """The network itself, without the wrappers of ``DistributedDataParallel`` and ``torch.compile``.

    Both put a prefix before every parameter's name (``module.``, ``_orig_mod.``).
    """
    from torch import nn

    while True:
        if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            network = network.module
        elif "_orig_mod" in network._modules:
            network = cast("nn.Module", network._modules["_orig_mod"])
        else:
            return network


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: transforms of single images are many small operations.

    Dividing each of them among threads costs more than it brings, the more so where other threads load images.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def with_bar(items: Any, name: str, shown: bool = True, **more: Any) -> Any:
    """``items`` with a bar where a person looks on: on a terminal, of the first process; else none."""
    from tqdm import tqdm

    return tqdm(items, desc=name, leave=False, disable=None if shown and first_process() else True, **more)


def is_under(name: str, prefixes: Iterable[str]) -> bool:
    """Whether the dotted ``name`` is one of the modules ``prefixes`` or lies inside one.

    Whole name parts are compared, so ``layer1`` does not match ``layer10.weight``.

    Example:
        >>> is_under("layer1.0.weight", ["layer1"]), is_under("layer10.weight", ["layer1"])
        (True, False)
    """
    return any(name == p or name.startswith(f"{p.rstrip('.')}.") for p in prefixes)


def last_layer(network: nn.Module) -> str:
    """Name of the last module (in order of registration) that holds parameters of its own: usually the head.

    Raises:
        ValueError: there is none.
    """
    names = [
        name for name, module in network.named_modules() if next(module.parameters(recurse=False), None) is not None
    ]
    if not names:
        raise ValueError(f"{type(network).__name__} has no parameters.")
    return names[-1]


def first_process() -> bool:
    """Whether this is the only process, or the first of a distributed training."""
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def sum_over_processes(*tensors: Tensor) -> int:
    """Add up each tensor over the processes of a distributed training, in place; how many processes there are."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    for tensor in tensors:
        distributed.all_reduce(tensor)
    return distributed.get_world_size()


def cache_dir() -> Path:
    """The user's cache folder of this package: ``$MEDTL_CACHE``, else ``medtl_monai`` in the system's cache folder."""
    if "MEDTL_CACHE" in os.environ:
        return Path(os.environ["MEDTL_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "medtl_monai"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it on success and removed on failure.

    So that no half-written file is ever left under the real name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes files private
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def make_folder(path: str | os.PathLike[str], key: str) -> Path:
    """A folder that can be written into, made where it is not there.

    Args:
        path: its name.
        key: what the user gave the name as.

    Raises:
        UserError: it cannot be.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{key} {path} cannot be written to ({error.strerror}): give the name of another folder."
        ) from error
    return Path(path)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all; NaN is refused (use ``None`` and a reason)."""
    import json

    with atomic_path(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_table(path: str | os.PathLike[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write ``rows`` as CSV, whole or not at all; the first are the names of the columns.

    A spreadsheet runs a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula, and names of files and classes
    may come from anywhere: such texts, numbers aside, get an apostrophe before them, as :func:`read_cell` knows.
    """
    import csv

    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([_harmless(cell) for cell in row] for row in rows)


def read_cell(cell: str) -> str:
    """A text of :func:`write_table` as it was.

    Example:
        >>> read_cell("'=1+1"), read_cell("normal")
        ('=1+1', 'normal')
    """
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULAS else cell


_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(_FORMULAS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def damaged_entry(path: str | os.PathLike[str]) -> str | None:
    """What in a file of :func:`write_torch` does not fit its checksum, at which torch itself does not look; or nothing.

    A file that is no such file is damaged as a whole.
    """
    import struct
    import zipfile
    import zlib

    damage = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except damage as error:  # of the table of contents, too: another method, a password, a place before the file
        return f"the file ({error})"


def write_torch(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` as ``torch.save`` does, whole or not at all; a full disk is an ``OSError``."""
    import torch

    with atomic_path(path) as part, part.open("wb") as file:  # given a name, torch hides what the system said
        torch.save(content, file)
