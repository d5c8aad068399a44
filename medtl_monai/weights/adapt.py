"""Weights of one shape into another: pure functions of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ..utils import UserError

__all__ = ["Inflation", "adapt_channels", "inflate", "map_rows"]

Inflation = Literal["mean", "centre"]


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    r"""Kernels ``(out, in, *kernel)`` for another number of input channels.

    The output for images whose channels are equal stays the same: :math:`\sum_j w'_j = \sum_i w_i`. To 1 channel the
    kernels are summed, so that :math:`\mathrm{conv}(x; w') = \mathrm{conv}((x, \dots, x); w)`. To fewer, the first
    ``channels`` are kept and the sum of the others is spread evenly over them. To more, the source's are repeated in
    turn: channel :math:`j` gets :math:`w_{j \bmod in}`, divided by how often that channel is used.

    Example:
        >>> w = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
        >>> adapt_channels(w, 1).flatten().tolist(), adapt_channels(w, 4).flatten().tolist()
        ([6.0], [0.5, 2.0, 3.0, 0.5])
    """
    inputs = weight.shape[1]
    if channels <= inputs:
        rest = weight[:, channels:].sum(1, keepdim=True) / channels
        return weight[:, :channels] + rest
    index = torch.arange(channels) % inputs
    uses = torch.bincount(index, minlength=inputs)[index]
    return weight[:, index] / uses.to(weight).view(1, -1, *[1] * (weight.ndim - 2))


def inflate(weight: Tensor, spatial_dims: int, mode: Inflation = "mean") -> Tensor:
    """Kernels ``(out, in, *kernel)`` with axes added in front of the kernel's, as long as its first.

    On an input that is constant along the new axes, a convolution gives the source's result in the interior, with
    either mode. (A transposed one with a stride does not: its taps are shared out over the output.)

    Args:
        weight: kernels of fewer dimensions.
        spatial_dims: number of kernel axes of the result.
        mode: ``mean`` repeats the kernel and divides by the length (Carreira and Zisserman, CVPR 2017: I3D);
            ``centre`` puts it in the middle, zero elsewhere.

    Example:
        >>> inflate(torch.full((1, 1, 3, 3), 6.0), 3)[0, 0, :, 0, 0].tolist()
        [2.0, 2.0, 2.0]
        >>> inflate(torch.full((1, 1, 3, 3), 6.0), 3, "centre")[0, 0, :, 0, 0].tolist()
        [0.0, 6.0, 0.0]
    """
    if mode not in ("mean", "centre"):
        raise ValueError(f"inflation must be 'mean' or 'centre', got {mode!r}.")
    while weight.ndim - 2 < spatial_dims:
        length = weight.shape[2]
        if mode == "mean":
            weight = weight.unsqueeze(2).repeat_interleave(length, 2) / length
        else:
            centre = weight.new_zeros(*weight.shape[:2], length, *weight.shape[2:])
            centre[:, :, length // 2] = weight
            weight = centre
    return weight


def map_rows(weight: Tensor, target: Tensor, rows: Mapping[int, int]) -> Tensor:
    """A copy of the head's ``target`` with its row ``i`` taken from row ``rows[i]`` of ``weight``.

    Raises:
        UserError: a row lies outside either tensor.

    Example:
        >>> map_rows(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(2), {0: 2}).tolist()
        [3.0, 0.0]
    """
    result = target.detach().clone()
    for i, j in rows.items():
        if not (0 <= i < len(target) and 0 <= j < len(weight)):
            raise UserError(
                f"class map {i}: {j} lies outside the {len(target)} classes here or the {len(weight)} of the source: "
                "give {class here: class of the source}, both from 0."
            )
        result[i] = weight[j].to(result)
    return result
