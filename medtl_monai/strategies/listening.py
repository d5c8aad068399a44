"""What strategies that look at features share: a tap at the head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..backbones import anatomy
from ..backbones.tap import Tap, pool
from ..utils import UserError
from .base import Step, Strategy

__all__ = ["FeatureStrategy"]


class FeatureStrategy(Strategy):
    """Base of the strategies that look at what enters the head.

    Args:
        weight: of the extra loss, in ``[0, inf)``.
        target_statistics: whether images of the target domain move the batch-norm statistics too.
    """

    def __init__(self, weight: float = 1.0, target_statistics: bool = True) -> None:
        super().__init__()
        if weight < 0:
            raise UserError(f"{type(self).__name__}: weight must be 0 or more, got {weight}.")
        self.weight, self.target_statistics = weight, target_statistics
        self._tap: Tap | None = None

    def prepare(self, network: nn.Module) -> nn.Module:
        """Listen at the head."""
        self._tap = Tap(network, anatomy(network).head)
        return network

    def close(self) -> None:
        """Stop listening."""
        if self._tap is not None:
            self._tap.close()

    def on_forward(self) -> None:
        """Hold on to this batch's features."""
        assert self._tap is not None, "prepare comes first"
        self._tap.pin()

    @property
    def features(self) -> Tensor:
        """What entered the head for this batch, ``(B, F)``, averaged over space."""
        assert self._tap is not None, "prepare comes first"
        return self._tap.pooled

    def on_target(self, step: Step) -> tuple[Tensor, Any]:
        """Features ``(B, F)`` and predictions of the next augmented batch of the target domain."""
        assert self.context.target is not None, "bind comes first"
        assert self._tap is not None, "prepare comes first"
        (image,) = self.context.target.next("augmented")
        with _statistics(step.network, moving=self.target_statistics):
            pred = step.network(image)
        return pool(self._tap.latest), pred


@contextmanager
def _statistics(network: nn.Module, *, moving: bool) -> Iterator[None]:
    """Whether running statistics move in the forward passes within."""
    layers = [] if moving else [m for m in network.modules() if isinstance(m, _BatchNorm) and m.momentum is not None]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
