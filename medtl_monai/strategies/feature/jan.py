"""Features and predictions, jointly."""

from __future__ import annotations

from torch import Tensor

from ...losses import joint_mmd
from ..base import Step
from ..listening import FeatureStrategy
from ._aligning import class_logits

__all__ = ["JAN"]


class JAN(FeatureStrategy):
    """Make features and predictions of both domains equal in their joint distribution.

    - **What it does**: adds the joint maximum mean discrepancy of the head's features and the softmax predictions.
    - **When it helps**: as ``mmd``, where the classes must stay apart.
    - **Cost**: as ``mmd``.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``target_statistics``: false keeps the target out of
    batch
      norm.
    - **What it cannot do**: work without class logits ``(B, C)``, so not for segmentation.

    References:
        Long, Zhu, Wang, Jordan. Deep transfer learning with joint adaptation networks. ICML 2017.
    """

    needs = ("target",)
    tasks = ("classification",)

    def loss(self, step: Step) -> Tensor | None:
        """The joint discrepancy of this batch and the next target batch."""
        source = [self.features, class_logits(step.pred, self).softmax(1)]
        features, pred = self.on_target(step)
        return self.weight * joint_mmd(source, [features, pred.softmax(1)])
