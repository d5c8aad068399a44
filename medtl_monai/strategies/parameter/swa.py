"""The mean of the weights over the last epochs."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...utils import MonaiEngine, UserError, sum_over_processes, unwrap
from ...variants import adapt_batch_norm, domains_of
from ..average import Averaging

__all__ = ["SWA"]


class SWA(Averaging):
    r"""Average the weights of the last epochs, all alike: stochastic weight averaging.

    .. math:: \bar\theta_n = \bar\theta_{n-1} + \tfrac1n (\theta_n - \bar\theta_{n-1})

    with :math:`\theta_n` the weights at the end of the :math:`n`-th of these epochs.

    - **What it does**: training is as without it; at the end of each of the last epochs the network holds the mean of
      the weights so far, which is what is validated, chosen and saved. Batch-norm statistics are measured anew for
      them, on the epoch's last batches.
    - **When it helps**: where the learning rate stays high to the end, a flatter and often better place than its last
      step; ``ema`` follows sooner and serves every epoch.
    - **Cost**: a copy of the weights; ``batches`` batches are kept and sent through the network once more an epoch.
    - **Settings**: ``start`` in [0, 1): the share of the epochs before the first that counts; 0 counts all, near 1 the
      last alone. ``batches`` 1 or more: few are noisy, more than an epoch has are all of them.
    - **What it cannot do**: improve the end of a schedule that has gone to zero: the last weights are alike.

    References:
        Izmailov, Podoprikhin, Garipov, Vetrov, Wilson. Averaging weights leads to wider optima and better
        generalization. UAI 2018.
    """

    count: Tensor

    def __init__(self, start: float = 0.75, batches: int = 10) -> None:
        super().__init__()
        if not 0 <= start < 1 or batches < 1:
            raise UserError(f"swa: start in [0, 1), batches 1 or more; got {start}, {batches}.")
        self.start, self.batches = start, batches
        self.register_buffer("count", torch.tensor(0))
        self._seen: list[Tensor] = []
        self._moving: list[_BatchNorm] = []

    def attach(self, engine: Engine) -> None:
        """Keep the last batches, too."""
        super().attach(engine)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._look)

    def prepare(self, network: nn.Module) -> nn.Module:
        """Copy the weights.

        Raises:
            UserError: batch norm has statistics of each domain, and what is measured is not told the domain.
        """
        if domains_of(network):
            raise UserError("swa cannot measure norm domain anew: take another norm, or ema.")
        return super().prepare(network)

    def on_epoch(self, network: nn.Module, epoch: int) -> None:
        """Begin to count, and to look."""
        self._seen, self._moving = [], []
        if epoch == 1:
            self.count.zero_()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": [], "_moving": []}  # a copy has seen nothing

    def _look(self, engine: MonaiEngine) -> None:
        """Keep what batch norm saw, and which of it moves: frozen ones do not."""
        if self._counts(engine):
            self._seen = [*self._seen, engine.state.output["image"]][-self.batches :]
            self._moving = [m for m in unwrap(engine.network).modules() if isinstance(m, _BatchNorm) and m.training]

    def _end(self, engine: MonaiEngine) -> None:
        if not self._counts(engine):
            return
        self.count += 1
        self.follow(engine.network, 1 / self.count.item())
        self.exchange(engine.network)
        if any(layer.track_running_stats for layer in self._moving):
            adapt_batch_norm(unwrap(engine.network), self._seen, layers=self._moving)
            self._agree()
        self._seen, self._moving = [], []

    def _counts(self, engine: MonaiEngine) -> bool:
        return engine.state.epoch > self.start * engine.state.max_epochs

    def _agree(self) -> None:
        """Average the statistics over the processes of a training."""
        found: list[Tensor] = [b for m in self._moving for b in (m.running_mean, m.running_var) if b is not None]
        processes = sum_over_processes(*found)
        for value in found if processes > 1 else ():
            value.div_(processes)
