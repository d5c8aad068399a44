"""Where features are kept: rows in memory, or in files that later runs can use."""

from __future__ import annotations

import logging
import os
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from ..utils import UserError, make_folder, write_json

__all__ = ["Part", "Pending", "Store"]

_log = logging.getLogger("medtl_monai")


@dataclass
class Pending:
    """A batch between ``prepare_batch`` and the forward pass."""

    image: Tensor
    label: Tensor | None
    rows: Tensor
    replay: bool
    device: torch.device | str | None = None


@dataclass
class Part:
    """How one kind of row is kept: its shape, its number type when kept and when used, its axes' order in memory."""

    shape: tuple[int, ...]
    kept: torch.dtype
    used: torch.dtype
    channels_last: bool

    @classmethod
    def of(cls, batch: Tensor, dtype: str | None) -> Part:
        """That of the rows of ``batch`` ``(B, ...)``, kept as ``dtype`` if they are of 32 bits."""
        last = not batch.is_contiguous() and batch.ndim > 3 and batch.movedim(1, -1).is_contiguous()
        rows = batch.movedim(1, -1) if last else batch
        kept = getattr(torch, dtype) if dtype and batch.dtype == torch.float32 else batch.dtype
        return cls(tuple(rows.shape[1:]), kept, batch.dtype, last)

    def bytes(self) -> int:
        """Of one row."""
        return torch.Size(self.shape).numel() * self.kept.itemsize


class Store:
    """Rows of features and labels, in memory or in a folder."""

    def __init__(
        self,
        names: Sequence[str],
        shapes: Mapping[str, tuple[torch.Size, torch.dtype]],
        parts: Mapping[str, Part],
        image: tuple[tuple[int, ...], torch.dtype],
        rows: int,
        folder: Path | None,
        key: Mapping[str, Any] | None,
    ) -> None:
        self.names, self.shapes, self.parts, self.image, self.folder = names, shapes, parts, image, folder
        needed = rows * sum(part.bytes() for part in parts.values())
        if folder is not None and not (folder / "key.json").is_file():
            make_folder(folder, "cache_features")
            _check_room(needed, shutil.disk_usage(folder).free, f"on the disk of {folder.parent}")
            write_json(folder / "key.json", key)
        elif folder is None:
            _check_room(needed, psutil.virtual_memory().available, "of memory")
        self._rows = {name: self._make(name, rows, part.shape, part.kept) for name, part in parts.items()}
        self._flags = self._make("known", rows, (), torch.bool) if folder is not None else None
        self._sums = {} if folder is None else {name: self._make(f"{name}.sum", rows, (), torch.long) for name in parts}

    def load_known(self) -> Tensor | None:
        """Which rows an earlier run has left whole, ``(rows,)``, if there is a folder."""
        if self._flags is None:
            return None
        known = self._flags.clone()
        rows = known.nonzero().flatten()
        for name, sums in self._sums.items():
            known[rows] &= _checksums(self._rows[name], rows) == sums[rows]
        damaged = len(rows) - int(known.sum())
        if damaged:
            _log.warning(f"{damaged} of {len(rows)} rows in {self.folder} are damaged: they are computed anew")
        return known

    def flush(self, known: Tensor) -> None:
        """Tell later runs which rows there are, ``known`` ``(rows,)``."""
        if self._flags is not None:
            self._flags.copy_(known)

    def note(self, pending: Pending) -> None:
        """Keep the labels of a batch."""
        if pending.label is not None:
            self._write("label", pending.rows, pending.label)

    def record(self, name: str, pending: Pending, forward: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Run a frozen module and keep its output ``(B, ...)``, at once: what follows may change it in place."""
        output = forward(*args, **kwargs)
        self._write(name, pending.rows, output)
        # what is trained sees now what it will see later
        return self.read(name, pending.rows, output.device) if output.dtype != self.parts[name].kept else output

    def replay(self, name: str, pending: Pending, *args: Any, **kwargs: Any) -> Tensor:
        """A frozen module's output ``(B, ...)`` again; the shape alone if only other frozen modules use it."""
        if name in self.parts:
            return self.read(name, pending.rows, pending.device)
        shape, dtype = self.shapes[name]
        return torch.empty((len(pending.rows), *shape[1:]), dtype=dtype, device="meta")

    def read(self, name: str, rows: Tensor, device: torch.device | str | None) -> Tensor:
        """The rows, whose numbers are ``(B,)``, as a batch ``(B, ...)``."""
        part = self.parts[name]
        batch = self._rows[name][rows].to(device=device, dtype=part.used)
        return batch.movedim(-1, 1) if part.channels_last else batch

    def compare(self, outputs: Mapping[str, Tensor], rows: Tensor) -> None:
        """Refuse rows ``(B,)`` that differ from what was just computed, by name ``(B, ...)``.

        Raises:
            UserError: they differ.
        """
        for name in self.names:
            want, got = outputs[name], self.read(name, rows, outputs[name].device)
            tolerance = 1e-2 if self.parts[name].kept.itemsize < 4 else 1e-4
            if not torch.allclose(got, want, rtol=tolerance, atol=tolerance * float(want.abs().max())):
                raise UserError(
                    f"the features in {self.folder} are not what {name} gives for the same images: "
                    "something that they depend on has changed unnoticed; delete that folder."
                )

    def _write(self, name: str, rows: Tensor, batch: Tensor) -> None:
        part = self.parts[name]
        batch = batch.detach().movedim(1, -1) if part.channels_last else batch.detach()
        kept = batch.to(device="cpu", dtype=part.kept)
        if part.kept == torch.float16 != part.used and not kept.isfinite().all():
            raise UserError(f"features of {name} do not fit into float16 (largest {float(batch.abs().max()):g}).")
        self._rows[name][rows] = kept
        if self._sums:
            self._sums[name][rows] = _checksums(self._rows[name], rows)

    def _make(self, name: str, rows: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        shape = (rows, *shape)
        if self.folder is None:
            return torch.empty(shape, dtype=dtype)
        path, size = self.folder / f"{name}.bin", torch.Size(shape).numel()
        with path.open("ab") as file:  # takes its room now: in a file with holes a full disk kills the process
            os.posix_fallocate(file.fileno(), 0, max(1, size * dtype.itemsize))
        return torch.from_file(str(path), shared=True, size=size, dtype=dtype).view(shape)


def _checksums(kept: Tensor, rows: Tensor) -> Tensor:
    """CRC-32 ``(B,)`` of those ``rows`` ``(B,)`` of ``kept``."""
    bytes_of = (kept[row].reshape(-1).view(torch.uint8).numpy() for row in rows.tolist())
    return torch.tensor([zlib.crc32(one.tobytes()) for one in bytes_of], dtype=torch.long)


def _check_room(needed: int, free: int, where: str) -> None:
    if needed > 0.9 * free:
        raise UserError(
            f"the features need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB {where} are free: give cache_features a "
            "folder with room, cache_dtype float16, fewer cache_views, or freeze more blocks."
        )
