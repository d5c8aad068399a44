"""Feature norms that grow."""

from __future__ import annotations

from torch import Tensor

from ...losses import feature_norm
from ...utils import UserError
from ..base import Step
from ..listening import FeatureStrategy

__all__ = ["AFN"]


class AFN(FeatureStrategy):
    """Let the norms of both domains' features grow step by step, as well transferable features have larger norms.

    - **What it does**: adds the squared distance of each feature vector's norm from its own value plus ``step``.
    - **When it helps**: as ``mcc``; the target's features tend to be short.
    - **Cost**: a second forward and backward pass.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``step`` above 0: how fast norms grow;
      ``target_statistics``: false keeps the target out of batch norm.
    - **What it cannot do**: align the domains' classes by itself.

    References:
        Xu, Li, Yang, Lin. Larger norm more transferable: an adaptive feature norm approach. ICCV 2019.
    """

    needs = ("target",)

    def __init__(self, weight: float = 0.05, step: float = 1.0, target_statistics: bool = True) -> None:
        super().__init__(weight, target_statistics)
        if step <= 0:
            raise UserError(f"afn: step must be above 0, got {step}.")
        self.step = step

    def loss(self, step: Step) -> Tensor | None:
        """Of this batch and the next target batch."""
        source = self.features
        target, _ = self.on_target(step)
        return self.weight * (feature_norm(source, self.step) + feature_norm(target, self.step))
