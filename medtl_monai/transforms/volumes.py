"""Volumes resampled on a CPU by looking voxels up: more than twice as fast as torch's ``grid_sample``, to four digits.

``grid_sample`` goes from voxel to voxel in 3D. Here whole planes of positions are worked out at once, and their
neighbours are looked up with ``index_select``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["look_up"]

SLAB = 2**16
"""Voxels that are worked on at once: what a CPU's cache holds."""


def look_up(
    image: Tensor, lines: Sequence[Tensor], *, mode: str, padding_mode: str, offsets: Tensor | None = None
) -> Tensor:
    """``image`` at positions that are the sum of one number along each axis of the output, and of ``offsets``.

    Args:
        image: floating point, ``(C, D, H, W)``.
        lines: for each axis of the output what it adds to the index along each axis of the image, ``(3, length)``.
        mode: ``bilinear`` (trilinear) or ``nearest``.
        padding_mode: what lies outside: ``zeros``, ``border`` or ``reflection``.
        offsets: in voxels of the image, added to the positions, ``(3, *output)``.

    Returns:
        ``(C, *output)``.

    Example:
        >>> index = [torch.zeros(3, n) for n in (1, 1, 2)]
        >>> index[2][2] = torch.tensor([0.0, 0.5])
        >>> look_up(torch.tensor([[[[1.0, 3.0]]]]), index, mode="bilinear", padding_mode="border").tolist()
        [[[[1.0, 2.0]]]]
    """
    size, sides = [line.shape[1] for line in lines], image.shape[1:]
    margin, linear = int(padding_mode == "zeros"), mode == "bilinear"
    far = margin + linear  # a voxel more to blend with
    image = pad(image[None], [margin, far] * 3, mode="constant" if margin else "replicate")[0]
    out = image.new_empty(len(image), *size)
    for planes in _slabs(size):
        places = _places(lines, planes, offsets)
        places = [_inside(place, side, padding_mode) for place, side in zip(places, sides, strict=True)]
        found = _blended(image, places, margin) if linear else _nearest(image, places, margin)
        out[:, planes] = found.view(len(image), -1, *size[1:])
    return out


def _slabs(size: Sequence[int]) -> Iterator[slice]:
    step = max(1, SLAB // max(1, size[1] * size[2]))
    for start in range(0, size[0], step):
        yield slice(start, start + step)


def _places(lines: Sequence[Tensor], planes: slice, offsets: Tensor | None) -> list[Tensor]:
    """Positions along each axis of the image, of the output's ``planes``."""
    deep, high, wide = lines
    places = [a[planes, None, None] + b[:, None] + c for a, b, c in zip(deep, high, wide, strict=True)]
    if offsets is not None:
        for place, offset in zip(places, offsets, strict=True):
            place.add_(offset[planes])
    return places


def _inside(place: Tensor, side: int, padding_mode: str) -> Tensor:
    """Positions brought to ``[0, side - 1]``, or one beyond where zeros are."""
    if padding_mode == "zeros":
        return place.clamp_(-1, side)
    if padding_mode == "reflection":  # at the voxels' outer edges
        place = (side - place.add_(0.5).remainder_(2 * side).sub_(side).abs_()).sub_(0.5)
    return place.clamp_(0, side - 1)


def _nearest(image: Tensor, places: list[Tensor], margin: int) -> Tensor:
    index = _index([place.round_().add_(margin) for place in places], image)
    return torch.stack([values.index_select(0, index) for values in image.flatten(1)])


def _blended(image: Tensor, places: list[Tensor], margin: int) -> Tensor:
    """The eight voxels around each place, weighted by how near they are along each axis."""
    corners = [place.floor() for place in places]
    deep, high, wide = (place.sub_(corner).view(-1) for place, corner in zip(places, corners, strict=True))
    first = _index([corner.add_(margin) for corner in corners], image)
    row, plane = image.shape[3], image.shape[2] * image.shape[3]

    def along(values: Tensor, start: int) -> Tensor:
        one, other = (values.index_select(0, first + shift) for shift in (start, start + 1))
        return one.lerp_(other, wide)

    def across(values: Tensor, start: int) -> Tensor:
        return along(values, start).lerp_(along(values, start + row), high)

    return torch.stack([across(values, 0).lerp_(across(values, plane), deep) for values in image.flatten(1)])


def _index(corners: list[Tensor], image: Tensor) -> Tensor:
    """Where voxels are in the flat ``image``."""
    kind = torch.int32 if image.numel() < 2**31 else torch.int64
    deep, high, wide = (corner.to(kind) for corner in corners)
    return deep.mul_(image.shape[2]).add_(high).mul_(image.shape[3]).add_(wide).view(-1)
