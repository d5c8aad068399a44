"""Weights into files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..utils import UserError, atomic_path

__all__ = ["save_weights"]


def save_weights(state: Mapping[str, Tensor], path: str | Path, *, half: bool = False) -> None:
    """Write tensors of any shape: ``.safetensors`` (needs the extra of that name), or torch's format for other endings.

    Args:
        state: tensors by name.
        path: of the file, written whole or not at all.
        half: store weights of two axes or more in 16 bits, half the size; biases, norms and counters stay exact.
            Relative error of a weight: at most 2 ** -11 above 6e-5 in magnitude.

    Raises:
        UserError: a weight is too large for 16 bits, or the package for the format is missing.
    """
    tensors = {name: _half(name, value) if half else value for name, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as part:
        if Path(path).suffix.lower() == ".safetensors":
            try:
                from safetensors.torch import save_file
            except ModuleNotFoundError as error:
                raise UserError(f"{path} needs safetensors: run `pip install 'medtl_monai[safetensors]'`.") from error
            save_file(tensors, part)
        else:
            torch.save(tensors, part)


def _half(name: str, value: Tensor) -> Tensor:
    if value.ndim < 2 or not value.is_floating_point():
        return value
    stored = value.half()
    if not stored.isfinite().all():
        raise UserError(f"{name} holds values that 16 bits cannot: the largest is 65504: store it in full.")
    return stored
