"""Moving images: matrices for each image, and one resampling under them.

A matrix leads from positions in the output to positions in the input, both in pixels from the image's centre, in the
order of the array's axes: the convention of MONAI's ``Affine``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .volumes import look_up

__all__ = ["chunks", "per_axis", "resample", "rotation", "scaling", "shearing", "translation"]

CHUNK = 2**18
"""Elements that are worked on at once on a CPU: what its cache holds."""


def rotation(angles: Tensor, dims: int) -> Tensor:
    """Turn by ``angles`` in radians, ``(n, 1)`` in 2D, about the three axes in turn, ``(n, 3)``, in 3D.

    Returns:
        ``(n, dims + 1, dims + 1)``, as MONAI's ``create_rotate``.
    """
    planes = [(0, 1)] if dims == 2 else [(1, 2), (2, 0), (0, 1)]
    matrix = _eye(len(angles), dims)
    for (i, j), angle in zip(planes, angles.double().T, strict=True):
        turn = _eye(len(angles), dims)
        turn[:, i, i] = turn[:, j, j] = angle.cos()
        turn[:, i, j], turn[:, j, i] = -angle.sin(), angle.sin()
        matrix = matrix @ turn
    return matrix


def scaling(factors: Tensor) -> Tensor:
    """Positions times ``factors`` ``(n, dims)``: above 1 shrinks the picture, as MONAI's ``scale_params``."""
    return torch.diag_embed(torch.cat([factors, torch.ones_like(factors[:, :1])], 1).double())


def translation(offsets: Tensor) -> Tensor:
    """Positions plus ``offsets`` ``(n, dims)``, in pixels."""
    matrix = _eye(len(offsets), offsets.shape[1])
    matrix[:, :-1, -1] = offsets
    return matrix


def shearing(coefficients: Tensor, dims: int) -> Tensor:
    """Shears between each ordered pair of axes in turn, ``(n, dims * (dims - 1))``, as MONAI's ``create_shear``."""
    matrix = _eye(len(coefficients), dims)
    pairs = [(i, j) for i in range(dims) for j in range(dims) if i != j]
    for (i, j), amount in zip(pairs, coefficients.T, strict=True):
        shear = _eye(len(coefficients), dims)
        shear[:, i, j] = amount
        matrix = shear @ matrix
    return matrix


def per_axis(image: Tensor, operators: Sequence[Tensor | None]) -> Tensor:
    """A matrix times every line of ``image`` ``(n, C, *spatial)`` along each spatial axis.

    Args:
        image: ``(n, C, *spatial)``.
        operators: for each axis ``(n or 1, new length, length)``, or ``None`` for no change.
    """
    for axis, operator in enumerate(operators, start=2):
        if operator is None:
            continue
        shape, each = image.shape, operator.to(image)
        if axis == image.ndim - 1:
            out = image.flatten(1, -2) @ each.mT
        else:
            out = each[:, None] @ image.flatten(axis + 1).flatten(1, axis - 1)
        image = out.reshape(*shape[:axis], -1, *shape[axis + 1 :])
    return image


def resample(
    image: Tensor,
    matrices: Tensor,
    size: Sequence[int] | None = None,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    offsets: Tensor | None = None,
    bent: Sequence[int] | None = None,
) -> Tensor:
    """``image`` seen through ``matrices``, resampled once; turns by 90 degrees, flips and crops are copied exactly.

    Args:
        image: floating point, ``(n, C, *spatial)``, 2D or 3D.
        matrices: float64 on the CPU, ``(n, dims + 1, dims + 1)``.
        size: spatial shape of the output; that of the image where none is given.
        mode: ``bilinear`` (in 3D trilinear), or ``nearest``.
        padding_mode: what lies outside: ``zeros``, ``border`` or ``reflection``.
        offsets: in pixels, added to the output's positions before the matrix, ``(k, dims, *size)``: a deformation.
        bent: the k images that it is for; all, where none are given.
    """
    size = list(image.shape[2:] if size is None else size)
    out = image.new_empty(*image.shape[:2], *size)
    how: dict[str, Any] = {"mode": mode, "padding_mode": padding_mode, "align_corners": False}
    bent = [] if offsets is None else list(range(len(image)) if bent is None else bent)
    rest = []
    for i, rows in enumerate(matrices[:, :-1].tolist()):
        copied = None if i in bent else _copied(image[i], rows, size)
        if copied is not None:
            out[i] = copied
        elif i not in bent:
            rest.append(i)
    for some in chunks(rest, out):
        out[some] = _sampled(image[some], matrices[some], size, None, how)
    start = 0
    for some in chunks(bent, out):
        part = image[some]
        out[some] = _sampled(part, matrices[some], size, cast("Tensor", offsets)[start : start + len(part)], how)
        start += len(part)
    return out


