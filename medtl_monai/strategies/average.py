"""Averages of a network's weights over its training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..utils import unwrap

__all__ = ["follow", "tensors_of"]


@torch.no_grad()
def follow(average: Iterable[Tensor], weights: Iterable[Tensor], share: float) -> None:
    """Move ``average`` by ``share`` of the way towards ``weights``; whole numbers, such as counters, are copied."""
    for mine, its in zip(average, weights, strict=True):
        mine.lerp_(its, share) if mine.is_floating_point() else mine.copy_(its)


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer once: ``state_dict`` would exchange those with two names twice."""
    network = unwrap(network)
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
