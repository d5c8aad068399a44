"""Weights of one shape into another: pure functions of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..utils import UserError

__all__ = [
    "Inflation",
    "adapt_channels",
    "flatten_axes",
    "inflate",
    "map_rows",
    "match_classes",
    "resize_kernel",
    "turn_axes",
]

Inflation = Literal["mean", "centre", "acs"]


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


def inflate(weight: Tensor, spatial_dims: int, mode: Inflation = "centre", *, length: int | None = None) -> Tensor:
    """Kernels ``(out, in, *kernel)`` with axes added in front of the kernel's.

    On an input that is constant along the new axes, a convolution gives the source's result in the interior, with
    ``mean`` and ``centre``. (A transposed one with a stride does not: its taps are shared out over the output.)

    Args:
        weight: kernels of fewer dimensions.
        spatial_dims: number of kernel axes of the result.
        mode: ``centre`` puts the kernel in the middle, zero elsewhere; ``mean`` repeats it and divides by the length
            (Carreira and Zisserman, CVPR 2017: I3D); ``acs``, from square kernels to 3D alone, puts it in the axial,
            the coronal and the sagittal plane, for a third of the output channels each: the outputs are those of the
            three ACS convolutions of Yang et al. (IEEE JBHI 2021), and the zeros learn too; other kernels are put in
            the middle.
        length: of the new axes; default: as long as the kernel's first.

    Raises:
        ValueError: another ``mode``.

    Example:
        >>> inflate(torch.full((1, 1, 3, 3), 6.0), 3, "mean")[0, 0, :, 0, 0].tolist()
        [2.0, 2.0, 2.0]
        >>> inflate(torch.full((1, 1, 3, 3), 6.0), 3)[0, 0, :, 0, 0].tolist()
        [0.0, 6.0, 0.0]
    """
    if mode not in ("mean", "centre", "acs"):
        raise ValueError(f"inflation must be 'mean', 'centre' or 'acs', got {mode!r}.")
    if mode == "acs" and spatial_dims == 3 and weight.ndim == 4 and len({*weight.shape[2:], length} - {None}) == 1:
        third = inflate(weight, 3, "centre").tensor_split(3)
        return torch.cat([part.movedim(2, axis) for axis, part in enumerate(third, 2)])
    while weight.ndim - 2 < spatial_dims:
        n = length or weight.shape[2]
        if mode == "mean":
            weight = weight.unsqueeze(2).repeat_interleave(n, 2) / n
        else:
            centre = weight.new_zeros(*weight.shape[:2], n, *weight.shape[2:])
            centre[:, :, n // 2] = weight
            weight = centre
    return weight


def flatten_axes(weight: Tensor, spatial_dims: int) -> Tensor:
    """Kernels ``(out, in, *kernel)`` of fewer dimensions: the first axes are summed, which undoes :func:`inflate`.

    On a volume that is constant along those axes the result stays the same in the interior.

    Example:
        >>> flatten_axes(torch.ones(1, 1, 3, 2, 2), 2).flatten().tolist()
        [3.0, 3.0, 3.0, 3.0]
    """
    return weight.sum(tuple(range(2, weight.ndim - spatial_dims))) if weight.ndim - 2 > spatial_dims else weight


def turn_axes(weight: Tensor, axes: str, wanted: str = "XYZ") -> Tensor:
    """Kernels ``(out, in, *kernel)`` of three axes in another order: the same function of a volume turned alike.

    A network ``f`` that takes volumes of the order ``axes`` and its turned twin ``g`` agree:
    ``g(x) == f(x.permute(...))`` for volumes ``x`` of the order ``wanted``. Weights of fewer axes stay as they are.

    Args:
        weight: of a layer.
        axes: the source's order, such as ``ZXY``.
        wanted: the order here.

    Raises:
        UserError: ``axes`` is no order of X, Y and Z.

    Example:
        >>> turn_axes(torch.zeros(8, 1, 1, 5, 7), "ZXY").shape
        torch.Size([8, 1, 5, 7, 1])
    """
    if sorted(axes) != ["X", "Y", "Z"]:
        raise UserError(f"axes must be X, Y and Z in the order of the weights' kernels, such as ZYX, got {axes!r}.")
    return weight.permute(0, 1, *(2 + axes.index(axis) for axis in wanted)) if weight.ndim == 5 else weight


def resize_kernel(weight: Tensor, size: Sequence[int]) -> Tensor:
    """Kernels ``(out, in, *kernel)`` with axes of another ``size``.

    A longer axis gets zeros on both sides, the odd one at the end: the same function, where the padding grows with it.
    To a shorter one, each tap gives to the new ones in the proportion in which it covers them: the sum of each kernel
    stays, and with it the answer to a constant image.

    Example:
        >>> resize_kernel(torch.tensor([[[1.0, 2.0, 3.0]]]), [5]).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0, 0.0]
        >>> resize_kernel(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), [2]).flatten().tolist()
        [3.0, 7.0]
    """
    for axis, n in enumerate(size, 2):
        old = weight.shape[axis]
        if n > old:
            before = (n - old) // 2
            padded = weight.new_zeros(*weight.shape[:axis], n, *weight.shape[axis + 1 :])
            padded.narrow(axis, before, old).copy_(weight)
            weight = padded
        elif n < old:
            edges, taps = torch.linspace(0, old, n + 1)[:, None], torch.arange(old)
            shares = (edges[1:].minimum(taps + 1) - edges[:-1].maximum(taps)).clamp(min=0).to(weight)
            weight = (weight.movedim(axis, -1) @ shares.T).movedim(-1, axis)
    return weight


def match_classes(here: Sequence[str], source: Sequence[str]) -> dict[int, int]:
    """Row here to row of the source for classes of the same name; case, spaces, hyphens and underscores do not count.

    A row of the source without a name was never trained, and is no class's.

    Example:
        >>> match_classes(["normal", "pleural thickening"], ["Edema", "Pleural_Thickening"])
        {1: 1}
    """
    rows = {_plain(name): i for i, name in enumerate(source) if name}
    return {i: rows[_plain(name)] for i, name in enumerate(here) if _plain(name) in rows}


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "").replace("_", "").replace("-", "")


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
