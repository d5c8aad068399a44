"""Inference at several sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor
from torch.nn.functional import interpolate

from ..utils import UserError

__all__ = ["MultiScaleInferer"]


class MultiScaleInferer(Inferer):
    """Logits averaged over enlarged copies of each image.

    Augmented training images are resampled and so a little blurred; networks that pool globally do better when they
    see test images somewhat larger than those, and the sizes err differently.

    Args:
        scales: factors of the image's size, above 0; 1 alone is plain inference.

    Raises:
        UserError: no scale, or one that is not above 0.

    References:
        Touvron, Vedaldi, Douze, Jegou. Fixing the train-test resolution discrepancy. NeurIPS 2019.
    """

    def __init__(self, scales: Sequence[float] = (1.0, 1.15, 1.3)) -> None:
        super().__init__()
        if not scales or min(scales) <= 0:
            raise UserError(f"inferer: scales must be numbers above 0, got {list(scales)}.")
        self.scales = tuple(scales)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Average logits ``(B, C)`` of ``inputs`` ``(B, channels, *spatial)``."""
        mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[inputs.ndim]
        logits = [
            network(
                inputs if s == 1 else interpolate(inputs, scale_factor=s, mode=mode, align_corners=False),
                *args,
                **kwargs,
            )
            for s in self.scales
        ]
        return torch.stack(logits).mean(0)
