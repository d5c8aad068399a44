"""A discriminator that knows the predictions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...backbones import anatomy
from ._aligning import class_logits
from .dann import DANN

__all__ = ["CDAN"]


class CDAN(DANN):
    """As ``dann``, with a discriminator that sees features and predictions together.

    - **What it does**: the discriminator sees the outer product of features and softmax predictions, so that each class
      is aligned with itself.
    - **When it helps**: where ``dann`` mixes up classes.
    - **Cost**: as ``dann``; the discriminator's input is as many times wider as there are classes.
    - **Settings**: as ``dann``.
    - **What it cannot do**: work without class logits ``(B, C)``, so not for segmentation.

    References:
        Long, Cao, Wang, Jordan. Conditional adversarial domain adaptation. NeurIPS 2018.
    """

    needs = ("target", "classes")
    tasks = ("classification",)

    def inputs(self, network: nn.Module) -> int:
        """Features times classes."""
        return anatomy(network).features * self.context.classes

    def seen(self, features: Tensor, pred: Any) -> Tensor:
        """The outer product; no gradient flows through the predictions."""
        p = class_logits(pred, self).detach().float().softmax(1)
        return (p[:, :, None] * features[:, None].float()).flatten(1)
