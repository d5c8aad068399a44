"""What strategies share that compare predictions on images without labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..base import Strategy

__all__ = ["Still", "two_views"]


def two_views(strategy: Strategy, views: tuple[str, str]) -> list[Tensor]:
    """Two views of the next images; of segmentation the same one twice, as predictions are compared place by place."""
    target = strategy.context.target
    assert target is not None, "bind comes first"
    return target.next(views[1]) * 2 if strategy.context.task == "segmentation" else target.next(*views)


class Still:
    """Within it, batch norm uses its running statistics, which do not move, and dropout is off."""

    def __init__(self, network: nn.Module) -> None:
        kinds = (_BatchNorm, nn.modules.dropout._DropoutNd)
        self.layers = [m for m in network.modules() if isinstance(m, kinds) and m.training]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.eval()

    def __exit__(self, *_: Any) -> None:
        for layer in self.layers:
            layer.train()
