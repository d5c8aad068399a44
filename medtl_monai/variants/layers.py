"""Activations and pooling by name, and the arithmetic of their sizes."""

from __future__ import annotations

from typing import Any

from monai.networks.blocks import MemoryEfficientSwish, Swish
from monai.networks.layers.utils import get_act_layer
from torch import nn

from ..utils import UserError
from .swap import replace_modules

__all__ = ["POOLINGS", "convert_activation", "convert_pooling", "output_size"]

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish, nn.Sigmoid,
    nn.Tanh, nn.Softplus, MemoryEfficientSwish, Swish,
)  # fmt: skip
_MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)

POOLINGS = ("max", "average", "overlapping")
"""Names for :func:`convert_pooling`; spatial pyramid pooling is a head of the backbones."""


def output_size(size: int, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Length of a convolution's or pooling's output along one axis; groups do not matter.

    .. math:: \\left\\lfloor \\frac{t - d (k - 1) - 1 + 2 p}{s} \\right\\rfloor + 1

    Example:
        >>> output_size(7, 3)
        5
        >>> output_size(7, 3, padding=1)
        7
        >>> output_size(7, 3, padding=1, stride=3)
        3
        >>> output_size(7, 3, dilation=2)
        3

    Raises:
        UserError: the kernel does not fit.
    """
    reach = dilation * (kernel - 1) + 1
    if size + 2 * padding < reach:
        raise UserError(f"a kernel that reaches over {reach} does not fit into {size} and a padding of {padding}.")
    return (size - reach + 2 * padding) // stride + 1


def convert_activation(network: nn.Module, name: str, **settings: Any) -> nn.Module:
    """Replace every activation of ``network``, in place, by one of MONAI's, such as ``relu``, ``leakyrelu``, ``tanh``.

    Raises:
        UserError: an unknown name or setting, or the network has no activation modules.
    """
    try:
        get_act_layer((name, settings))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"there is no activation {name!r} with {settings or 'these settings'}: {error}.") from error
    if not replace_modules(network, _ACTIVATIONS, lambda old: get_act_layer((name, settings))):
        raise UserError(f"{type(network).__name__} has no activation modules: leave act out.")
    return network


def convert_pooling(network: nn.Module, name: str) -> nn.Module:
    """Replace the pooling between the blocks of ``network``, in place.

    Args:
        network: any network with max or average pooling modules.
        name: ``max``, ``average``, or ``overlapping``: max pooling whose window is one larger than its stride, as in
            AlexNet (3 and 2), padded so that even sizes come out as before; windows that overlap already stay.

    Raises:
        UserError: an unknown name, or the network has no pooling modules.
    """
    if name not in POOLINGS:
        raise UserError(f"there is no pooling {name!r}: choose from {', '.join(POOLINGS)}.")

    def make(old: Any) -> nn.Module:
        dims = next(i for i, kinds in enumerate(zip(_MAX, _AVERAGE, strict=True)) if isinstance(old, kinds))
        if name == "overlapping":
            stride, window = (size if isinstance(size, int) else size[0] for size in (old.stride, old.kernel_size))
            if window == stride > 1:  # otherwise it overlaps already
                return _MAX[dims](stride + 1, stride, stride // 2)
        kind = (_AVERAGE if name == "average" else _MAX)[dims]
        return kind(old.kernel_size, old.stride, old.padding, ceil_mode=old.ceil_mode)

    if not replace_modules(network, _MAX + _AVERAGE, make):
        raise UserError(f"{type(network).__name__} has no pooling modules: leave pooling out.")
    return network
