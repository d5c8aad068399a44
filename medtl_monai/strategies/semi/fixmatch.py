"""Sure predictions are labels of augmented images."""

from __future__ import annotations

from .pseudo_label import PseudoLabel

__all__ = ["FixMatch"]


class FixMatch(PseudoLabel):
    """Train on strongly augmented images with the labels that the network gives the plain ones.

    - **What it does**: as ``pseudo_label``, the prediction being made on the plain image and learnt on an augmented
    one,
      at full weight from the start.
    - **When it helps**: many more images than labels; the stronger the augmentation, the more.
    - **Cost**: two forward passes and a backward pass more a step.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``threshold`` in [0, 1): 0 takes all, near 1 nearly none.
    - **What it cannot do**: train segmentation, where the augmented image's places differ from the plain one's.

    References:
        Sohn, Berthelot, Carlini et al. FixMatch: simplifying semi-supervised learning with consistency and confidence.
        NeurIPS 2020.
    """

    tasks = ("classification",)
    views = ("plain", "augmented")

    def __init__(self, weight: float = 1.0, threshold: float = 0.95) -> None:
        super().__init__(weight, threshold)

    def strength(self, progress: float) -> float:
        """Always full."""
        return 1.0
