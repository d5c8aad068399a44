"""What the penalties on weights share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...utils import UserError
from ..base import Step, Strategy

__all__ = ["Penalty"]


class Penalty(Strategy):
    """Base of L1 and L2: a norm of the trained weights, biases and norm parameters (one axis) left out."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise UserError(f"{type(self).__name__}: weight must be 0 or more, got {weight}.")
        self.weight = weight

    def loss(self, step: Step) -> Tensor | None:
        """The penalty, or ``None`` when no weight is trained."""
        weights = [p for p in step.network.parameters() if p.requires_grad and p.ndim > 1]
        return self.weight * self.norm(weights) if weights else None

    def norm(self, weights: Sequence[Tensor]) -> Tensor:
        """The norm that is penalized."""
        raise NotImplementedError
