"""Batch-norm statistics of the target."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...utils import MonaiEngine, UserError, unwrap
from ...variants import adapt_batch_norm
from ..base import Strategy

__all__ = ["AdaBN"]


class AdaBN(Strategy):
    """Give batch norm the statistics of the target domain.

    - **What it does**: after every epoch the running statistics are measured anew on images of the target domain; the
      training itself, which uses each batch's own, is as in ``finetune``. Validation then runs as on the target.
    - **When it helps**: another scanner or protocol; a handful of batches without labels is enough.
    - **Cost**: a forward pass over ``batches`` batches an epoch.
    - **Settings**: ``batches``: how many are measured (1: noisy; more than the target has: some are seen again).
    - **What it cannot do**: help a network without batch norm, or with frozen statistics.

    References:
        Li, Wang, Shi, Hou, Liu. Revisiting batch normalization for practical domain adaptation. 2016.
    """

    needs = ("target",)
    measures = True

    def __init__(self, batches: int = 10) -> None:
        super().__init__()
        if batches < 1:
            raise UserError(f"adabn: batches must be 1 or more, got {batches}.")
        self.batches = batches

    def prepare(self, network: nn.Module) -> nn.Module:
        """Check that there is something to measure.

        Raises:
            UserError: the network has no batch norm.
        """
        if not any(isinstance(module, _BatchNorm) for module in network.modules()):
            raise UserError(f"adabn: {type(unwrap(network)).__name__} has no batch norm: choose another strategy.")
        return network

    def attach(self, engine: Engine) -> None:
        """Measure when an epoch ends, before the validation that follows."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._measure)

    def _measure(self, engine: MonaiEngine) -> None:
        target = self.context.target
        assert target is not None, "bind comes first"
        adapt_batch_norm(unwrap(engine.network), (target.next("plain")[0] for _ in range(self.batches)))
