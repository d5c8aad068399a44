"""Running a network on the most suspicious places of an image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.inferers import Inferer, SlidingWindowSplitter
from torch import Tensor

from ..utils import UserError

__all__ = ["SuspiciousPlaceInferer"]


class SuspiciousPlaceInferer(Inferer):
    """Logits of an image from its most suspicious places, for a network that was trained on crops or on maps.

    For a classifier that was trained on crops, the image is covered by square windows that overlap by half; a network
    that labels every pixel gives a map. The places, windows or pixels, whose logits speak most against the first, the
    healthy class, count: a lesion fills few of them.

    Args:
        size: side of a window in pixels; ``None``: the network gets the image as it is.
        lesion_map: whether the network labels every pixel.
        share: of the places, above 0 and at most 1, at least one; their logits are averaged. By default a tenth of the
            windows, or a hundredth of the pixels.
        compare_sides: the images are pairs of both sides, ``(B, 2 C, H, W)``, and the difference of their logits is
            given. Lesions have no counterpart in the same place, so each side has places of its own.

    Raises:
        UserError: ``share`` is out of range.
    """

    def __init__(
        self,
        size: int | None = None,
        lesion_map: bool = False,
        share: float | None = None,
        compare_sides: bool = False,
    ) -> None:
        super().__init__()
        self.share = (0.01 if lesion_map else 0.1) if share is None else share
        if not 0 < self.share <= 1:
            raise UserError(f"share must be above 0 and at most 1, got {share}.")
        self.lesion_map, self.compare_sides = lesion_map, compare_sides
        self.splitter = None if size is None else SlidingWindowSplitter((size, size), overlap=0.5, pad_mode="replicate")

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Logits ``(B, classes)`` of ``inputs`` ``(B, channels, H, W)``."""
        if self.splitter is None and not self.lesion_map:
            return network(inputs, *args, **kwargs)
        sides = inputs.chunk(2, 1) if self.compare_sides else [inputs]
        logits = [self._most(self._places(side, partial(network, *args, **kwargs))) for side in sides]
        return logits[0] - logits[1] if self.compare_sides else logits[0]

    def _places(self, image: Tensor, network: Callable[..., Tensor]) -> Tensor:
        """Logits of every place, ``(places, B, classes)``."""
        if self.splitter is None:
            return network(image).flatten(2).movedim(2, 0)
        return torch.stack([network(window) for window, _ in self.splitter(image)])

    def _most(self, logits: Tensor) -> Tensor:
        """The mean ``(B, classes)`` of the most suspicious of ``logits`` ``(places, B, classes)``."""
        suspicion = logits[..., 1:].logsumexp(-1) - logits[..., 0]
        most = suspicion.topk(max(1, round(self.share * len(logits))), dim=0).indices
        return logits.take_along_dim(most[..., None], 0).mean(0)
