"""Sure predictions are labels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...utils import UserError
from ..base import Step, Strategy
from ._consistency import Still, two_views
from .mean_teacher import ramp_up

__all__ = ["PseudoLabel"]


class PseudoLabel(Strategy):
    """Train on the network's own sure predictions of images without labels.

    - **What it does**: adds the cross-entropy of the most probable class where its probability is at least
      ``threshold``, more so as training goes on.
    - **When it helps**: many more images than labels, and a first model that is good already.
    - **Cost**: two forward passes and a backward pass more a step.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``threshold`` in [0, 1): 0 takes all, near 1 nearly none.
    - **What it cannot do**: unlearn a mistake of which it is sure.

    References:
        Lee. Pseudo-label: the simple and efficient semi-supervised learning method. ICML workshops 2013.
    """

    needs = ("target",)
    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation")
    views = ("augmented", "augmented")

    def __init__(self, weight: float = 1.0, threshold: float = 0.9) -> None:
        super().__init__()
        if weight < 0 or not 0 <= threshold < 1:
            raise UserError(f"{type(self).__name__}: weight 0 or more, threshold in [0, 1); got {weight}, {threshold}.")
        self.weight, self.threshold = weight, threshold

    def strength(self, progress: float) -> float:
        """Factor of the loss at this point of the training."""
        return ramp_up(progress)

    def loss(self, step: Step) -> Tensor | None:
        """Cross-entropy of the sure predictions, over all images."""
        easy, hard = two_views(self, self.views)
        with torch.no_grad(), Still(step.network):
            sure, label = step.network(easy).float().softmax(1).max(1)
        each = cross_entropy(step.network(hard).float(), label, reduction="none")
        return self.weight * self.strength(step.progress) * (each * (sure >= self.threshold)).mean()
