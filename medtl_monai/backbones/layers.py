"""What the backbones share: layers in one, two and three spatial dimensions, said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

__all__ = [
    "average",
    "batch_norm",
    "conv_bn_act",
    "conv_norm",
    "cut",
    "drop_paths",
    "initialize",
    "round_to_8",
    "spread",
]


def spread(size: int | tuple[int, int], dims: int) -> tuple[int, ...]:
    """A size of two dimensions ``(a, b)`` in ``dims``: ``(b,)``, ``(a, b)``, ``(a, a, b)``.

    So a pair of factorized convolutions, ``(1, 7)`` after ``(7, 1)``, together sees all directions in any number of
    dimensions, and an inflated kernel has the shape that the network expects.

    Example:
        >>> spread((1, 7), 3), spread((7, 1), 3), spread(3, 1)
        ((1, 1, 7), (7, 7, 1), (3,))
    """
    first, last = (size, size) if isinstance(size, int) else size
    return (first,) * (dims - 1) + (last,)


def average(dims: int, size: int = 1) -> nn.Module:
    """Adaptive average pooling to ``size`` places along the last two axes and to one along any before them.

    A third axis is averaged away, so that dense layers keep the shape, and the meaning, that they have in 2D.
    """
    return Pool[Pool.ADAPTIVEAVG, dims]((1, size, size)[-dims:])


def batch_norm(dims: int, channels: int, eps: float = 1e-5) -> nn.Module:
    """Batch norm with torch's momentum of 0.1, whatever the source trained with: 0.01 follows new images too slowly."""
    return Norm[Norm.BATCH, dims](channels, eps=eps)


def conv_bn_act(
    dims: int,
    inputs: int,
    outputs: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    act: Callable[..., nn.Module] | None = nn.ReLU6,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution without bias, padded to keep the size at stride 1, batch norm and activation (``None``: without)."""
    layers = [
        Conv[Conv.CONV, dims](inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        batch_norm(dims, outputs, eps),
    ]
    return nn.Sequential(*layers, *([act(inplace=True)] if act else []))


_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def cut(x: Tensor) -> Tensor:
    """``x`` ``(B, C, *spatial)`` without the first place of each spatial axis."""
    places: tuple[Any, ...] = (..., *[slice(1, None)] * (x.ndim - 2))
    return x[places].contiguous()


def conv_norm(conv: Any, norm: Any, x: Tensor, cuts: bool = False) -> Tensor:
    """``norm(conv(x))``, in one pass over the map where ``norm`` is a batch norm with given statistics.

    ``x`` is ``(B, C, *spatial)``, and so is the result.

    Its scale and shift then go into the convolution's weights, for this call alone: frozen and scoring networks are
    bound by memory. Gradients are the same; where something listens to one of the two, both are called. With ``cuts``
    what comes out of ``conv`` is :func:`cut`.
    """
    listeners = conv._forward_hooks, conv._forward_pre_hooks, norm._forward_hooks, norm._forward_pre_hooks
    if type(norm) not in _PLAIN or norm.training or norm.running_var is None or not norm.affine or any(listeners):
        y = conv(x)
        return norm(cut(y) if cuts else y)
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    bias = shift if conv.bias is None else shift + conv.bias * scale
    y = conv._conv_forward(x, conv.weight * scale.view(-1, *[1] * (x.ndim - 1)), bias)
    return cut(y) if cuts else y


def drop_paths(x: Tensor, probability: float) -> Tensor:
    """Stochastic depth: ``x`` ``(B, C, *spatial)``, zero for some images, scaled up for the others to keep the mean."""
    keep = torch.rand([len(x)] + [1] * (x.ndim - 1), device=x.device, dtype=x.dtype) >= probability
    return x * keep / (1 - probability)


def initialize(network: nn.Module, linear_std: float | None = None) -> None:
    """He's normal initialization by fan-out of all convolutions, biases 0; dense layers normal where a std is given."""
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def round_to_8(channels: float) -> int:
    """The nearest multiple of 8 that is not more than 10% below ``channels``."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
