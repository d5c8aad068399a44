"""One tensor of a source into one place of a network: which adaptations its shape asks for, and what to say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .adapt import Inflation, adapt_channels, flatten_axes, inflate, map_rows, resize_kernel, turn_axes

__all__ = ["AS_IT_WAS", "Fitted", "Fitting", "fit", "fit_head"]

AS_IT_WAS = "as it was"

Fitted = tuple[Tensor | None, str]
"""The tensor in the shape of its place, or None, and what is to be said of it."""


@dataclass(frozen=True)
class Fitting:
    """What is done to tensors that do not fit as they are.

    Attributes:
        inflation: how kernels get more axes.
        resize_kernels: take kernels of other sizes.
        axes: order of the source's axes, if they are three; empty: as here.
    """

    inflation: Inflation = "centre"
    resize_kernels: bool = False
    axes: str = ""


def fit(value: Tensor | None, weight: Tensor, how: Fitting, *, any_channels: bool = False) -> Fitted:
    """The source's ``value`` in the shape of ``weight``.

    Args:
        value: any shape; None: the source has none.
        weight: the network's.
        how: what may be done to it.
        any_channels: it is the first convolution, and takes other input channels.
    """
    if value is None:
        return None, "not in the source"
    found, steps = tuple(value.shape), []
    for step in (_turn, _inflate_or_flatten, _resize):
        value, said = step(value, weight, how)
        steps += [said] * bool(said)
    if any_channels and value.ndim == weight.ndim and value.shape[1] != weight.shape[1]:
        steps.append(f"{value.shape[1]} to {weight.shape[1]} input channels")
        value = adapt_channels(value, weight.shape[1])
    if value.shape != weight.shape:
        return None, f"the source's shape {found} does not fit"
    if value.dtype != weight.dtype:
        steps.append(f"cast from {str(value.dtype).removeprefix('torch.')}")
        value = value.to(weight.dtype)
    return value, ", ".join(steps) or AS_IT_WAS


def _turn(value: Tensor, weight: Tensor, how: Fitting) -> tuple[Tensor, str]:
    """Kernels of volumes in our order; to a network of slices with the through-plane axis, which is summed, first."""
    wanted = "XYZ" if weight.ndim == 5 else "ZXY"
    if not how.axes or value.ndim != 5 or (turned := turn_axes(value, how.axes, wanted)) is value:
        return value, ""
    return turned, f"axes {how.axes} to {wanted}" if how.axes != wanted else ""


def _inflate_or_flatten(value: Tensor, weight: Tensor, how: Fitting) -> tuple[Tensor, str]:
    dims = weight.ndim - 2
    if 3 <= value.ndim < weight.ndim:
        same = value.shape[2:] == weight.shape[-(value.ndim - 2) :]
        inflated = inflate(value, dims, how.inflation, length=weight.shape[2] if same else None)
        return inflated, f"inflated {value.ndim - 2}D to {dims}D ({how.inflation})"
    if value.ndim > weight.ndim >= 3:
        return flatten_axes(value, dims), f"flattened {value.ndim - 2}D to {dims}D"
    return value, ""


def _resize(value: Tensor, weight: Tensor, how: Fitting) -> tuple[Tensor, str]:
    if not how.resize_kernels or not value.ndim == weight.ndim >= 3 or value.shape[2:] == weight.shape[2:]:
        return value, ""
    said = f"kernel {_times(value.shape[2:])} to {_times(weight.shape[2:])}"
    return resize_kernel(value, weight.shape[2:]), said


def fit_head(
    value: Tensor | None, weight: Tensor, rows: Mapping[int, int] | None, fitted: Callable[[], Fitted], *, last: bool
) -> Fitted:
    """The source's ``value`` ``(C, ...)`` for a weight of the head.

    Args:
        value: of the source; None: it has none.
        weight: the network's.
        rows: the class here to the source's row; empty: no class is the same; None: as many rows are the same classes.
        fitted: the value in the weight's shape, as for other weights.
        last: the weight belongs to the head's last layer, whose rows are the classes.
    """
    if value is None:
        return None, "new head"
    if rows == {}:
        return None, "new head, as no class is known to be the same"
    if rows and last:
        if value.shape[1:] != weight.shape[1:]:
            return None, "new head"
        return map_rows(value, weight, rows), f"{len(rows)} class rows mapped"
    if value.shape[:1] != weight.shape[:1]:
        return None, "new head"
    found, how = fitted()
    return found, "new head" if found is None else how


def _times(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
