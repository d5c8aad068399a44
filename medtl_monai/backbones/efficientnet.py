"""EfficientNet in one, two and three spatial dimensions."""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from .efficientnet_lite import STAGES
from .layers import conv_bn_act, round_to_8
from .mobilenet import Excitation, MobileNet, Residual

__all__ = ["EFFICIENTNETS", "EfficientNet"]

EFFICIENTNETS: tuple[tuple[float, float, int, float], ...] = (
    (1.0, 1.0, 224, 0.2),
    (1.0, 1.1, 240, 0.2),
    (1.1, 1.2, 288, 0.3),
    (1.2, 1.4, 300, 0.3),
    (1.4, 1.8, 380, 0.4),
    (1.6, 2.2, 456, 0.4),
    (1.8, 2.6, 528, 0.5),
    (2.0, 3.1, 600, 0.5),
)
"""Width factor, depth factor, input size in pixels (torchvision's) and dropout of EfficientNet-B0 to B7."""


class EfficientNet(MobileNet):
    """Inverted bottlenecks with excitation, scaled in width, depth and resolution; in 2D with torchvision's keys.

    MONAI's network of this name pads as TensorFlow does and has another epsilon, so that torchvision's weights are not
    for it; they are for this one.

    Args:
        variant: 0 to 7 (:data:`EFFICIENTNETS`).
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        dropout: probability before the head; ``None``: the variant's own.
        drop_connect: stochastic depth (Huang et al., ECCV 2016): probability of leaving out the last residual block
            for an image; earlier blocks grow linearly from 0.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``.

    Raises:
        ValueError: another variant.

    Example:
        >>> sum(p.numel() for p in EfficientNet(0).parameters())
        5288548

    References:
        Tan, Le. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019.
    """

    def __init__(
        self,
        variant: int = 0,
        *,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        dropout: float | None = None,
        drop_connect: float = 0.2,
    ) -> None:
        if variant not in range(len(EFFICIENTNETS)):
            raise ValueError(f"variant must be 0 to {len(EFFICIENTNETS) - 1}, got {variant}.")
        width, depth, _, own_dropout = EFFICIENTNETS[variant]
        dims, inputs = spatial_dims, round_to_8(32 * width)
        layer = partial(conv_bn_act, dims, act=nn.SiLU, eps=1e-5 if variant < 5 else 1e-3)
        layers: list[nn.Module] = [layer(in_channels, inputs, 3, stride=2)]
        repeats, done = [math.ceil(n * depth) for n, *_ in STAGES], 0
        for n, (_, kernel_size, first_stride, expansion, channels) in zip(repeats, STAGES, strict=True):
            outputs, stage = round_to_8(channels * width), []
            for j in range(n):
                drop = drop_connect * done / sum(repeats)
                stage.append(_block(layer, inputs, outputs, expansion, kernel_size, 1 if j else first_stride, drop))
                inputs, done = outputs, done + 1
            layers.append(nn.Sequential(*stage))
        layers.append(layer(inputs, 4 * inputs, 1))
        rate = own_dropout if dropout is None else dropout
        super().__init__(dims, layers, [nn.Dropout(rate, inplace=True), nn.Linear(4 * inputs, num_classes)])


def _block(
    layer: partial[nn.Sequential], inputs: int, outputs: int, expansion: int, kernel_size: int, stride: int, drop: float
) -> Residual:
    """An inverted bottleneck with excitation."""
    hidden, dims = round_to_8(inputs * expansion), layer.args[0]
    block = [
        *([layer(inputs, hidden, 1)] if hidden != inputs else []),
        layer(hidden, hidden, kernel_size, stride=stride, groups=hidden),
        Excitation(dims, hidden, max(1, inputs // 4), nn.SiLU, nn.Sigmoid),
        layer(hidden, outputs, 1, act=None),
    ]
    return Residual("block", block, stride == 1 and inputs == outputs, drop)
