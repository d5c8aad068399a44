"""Weight files into dictionaries of tensors, safely."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..utils import UserError
from .inert import Shell, load_inert, load_program

__all__ = ["read_weights"]

_WRAPPERS = ("state_dict", "model", "network", "model_state_dict", "net", "model_state")
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name.

    - ``.pt``, ``.pth``, ``.ckpt``, ``.bin``: a state_dict. A wrapper around it (``state_dict``, a MONAI bundle's
      ``model`` ...) and the prefixes of ``DataParallel`` and ``torch.compile`` are taken off.
    - The same with other Python objects, or a whole pickled network: the tensors are taken and every other object stays
      an empty shell (:mod:`.inert`).
    - A TorchScript archive: likewise, without its code.
    - ``.safetensors`` and ``.onnx`` (initializers), with the extras of the same names.

    Nothing in a file is ever run.

    Raises:
        UserError: the file is missing, cut short, a web page, holds no tensors by name, or its reader is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no weight file {path}: check the path.")
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if not start:
        raise UserError(f"{path} is empty: download it again.")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path} is a web page, not a weight file: download the file itself, not the page about it.")
    reader = _READERS.get(path.suffix.lower(), _read_torch)
    try:
        content = reader(path)
    except ModuleNotFoundError as error:
        extra = path.suffix.lower()[1:]
        raise UserError(f"{path} needs {error.name}: run `pip install 'medtl_monai[{extra}]'`.") from error
    except Exception as error:  # damaged files make torch raise nearly anything
        raise UserError(f"{path} {_fault(error)}.") from error
    tensors = _tensors(content)
    if not tensors:
        raise UserError(f"{path} holds no tensors by name: expected a state_dict, found {_describe(content)}.")
    return {_strip(name): tensor for name, tensor in tensors.items()}


def _read_torch(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what it then refuses
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            if "torchscript" in str(error).lower():
                return load_program(path)
            if not _has_objects(error):
                raise
            content = load_inert(path)
            if not _tensors(content):
                raise
            return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_onnx(path: Path) -> dict[str, Tensor]:
    import onnx

    return {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(path).graph.initializer
    }


_READERS = {".safetensors": _read_safetensors, ".onnx": _read_onnx}


def _has_objects(error: Exception) -> bool:
    reason = str(error).lower()
    return "unsupported global" in reason or "unsupported class" in reason


def _fault(error: Exception) -> str:
    if _has_objects(error):
        return (
            "holds Python objects and no tensors by name: they could run code and are refused: "
            "save its state_dict() alone, with the program that wrote it"
        )
    return "is no weight file, or is cut short or damaged: download it again"


def _tensors(content: Any) -> dict[str, Tensor]:
    if isinstance(content, Shell):
        return content.tensors()
    if not isinstance(content, Mapping):
        return {}
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), (Mapping, Shell)):
            return _tensors(content[wrapper])
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _strip(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _describe(content: Any) -> str:
    keys = f" with {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
    return type(content).__name__ + keys
