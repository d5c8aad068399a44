"""Tensors out of pickled networks and training states, without running or importing what else is in the file."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Shell", "load_inert", "load_program"]

_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch._utils", name): getattr(torch._utils, name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2")},
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
}


class Shell:
    """What stands in for any Python object but a tensor: it keeps its content and can do nothing."""

    dump_patches = False  # asked for by torch's reader of older files

    content: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Shell:
        shell = super().__new__(cls)
        shell.content = {}
        return shell

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Shell:
        return Shell()

    def __setstate__(self, state: Any) -> None:
        self.content = dict(state) if isinstance(state, dict) else {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.content[str(key)] = value

    def append(self, item: Any) -> None:
        """Forget an item of a list."""

    def extend(self, items: Any) -> None:
        """Forget items of a list."""

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and buffers, of any shape, by name, where this was a network or a program."""
        found: dict[str, Tensor] = {}
        if "_modules" not in self.content:  # a program keeps all side by side
            for key, value in self.content.items():
                name = f"{prefix}{key}"
                found.update({name: value} if isinstance(value, Tensor) else _tensors_of(value, f"{name}."))
            return found
        for name in ("_parameters", "_buffers"):
            own = self.content.get(name) or {}
            found.update({f"{prefix}{key}": value for key, value in own.items() if isinstance(value, Tensor)})
        for key, child in (self.content.get("_modules") or {}).items():
            found.update(_tensors_of(child, f"{prefix}{key}."))
        return found


def _tensors_of(value: Any, prefix: str) -> dict[str, Tensor]:
    return value.tensors(prefix) if isinstance(value, Shell) else {}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), Shell)


def load_inert(path: Path) -> Any:
    """The content of a file of ``torch.save``: tensors, numbers, text, collections; :class:`Shell` for all else.

    Only the functions that put tensors together are ever called; no other name in the file is looked up.
    """
    reader = SimpleNamespace(
        Unpickler=_Unpickler, load=lambda file, **kwargs: _Unpickler(file, **kwargs).load(), __name__="inert"
    )
    with path.open("rb") as file:
        return torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False)


class _ProgramUnpickler(_Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.endswith("Storage"):
            return getattr(torch, name).dtype
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> torch.TypedStorage:
        _, dtype, key, *_ = pid
        content = bytearray(self.archive.read(f"{self.root}data/{key}"))
        bytes_ = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
        return torch.storage.TypedStorage(wrap_storage=bytes_.untyped_storage(), dtype=dtype, _internal=True)


def load_program(path: Path) -> Any:
    """The attributes of a TorchScript archive, as :func:`load_inert` gives them; its code is not even parsed."""
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        return _ProgramUnpickler(archive, root).load()
