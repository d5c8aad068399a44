"""What strategies that weight images share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...utils import UserError
from ..base import Step, Strategy

__all__ = ["PerImage", "Weighting"]


class Weighting(Strategy):
    """Base of the strategies that weight the images' cross-entropies: ``mean(w l) = mean(l) + mean((w - 1) l)``."""

    tasks = ("classification",)

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """The weight of each image ``(B,)``, given its cross-entropy."""
        raise NotImplementedError

    def loss(self, step: Step) -> Tensor | None:
        """What weighting adds to the mean cross-entropy."""
        if step.pred.ndim != 2 or step.label.ndim != 1:
            raise UserError(f"{type(self).__name__} needs one class an image: leave out mix.")
        each = cross_entropy(step.pred.float(), step.label, reduction="none")
        return ((self.weights(step, each) - 1) * each).mean()


class PerImage(Weighting):
    """Base of the strategies with one weight for each training image, found by its place ``index`` in that part."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(0))

    def places(self, step: Step) -> Tensor:
        """Where in the training part the images of this batch stand, ``(B,)``."""
        if "index" not in step.batch:
            raise UserError(f"{type(self).__name__} needs each item's place in the training set, under the key index.")
        return torch.as_tensor(step.batch["index"]).to(self.table.device)

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """By image."""
        return self.table[self.places(step)]
