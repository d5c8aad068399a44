"""Images that are right already count less."""

from __future__ import annotations

from torch import Tensor

from ...utils import UserError
from ..base import Step
from ._weighting import Weighting

__all__ = ["Focal"]


class Focal(Weighting):
    """Let images that are right already count less.

    .. math:: w_i = (1 - p_{y_i})^\\gamma

    - **What it does**: the cross-entropy of each image is scaled by its own error.
    - **When it helps**: many easy images and few hard ones.
    - **Cost**: none.
    - **Settings**: ``gamma`` in [0, inf): 0 is ``finetune``, large looks at the worst images alone.
    - **What it cannot do**: tell hard images from wrong labels. A label smoothing of the task's loss stays unweighted.

    References:
        Lin, Goyal, Girshick, He, Dollar. Focal loss for dense object detection. ICCV 2017.
    """

    cached = "beside"

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if gamma < 0:
            raise UserError(f"focal: gamma must be 0 or more, got {gamma}.")
        self.gamma = gamma

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """By the image's own error."""
        return (1 - (-each).exp()).clamp_min(0) ** self.gamma
