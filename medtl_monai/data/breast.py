"""Breast images made alike: the breast alone, with the chest wall on the left."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

__all__ = ["FaceBreastd", "face_breast"]

_GRID = 64  # cells a side in which the breast is looked for
_DARK = 0.1  # of the brightness of bright tissue; less is background


def face_breast(image: Tensor) -> Tensor:
    """A mammogram or tomosynthesis slice ``(C, H, W)`` cropped to the breast, which points to the right.

    The breast is the largest connected region above the background, so that labels, tape and the other side of a film
    fall away. Right breasts are mirrored: the side of the region that holds more tissue is the chest wall.
    """
    cells = adaptive_avg_pool2d(image[None].float(), _GRID).mean(1, keepdim=True)
    low, high = cells.min(), cells.flatten().quantile(0.95)
    inside = _largest(cells > low + _DARK * (high - low))[0, 0]
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    if not len(rows):
        return image
    (top, bottom), (left, right) = (
        (int(found[0]) * n // _GRID, -(-(int(found[-1]) + 1) * n // _GRID))
        for found, n in ((rows, image.shape[-2]), (columns, image.shape[-1]))
    )
    region = inside[:, columns[0] : columns[-1] + 1]
    half = max(1, region.shape[1] // 2)
    crop = image[..., top:bottom, left:right]
    return crop.flip(-1) if region[:, -half:].sum() > region[:, :half].sum() else crop


class FaceBreastd(MapTransform):
    """:func:`face_breast` for items; follows :class:`medtl_monai.data.ToSliced`."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, with cropped images that all face one way."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            meta = image.meta if isinstance(image, MetaTensor) else {}
            result[key] = MetaTensor(face_breast(torch.as_tensor(image)).contiguous(), meta=meta)
        return result


def _largest(mask: Tensor) -> Tensor:
    """The largest connected region of ``(1, 1, H, W)``."""
    names = torch.arange(1, mask.numel() + 1, dtype=torch.float32).view(mask.shape) * mask
    while True:  # the largest name of each region spreads
        spread = max_pool2d(names, 3, 1, 1) * mask
        if torch.equal(spread, names):
            break
        names = spread
    found, counts = names[names > 0].unique(return_counts=True)
    return names == found[counts.argmax()] if len(found) else mask
