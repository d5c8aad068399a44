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
from .kinds import check_sums, kind_of

__all__ = ["class_names", "read_content", "read_weights", "tensors_of"]

_WRAPPERS = (
    *("state_dict_ema", "model_ema"),  # timm: of both, its own loader takes the average
    *("state_dict", "model", "network", "model_state_dict", "net", "model_state"),
    *("network_weights", "teacher", "module"),  # nnU-Net, DINO, SparK
)
_NO_WEIGHTS = ("optim", "sched", "scaler")  # of the training's state
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name.

    - ``.pt``, ``.pth``, ``.ckpt``, ``.bin``: a state_dict. A wrapper around it (``state_dict``, a MONAI bundle's
      ``model``, DINO's ``teacher`` ...) and the prefixes of ``DataParallel`` and ``torch.compile`` are taken off; of
      several networks under other names, these become a prefix.
    - The same with other Python objects, or a whole pickled network: the tensors are taken and every other object stays
      an empty shell (:mod:`.inert`).
    - A TorchScript archive: likewise, without its code.
    - ``.safetensors`` and ``.onnx`` (initializers), with the extras of the same names.

    The format is told by the first bytes, whatever the name ends in. Nothing in a file is ever run.

    Returns:
        Tensors of any shape, in the file's order, on the CPU.

    Raises:
        UserError: the file is missing, cut short, something else (a web page, a pointer of git-lfs, a file of Keras or
            NumPy, an archive), holds no tensors by name, or its reader is not installed.
    """
    return tensors_of(read_content(path), path)


def class_names(content: Any) -> list[str]:
    """Names of the head's rows, which a run of this package writes beside its weights; none where nothing says them."""
    about = content.get("about") if isinstance(content, Mapping) else None
    names = about.get("classes") if isinstance(about, Mapping) else None
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else []


def read_content(path: str | Path) -> Any:
    """All that a weight file holds, as its reader gives it: a dictionary, usually.

    Raises:
        UserError: as :func:`read_weights`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no weight file {path}: check the path.")
    kind = kind_of(path)
    check_sums(path)
    try:
        return _READERS[kind](path)
    except ModuleNotFoundError as error:
        raise UserError(f"{path} needs {error.name}: run `pip install 'medtl_monai[{kind}]'`.") from error
    except Exception as error:  # damaged files make torch raise nearly anything
        raise UserError(f"{path} {_fault(error)}.") from error


def tensors_of(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The tensors, of any shape, by name in the content of ``path``, without wrappers around them.

    Raises:
        UserError: there are none.
    """
    tensors = _tensors(content)
    if not tensors:
        raise UserError(f"{path} holds no tensors by name: expected a state_dict, found {_describe(content)}.")
    return {_strip(name): tensor for name, tensor in tensors.items()}


def _read_torch(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what it then refuses
        try:
            with path.open("rb") as file:  # of a path torch looks at the name's ending, too
                return torch.load(file, map_location="cpu", weights_only=True)
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


_READERS = {"torch": _read_torch, "safetensors": _read_safetensors, "onnx": _read_onnx}


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
        if tensors := _tensors(content.get(wrapper)):
            return tensors
    return _nested(content)


def _nested(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """The tensors, and those of dictionaries and networks inside by their names; not those of an optimizer."""
    found: dict[str, Tensor] = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        if isinstance(value, Tensor):
            found[key] = value
        elif isinstance(value, Shell):
            found.update(value.tensors(f"{key}."))
        elif isinstance(value, Mapping) and not any(word in str(name).lower() for word in _NO_WEIGHTS):
            found.update(_nested(value, f"{key}."))
    return found


def _strip(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _describe(content: Any) -> str:
    keys = f" with {', '.join(map(str, list(content)[:5])) or 'nothing in it'}" if isinstance(content, Mapping) else ""
    return type(content).__name__ + keys
