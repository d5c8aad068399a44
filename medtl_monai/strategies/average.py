"""Averages of a network's weights over its training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from ..utils import MonaiEngine, unwrap
from .base import Strategy

__all__ = ["Averaging", "follow", "tensors_of"]


class Averaging(Strategy):
    """Base of the strategies under which the network holds an average of its weights between epochs.

    The average is what is validated, chosen and saved; when the next epoch starts, training goes on from the weights.
    """

    averages = True
    exchanged: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.Module()  # between epochs the weights, while the network holds their average
        self.register_buffer("exchanged", torch.tensor(False))

    def prepare(self, network: nn.Module) -> nn.Module:
        """Copy the weights."""
        for name, value in tensors_of(network).items():
            self.average.register_buffer(name.replace(".", "/"), value.detach().clone())
        return network

    def attach(self, engine: Engine) -> None:
        """Give the network its weights when an epoch starts, and the average when it ends."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)

    def follow(self, network: nn.Module, share: float) -> None:
        """Move the average by ``share`` of the way towards the weights."""
        follow(self.average.buffers(), tensors_of(network).values(), share)

    @torch.no_grad()
    def exchange(self, network: nn.Module) -> None:
        """Exchange the weights for their average, or back."""
        self.exchanged.logical_not_()
        for mine, its in zip(self.average.buffers(), tensors_of(network).values(), strict=True):
            if not torch.equal(mine, its):  # what is frozen is not touched: cached features count on it
                kept = mine.clone()
                mine.copy_(its)
                its.copy_(kept)

    def _start(self, engine: MonaiEngine) -> None:
        if self.exchanged:  # the last epoch's end, of this run or of the one it resumes
            self.exchange(engine.network)
        elif engine.state.iteration == 0:  # the network may have been given other weights since it was prepared
            self.follow(engine.network, 1.0)

    def _end(self, engine: MonaiEngine) -> None:
        self.exchange(engine.network)


@torch.no_grad()
def follow(average: Iterable[Tensor], weights: Iterable[Tensor], share: float) -> None:
    """Move ``average`` by ``share`` of the way towards ``weights``, of any shapes; whole numbers are copied."""
    for mine, its in zip(average, weights, strict=True):
        mine.lerp_(its, share) if mine.is_floating_point() else mine.copy_(its)


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, of any shape, once: ``state_dict`` would exchange those with two names twice."""
    network = unwrap(network)
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
