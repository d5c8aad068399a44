"""Weak directions of the features are suppressed."""

from __future__ import annotations

import torch
from torch import Tensor

from ...losses import batch_spectral_shrinkage
from ...utils import UserError
from ..base import Step
from ..listening import FeatureStrategy

__all__ = ["BSS"]


class BSS(FeatureStrategy):
    """Suppress the weakest directions of each batch's features, which tend not to be transferable.

    - **What it does**: adds the squares of the ``count`` smallest singular values of the features.
    - **When it helps**: few images, against negative transfer; composes with any penalty.
    - **Cost**: a singular value decomposition of a batch of features a step.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``count`` from 1 to the batch: all suppresses everything.
    - **What it cannot do**: tell a weak direction that matters from one that does not.

    References:
        Chen, Wang, Fu, Long, Wang. Catastrophic forgetting meets negative transfer: batch spectral shrinkage for safe
        transfer learning. NeurIPS 2019.
    """

    needs_source = True

    def __init__(self, weight: float = 1e-3, count: int = 1) -> None:
        super().__init__(weight)
        if count < 1:
            raise UserError(f"bss: count must be 1 or more, got {count}.")
        self.count = count

    def loss(self, step: Step) -> Tensor | None:
        """Of this batch's features."""
        with torch.autocast(step.image.device.type, enabled=False):
            return self.weight * batch_spectral_shrinkage(self.features, self.count)
