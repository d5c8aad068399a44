"""What images go through on their way from a scanner, for whole batches: each function has one parameter an image.

Parameters are given, not drawn: :class:`~medtl_monai.transforms.AugmentBatch` draws them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

__all__ = ["bias_field", "blur", "erase", "low_resolution", "tone_curve"]


def blur(image: Tensor, amount: Tensor) -> Tensor:
    """``image`` ``(B, C, H, W)`` mixed with its 5 x 5 triangle-filtered self by ``amount`` ``(B,)`` in ``[0, 1]``."""
    smooth = avg_pool2d(avg_pool2d(pad(image, [2] * 4, mode="replicate"), 3, stride=1), 3, stride=1)
    return torch.lerp(image, smooth, _each(amount, image))


def low_resolution(image: Tensor, factor: float, chosen: Tensor) -> Tensor:
    """The ``chosen`` ``(B,)`` of ``image`` ``(B, C, H, W)`` as if taken with ``factor`` times the pixels per side."""
    if not chosen.any():
        return image
    size = image.shape[-2:]
    small = [max(1, round(factor * n)) for n in size]
    coarse = interpolate(image, small, mode="bilinear", antialias=True)
    return torch.where(_each(chosen, image) > 0, interpolate(coarse, size, mode="bilinear"), image)


def bias_field(image: Tensor, knots: Tensor) -> Tensor:
    """``image`` ``(B, C, H, W)`` times the exponential of a smooth field through ``knots`` ``(B, h, w)``."""
    field = interpolate(knots[:, None].to(image), image.shape[-2:], mode="bicubic", align_corners=True)
    return image * field.exp()


def tone_curve(image: Tensor, steps: Tensor) -> Tensor:
    """``image`` with values in ``[0, 1]`` through rising curves from 0 to 1, straight between equally spaced knots.

    It is MONAI's ``RandHistogramShift`` with one curve an image.

    Args:
        image: ``(B, C, H, W)``; values outside ``[0, 1]`` are clipped.
        steps: how much each curve rises from knot to knot, above 0, ``(B, K)``; their sum is scaled to 1.

    Example:
        >>> tone_curve(torch.tensor([[[[0.25, 0.5, 0.75]]]]), torch.tensor([[1.0, 3.0]])).tolist()
        [[[[0.125, 0.25, 0.625]]]]
    """
    count = steps.shape[1]
    heights = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(1)], 1).to(image)
    heights = heights / heights[:, -1:]
    place = image.clamp(0, 1) * count
    left = place.floor().clamp(max=count - 1)
    index = left.long().flatten(1)
    low, high = (heights.gather(1, i).view_as(image) for i in (index, index + 1))
    return torch.lerp(low, high, place - left)


def erase(image: Tensor, boxes: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
    """Fill one box in each of the ``chosen`` ``(B,)`` images with its value ``(B,)`` (random erasing, cutout).

    Args:
        image: ``(B, C, H, W)``.
        boxes: top, left, bottom, right as fractions of the sides, ``(B, 4)``.
        values: ``(B,)``.
        chosen: ``(B,)``, boolean.

    References:
        Zhong, Zheng, Kang, Li, Yang. Random erasing data augmentation. AAAI 2020.
    """
    height, width = image.shape[-2:]
    y = (torch.arange(height, device=image.device) + 0.5)[None, :, None] / height
    x = (torch.arange(width, device=image.device) + 0.5)[None, None, :] / width
    top, left, bottom, right = boxes.to(image)[:, :, None, None].unbind(1)
    inside = (y > top) & (y < bottom) & (x > left) & (x < right) & chosen.to(image.device)[:, None, None]
    return torch.where(inside[:, None], _each(values, image), image)


def _each(values: Tensor, image: Tensor) -> Tensor:
    return values.to(image).view(-1, 1, 1, 1)
