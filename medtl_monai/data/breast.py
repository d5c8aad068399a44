"""Breast images made alike: the breast alone, with the chest wall on the left, and beside it the other breast."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

from .dicom import header, split_frame

__all__ = ["FaceBreastd", "JoinSidesd", "face_breast", "pair_sides"]

_GRID = 64  # cells a side in which the breast is looked for
_DARK = 0.1  # of the brightness of bright tissue; less is background


def face_breast(image: Tensor) -> Tensor:
    """A mammogram or tomosynthesis slice ``(C, H, W)`` cropped to the breast, which points to the right.

    The breast is the largest connected region above the background, so that labels, tape and the other side of a film
    fall away. Right breasts are mirrored: the side of the region that holds more tissue is the chest wall.
    """
    cells = _cells(image[None].float()).mean(1, keepdim=True)
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


class JoinSidesd(MapTransform):
    """The image and, as further channels, the item's ``other`` side, itself where there is none; if ``compare``.

    For the networks of :func:`medtl_monai.backbones.compare_sides`.
    """

    def __init__(self, keys: Sequence[Hashable] | Hashable, compare: bool = True) -> None:
        super().__init__(keys)  # type: ignore[arg-type]
        self.compare = compare

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, without ``other``."""
        result = dict(data)
        other = result.pop("other", None)
        for key in self.key_iterator(result) if self.compare else ():
            result[key] = torch.cat([result[key], result[key] if other is None else other])
        return result


def pair_sides(items: Sequence[Mapping[str, Any]], views: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items with ``other``, the image of the patient's other breast in the same view, where there is one.

    Slices of tomosynthesis get the slice at the same relative depth.

    Args:
        items: with ``image``, ``patient`` and ``laterality`` (L or R), and ``study`` and ``view`` where they are known.
        views: all images of these patients, of which the others are taken; as ``items``, files without a slice.
    """
    files = {_view(view): view["image"] for view in views}
    paired = []
    for item in items:
        patient, study, view, side = _view(item)
        other = files.get((patient, study, view, {"L": "R", "R": "L"}.get(side, "unknown")))
        if other is not None:
            file, number = split_frame(item["image"])
            if number is not None:
                depth = number / max(1, header(file).frames - 1)
                other = f"{other}#{round(depth * (header(other).frames - 1))}"
        paired.append({**item, "other": other} if other is not None else dict(item))
    return paired


def _view(item: Mapping[str, Any]) -> tuple[Any, ...]:
    side = item.get("laterality")
    view = str(item.get("view", "")).lower()
    return item.get("patient"), item.get("study"), view.removeprefix(str(side).lower()), side


def _cells(image: Tensor) -> Tensor:
    """Means of a grid; of columns that lie one after the other, as they do in slices just read, without a copy."""
    turned = image.mT.is_contiguous()
    cells = adaptive_avg_pool2d(image.mT if turned else image, _GRID)
    return cells.mT if turned else cells


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
