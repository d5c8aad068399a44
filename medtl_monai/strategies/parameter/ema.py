"""The moving average of the weights of one training."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import nn

from ...utils import UserError
from ..average import follow, tensors_of
from ..base import Strategy

__all__ = ["EMA"]


class EMA(Strategy):
    r"""Validate and keep the moving average of the weights, while training goes on from the weights themselves.

    .. math:: \bar\theta_t = \bar\theta_{t-1} + a_t (\theta_t - \bar\theta_{t-1}), \quad a_t = \max(1 / s, 9 / (9 + t))

    with :math:`s` the steps of ``epochs`` epochs.

    - **What it does**: training is as without it; at the end of every epoch the network holds the exponential moving
      average of its weights and batch-norm statistics, so that it is what is validated, chosen and saved.
    - **When it helps**: while the learning rate is high, and with small batches: a good model earlier, and epochs that
      differ less, of which the best is chosen more surely.
    - **Cost**: a copy of the weights; almost no time.
    - **Settings**: ``epochs`` in [0, inf): over about how many it averages; 0 is ``finetune``.
    - **What it cannot do**: improve the end of a training whose rate has gone to zero: its last weights are alike.

    References:
        Polyak, Juditsky. Acceleration of stochastic approximation by averaging. SIAM J. Control Optim. 30, 1992.
        Morales-Brotons, Vogels, Hendrikx. Exponential moving average of weights in deep learning: dynamics and
        benefits. TMLR 2024.
    """

    cached = "beside"

    def __init__(self, epochs: float = 0.5) -> None:
        super().__init__()
        if epochs < 0:
            raise UserError(f"ema: epochs must be 0 or more, got {epochs}.")
        self.epochs = epochs
        self.average = nn.Module()  # between epochs the weights, while the network holds their average
        self.register_buffer("exchanged", torch.tensor(False))

    def prepare(self, network: nn.Module) -> nn.Module:
        """Copy the weights."""
        for name, value in tensors_of(network).items():
            self.average.register_buffer(name.replace(".", "/"), value.detach().clone())
        return network

    def attach(self, engine: Engine) -> None:
        """Follow the weights after every step; exchange them for the average between epochs."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._follow)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._exchange)

    def _start(self, engine: Engine) -> None:
        if self.exchanged:  # the last epoch's end, of this run or of the one it resumes
            self._exchange(engine)
        elif engine.state.iteration == 0:  # the network may have been given other weights since it was prepared
            follow(self.average.buffers(), tensors_of(engine.network).values(), 1.0)

    def _follow(self, engine: Engine) -> None:
        step, steps = engine.state.iteration, max(1.0, self.epochs * engine.state.epoch_length)
        share = max(1 / steps, 9 / (9 + step))
        follow(self.average.buffers(), tensors_of(engine.network).values(), share)

    @torch.no_grad()
    def _exchange(self, engine: Engine) -> None:
        self.exchanged.logical_not_()
        for mine, its in zip(self.average.buffers(), tensors_of(engine.network).values(), strict=True):
            if not torch.equal(mine, its):  # what is frozen is not touched: cached features count on it
                kept = mine.clone()
                mine.copy_(its)
                its.copy_(kept)
