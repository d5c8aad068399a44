"""Predictions on the target that confuse no classes."""

from __future__ import annotations

from torch import Tensor

from ...losses import minimum_class_confusion
from ...utils import UserError
from ..base import Step
from ..listening import FeatureStrategy
from ._aligning import class_logits

__all__ = ["MCC"]


class MCC(FeatureStrategy):
    """Make the predictions on the target domain unambiguous between classes.

    - **What it does**: adds the minimum class confusion of the target's predictions.
    - **When it helps**: a target without labels, of any kind of shift; it aligns nothing and adds no network.
    - **Cost**: a second forward and backward pass.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``temperature`` above 0: softens the predictions;
      ``target_statistics``: false keeps the target out of batch norm.
    - **What it cannot do**: correct a class that is wrong from the start; not for segmentation.

    References:
        Jin, Wang, Long, Wang. Minimum class confusion for versatile domain adaptation. ECCV 2020.
    """

    needs = ("target",)
    tasks = ("classification",)

    def __init__(self, weight: float = 1.0, temperature: float = 2.5, target_statistics: bool = True) -> None:
        super().__init__(weight, target_statistics)
        if temperature <= 0:
            raise UserError(f"mcc: temperature must be above 0, got {temperature}.")
        self.temperature = temperature

    def loss(self, step: Step) -> Tensor | None:
        """The confusion of the next target batch."""
        _, pred = self.on_target(step)
        return self.weight * minimum_class_confusion(class_logits(pred, self), self.temperature)
