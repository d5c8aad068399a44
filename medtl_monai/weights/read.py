"""Weight files into dictionaries of tensors, safely."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..utils import UserError

__all__ = ["read_weights"]

_WRAPPERS = ("state_dict", "model", "network", "model_state_dict", "net", "model_state")
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.pt`` or ``.pth`` file by name.

    A wrapper around them (``state_dict``, a MONAI bundle's ``model`` ...) and the prefixes of ``DataParallel`` and
    ``torch.compile`` are taken off. Nothing but tensors is ever unpickled (``weights_only=True``).

    Raises:
        UserError: the file is missing, cut short, a web page, a program, or holds something else than tensors.
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch raise nearly anything
        raise UserError(f"{path} {_fault(error)}.") from error
    tensors = _tensors(content)
    if not tensors:
        raise UserError(f"{path} holds no tensors by name: expected a state_dict, found {_describe(content)}.")
    return {_strip(name): tensor for name, tensor in tensors.items()}


def _fault(error: Exception) -> str:
    reason = str(error).lower()
    if "torchscript" in reason:
        return "is a TorchScript program, not a weight file: load it with torch.jit.load and save its state_dict()"
    if "unsupported global" in reason or "unsupported class" in reason:
        return (
            "holds Python objects besides tensors, which could run code and are refused: "
            "save its state_dict() alone, with the program that wrote it"
        )
    return "is no weight file, or is cut short or damaged: download it again"


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return _tensors(content[wrapper])
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _strip(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _describe(content: Any) -> str:
    keys = f" with {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
    return type(content).__name__ + keys