def chunks(indices: list[int], image: Tensor) -> Iterator[slice | list[int]]:
    """``indices`` into the first axis of ``image``, as many at a time as suit its device."""
    most = len(indices) if image.device.type != "cpu" else max(1, CHUNK * len(image) // max(1, image.numel()))
    for start in range(0, len(indices), max(1, most)):
        some = indices[start : start + most]
        whole = slice(some[0], some[-1] + 1)
        yield whole if whole.stop - whole.start == len(some) else some


def _eye(n: int, dims: int) -> Tensor:
    return torch.eye(dims + 1, dtype=torch.float64).repeat(n, 1, 1)


def _copied(image: Tensor, rows: list[list[float]], size: list[int]) -> Tensor | None:
    """``image`` ``(C, *spatial)`` turned, mirrored and cropped, if that is all that the matrix's ``rows`` do."""
    order, slices, mirrored = [], [], []
    for axis, (*row, shift) in enumerate(rows):
        if sorted(map(abs, row)) != [0.0] * (len(row) - 1) + [1.0]:
            return None
        source = next(k for k, value in enumerate(row) if value)
        first = (image.shape[axis + 1] - size[source]) / 2 + shift
        if first != int(first) or first < 0 or first + size[source] > image.shape[axis + 1]:
            return None
        order.append(source)
        slices.append(slice(int(first), int(first) + size[source]))
        if row[source] < 0:
            mirrored.append(axis + 1)
    return image[(slice(None), *slices)].flip(mirrored).permute(0, *(order.index(k) + 1 for k in range(len(order))))


def _sampled(image: Tensor, matrices: Tensor, size: Sequence[int], offsets: Tensor | None, how: dict) -> Tensor:
    """The fastest way: in planes where a volume's axis keeps to itself, by look-ups for other volumes on a CPU."""
    if len(size) == 3 and offsets is None and (axis := _alone(matrices)) is not None:
        return _plane_and_line(image, _lines(_scaled(matrices, image), image, size), axis, how)
    looked_up = len(size) == 3 and image.device.type == "cpu"
    matrices = matrices[:, :-1] if looked_up else _scaled(matrices, image)
    if offsets is not None:
        offsets = (matrices[:, :, :-1].to(image) @ offsets.to(image).flatten(2)).view_as(offsets)
    lines = _lines(matrices, image, size)
    if looked_up:
        return _looked_up(image, lines, offsets, how)
    grid = _grid(lines) if offsets is None else _grid(lines).add_(offsets.flip(1))
    return grid_sample(image, grid.movedim(1, -1), **how)


def _alone(matrices: Tensor) -> int | None:
    """The axis of all volumes, if there is one, that neither moves another nor is moved by it."""
    for axis in range(3):
        others = [k for k in range(3) if k != axis]
        if not matrices[:, axis, others].any() and not matrices[:, others, axis].any():
            return axis
    return None


def _looked_up(image: Tensor, lines: list[Tensor], offsets: Tensor | None, how: dict) -> Tensor:
    ways = {"mode": how["mode"], "padding_mode": how["padding_mode"]}
    lines[0] += (torch.tensor(image.shape[2:])[:, None].to(image) - 1) / 2  # positions start at the centre
    found = [
        look_up(one, [line[i] for line in lines], offsets=None if offsets is None else offsets[i], **ways)
        for i, one in enumerate(image)
    ]
    return torch.stack(found)


def _plane_and_line(image: Tensor, lines: list[Tensor], axis: int, how: dict) -> Tensor:
    keep, length = [k for k in range(3) if k != axis], image.shape[axis + 2]
    planes = image.movedim(axis + 2, 2)
    grid = _grid([lines[k][:, keep] for k in keep]).movedim(1, -1)
    out = grid_sample(planes.flatten(1, 2), grid, **how).unflatten(1, planes.shape[1:3])
    line = lines[axis][:, axis]
    if line.shape[1] != length or not torch.equal(line, (_positions(length) * 2 / length).to(line).expand_as(line)):
        along = torch.stack([line, torch.zeros_like(line)], -1)[:, None]
        unit = torch.eye(length).to(image).view(1, length, 1, length).expand(len(image), -1, -1, -1)
        out = per_axis(out, [grid_sample(unit, along, **how)[:, :, 0].mT, None, None])
    return out.movedim(2, axis + 2)


def _scaled(matrices: Tensor, image: Tensor) -> Tensor:
    """The rows of ``matrices`` in the units of ``grid_sample``, which counts a side of the image as 2."""
    return matrices[:, :-1] * 2 / torch.tensor(image.shape[2:], dtype=torch.float64)[:, None]


def _lines(rows: Tensor, image: Tensor, size: Sequence[int]) -> list[Tensor]:
    """What each axis of the output, ``(n, dims, length)``, adds to the positions along the input's."""
    lines = [rows[:, :, b, None] * _positions(length) for b, length in enumerate(size)]
    for b, line in enumerate(lines):
        line[:, b] += rows[:, b, -1:]
    return [line.to(image) for line in lines]


def _grid(lines: list[Tensor]) -> Tensor:
    """Positions ``(n, dims, *size)``, the last axis first: planes are quicker to fill, and to read."""
    dims = len(lines)
    grid = lines[0].new_empty(len(lines[0]), dims, *(line.shape[2] for line in lines))
    *first, last = (
        line.flip(1)[(..., *(slice(None) if k == b else None for k in range(dims)))] for b, line in enumerate(lines)
    )
    return torch.add(sum(first[1:], first[0]), last, out=grid)


def _positions(length: int) -> Tensor:
    return torch.arange(length, dtype=torch.float64) - (length - 1) / 2
