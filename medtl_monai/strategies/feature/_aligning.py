"""What strategies that compare two domains share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...utils import UserError
from ..base import Step, Strategy
from ..listening import FeatureStrategy

__all__ = ["Aligning", "class_logits"]


class Aligning(FeatureStrategy):
    """Base of the strategies that compare the features of both domains."""

    needs = ("target",)

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Of two sets of features, ``(B, F)`` each."""
        raise NotImplementedError

    def loss(self, step: Step) -> Tensor | None:
        """The distance of this batch's features to the next target batch's."""
        source = self.features
        target, _ = self.on_target(step)
        return self.weight * self.distance(source, target)


def class_logits(pred: Any, strategy: Strategy) -> Tensor:
    if not isinstance(pred, Tensor) or pred.ndim != 2:
        raise UserError(f"{type(strategy).__name__} needs class logits (B, C), which this network does not give.")
    return pred
