"""What a network sees: the features of the latest forward pass, and of whole sets of images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..utils import unwrap
from .blocks import anatomy

__all__ = ["Tap", "extract", "pool"]


class Tap:
    """Keeps what enters, or leaves, a module: of the trainer's own forward pass once it is pinned, and of the latest.

    Args:
        network: wrapped or not.
        module: its name.
        entering: what enters it (of a head: the features); otherwise what leaves it.
    """

    def __init__(self, network: nn.Module, module: str, *, entering: bool = True) -> None:
        target = unwrap(network).get_submodule(module)
        self._value: Any = None
        self._pinned: Any = None
        self._handle: RemovableHandle | None = (
            target.register_forward_pre_hook(self._enter) if entering else target.register_forward_hook(self._leave)
        )

    @property
    def value(self) -> Tensor:
        """The tensor, ``(B, F)`` or ``(B, C, *spatial)``: what was pinned, or else the latest."""
        return self.latest if self._pinned is None else self._pinned

    @property
    def latest(self) -> Tensor:
        """That of the latest forward pass, ``(B, F)`` or ``(B, C, *spatial)``.

        Raises:
            RuntimeError: there was none yet.
        """
        if self._value is None:
            raise RuntimeError("no forward pass has been seen yet.")
        return self._value

    @property
    def pooled(self) -> Tensor:
        """``value`` as ``(B, F)``: averaged over space."""
        return pool(self.value)

    def pin(self) -> None:
        """Hold on to the latest, as other strategies of a chain may send other images through the network."""
        self._pinned = self.latest

    def close(self) -> None:
        """Leave the network."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._value = self._pinned = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_value": None, "_pinned": None, "_handle": None}  # a copy listens to no network

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._value = inputs[0]

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._value = output


def pool(x: Tensor) -> Tensor:
    """``(B, F)`` of ``(B, F, *spatial)``: averaged over space."""
    return x.flatten(2).mean(-1) if x.ndim > 2 else x


@torch.no_grad()
def extract(network: nn.Module, images: Iterable[Tensor]) -> Tensor:
    """Features ``(N, F)`` that enter the head of ``network`` in evaluation mode, on the CPU, averaged over space.

    Args:
        network: wrapped or not; its mode is left as it was.
        images: batches ``(B, C, *spatial)``, on the network's device.
    """
    training = network.training
    tap = Tap(network, anatomy(network).head)
    network.eval()
    try:
        found = []
        for batch in images:
            network(batch)
            found.append(tap.pooled.float().cpu())
        return torch.cat(found)
    finally:
        tap.close()
        network.train(training)
