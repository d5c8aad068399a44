"""Running a network on several views of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.inferers import Inferer, SimpleInferer
from torch import Tensor
from torch.nn.functional import interpolate

from ..utils import UserError

__all__ = ["MultiViewInferer"]


class MultiViewInferer(Inferer):
    """Logits averaged over mirrored and enlarged copies of each image.

    Each view errs differently, and what all views agree on is the class rather than a habit of one patient's images.
    Logits of places (segmentation) are laid back over the image first: mirrored again and resized to its size.
    Augmented training images are resampled and so a little blurred; networks that pool globally may do better when they
    see test images somewhat larger than those.

    Args:
        scales: factors of the image's size along all its axes, a stack's slices too, above 0; 1 alone leaves it as it
            is.
        mirrors: spatial axes along which the copies are mirrored, for each a list: ``[[], [1]]`` is the image and, in
            2D, its left-right mirror image.
        inferer: what runs the network on a view, such as MONAI's ``SliceInferer``; on the whole view without it.

    Raises:
        UserError: no scale, or one that is not above 0, or no list of axes.

    References:
        Krizhevsky, Sutskever, Hinton. ImageNet classification with deep convolutional neural networks. NeurIPS 2012
        (section 4.1). Touvron, Vedaldi, Douze, Jegou. Fixing the train-test resolution discrepancy. NeurIPS 2019.
    """

    def __init__(
        self,
        scales: Sequence[float] = (1.0,),
        mirrors: Sequence[Sequence[int]] = ((),),
        inferer: Inferer | None = None,
    ) -> None:
        super().__init__()
        if not scales or min(scales) <= 0:
            raise UserError(f"inferer: scales must be numbers above 0, got {list(scales)}.")
        if not mirrors or any(axis not in (0, 1, 2) for axes in mirrors for axis in axes):
            raise UserError(f"inferer: mirrors must be lists of axes (0, 1, 2), such as [[], [1]]; got {mirrors}.")
        self.scales, self.mirrors = tuple(scales), tuple(tuple(axes) for axes in mirrors)
        self.inferer = inferer or SimpleInferer()

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Average logits ``(B, C)``, or ``(B, C, *spatial)``, of ``inputs`` ``(B, channels, *spatial)``."""
        total: Any = 0.0
        for scale in self.scales:
            view = _resized(inputs, [round(scale * side) for side in inputs.shape[2:]])
            for axes in self.mirrors:
                dims = [axis + 2 for axis in axes]
                logits = self.inferer(view.flip(dims), network, *args, **kwargs)
                if logits.ndim == inputs.ndim:
                    logits = _resized(logits.flip(dims), inputs.shape[2:])
                total = total + logits
        return total / (len(self.scales) * len(self.mirrors))


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(size) == tuple(x.shape[2:]):
        return x
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[x.ndim]
    return interpolate(x, size=tuple(size), mode=mode, align_corners=False)
