"""The moving average of the weights of one training."""

from __future__ import annotations

from ignite.engine import Engine, Events

from ...utils import MonaiEngine, UserError
from ..average import Averaging

__all__ = ["EMA"]


class EMA(Averaging):
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

    def attach(self, engine: Engine) -> None:
        """Follow the weights after every step."""
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._follow)

    def _follow(self, engine: MonaiEngine) -> None:
        step, steps = engine.state.iteration, max(1.0, self.epochs * engine.state.epoch_length)
        self.follow(engine.network, max(1 / steps, 9 / (9 + step)))
