"""Both domains' covariances."""

from __future__ import annotations

from torch import Tensor

from ...losses import coral
from ._aligning import Aligning

__all__ = ["CORAL"]


class CORAL(Aligning):
    """Make the covariances of both domains' features equal (Deep CORAL).

    - **What it does**: adds the squared distance of the covariance matrices of the head's features.
    - **When it helps**: as ``mmd``; cheaper and with nothing to tune, when the shift is mostly one of contrast.
    - **Cost**: a second forward and backward pass, of the target's images.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``, too large makes the features constant;
      ``target_statistics``: false keeps the target out of batch norm.
    - **What it cannot do**: see a shift of the mean.

    References:
        Sun, Saenko. Deep CORAL: correlation alignment for deep domain adaptation. ECCV workshops 2016.
    """

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Squared distance of the covariances."""
        return coral(source, target)
