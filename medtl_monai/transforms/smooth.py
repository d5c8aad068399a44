"""Smooth things: images under a Gaussian, and deformations through control points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .geometry import per_axis

__all__ = ["control_offsets", "control_points", "gaussian_smooth"]


def gaussian_smooth(image: Tensor, sigma: Tensor, truncated: float = 4.0) -> Tensor:
    """``image`` ``(n, C, *spatial)`` under a Gaussian of ``sigma`` ``(n, dims)`` pixels along each axis; 0 outside.

    The kernel is integrated over each pixel and cut ``truncated`` sigmas from its centre, as in MONAI's
    ``GaussianFilter``.
    """
    operators = []
    for axis, length in enumerate(image.shape[2:]):
        width = sigma[:, axis, None, None].double()
        distance = (torch.arange(length)[:, None] - torch.arange(length)).double()
        kernel = (torch.erf((distance + 0.5) / (2**0.5 * width)) - torch.erf((distance - 0.5) / (2**0.5 * width))) / 2
        tail = (truncated * width).clamp_min(0.5).add(0.5).floor()
        operators.append(torch.where(distance.abs() <= tail, kernel, 0.0))
    return per_axis(image, operators)


def control_points(length: int, spacing: float) -> int:
    """How many control points lie around an axis of ``length`` pixels: MONAI's ``create_control_grid``."""
    even = length % 2 == 0
    return 2 * math.ceil((length - 1) / (2 * spacing) + 0.5 * even) + 3 - even


def control_offsets(noise: Tensor, size: Sequence[int], spacing: Sequence[float]) -> Tensor:
    """Offsets of control points, ``(n, dims, *points)``, brought to every pixel of ``size`` by cubic splines.

    The points lie ``spacing`` pixels apart along each axis, around the image's centre, as in MONAI's ``Rand2DElastic``.
    That one interpolates the points' positions too, which its splines bend by up to 5% of the spacing.
    """
    operators = []
    for points, length, step in zip(noise.shape[2:], size, spacing, strict=True):
        wide = int(points * step)
        unit = torch.eye(points)[None, :, None]  # each point alone is a line of an image
        cubic = interpolate(unit, [1, wide], mode="bicubic", align_corners=False)[0, :, 0]
        start = wide // 2 - length // 2
        operators.append(cubic[:, start : start + length].mT[None])
    return per_axis(noise, operators)
