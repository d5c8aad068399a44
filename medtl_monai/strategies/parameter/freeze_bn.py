"""Batch-norm statistics stand still."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...utils import UserError
from ._freezing import Holding

__all__ = ["FreezeBN"]


class FreezeBN(Holding):
    """Keep the source's batch-norm statistics; combine it with a strategy that trains.

    - **What it does**: batch norm normalizes with the running statistics of the source in training too, as it does at
      inference; they stand still exactly, while its scale and shift are trained as the rest.
    - **When it helps**: small batches, few images and short trainings, where statistics of the new images are noisy.
    - **Cost**: less than ``finetune``: no statistics are computed.
    - **What it cannot do**: follow a large change of intensities; give it images on the source's scale.

    References:
        He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016 (detection: frozen batch norm).
    """

    cached = "beside"

    def held(self, network: nn.Module) -> Iterable[nn.Module]:
        """All batch norm."""
        return (module for module in network.modules() if isinstance(module, _BatchNorm))

    def prepare(self, network: nn.Module) -> nn.Module:
        """Hold batch norm from now on.

        Raises:
            UserError: the network has none.
        """
        if not any(True for _ in self.held(network)):
            raise UserError(f"freeze_bn: {type(network).__name__} has no batch norm: leave freeze_bn out.")
        self.hook(network)
        return network
