"""MobileNetV2 in one, two and three spatial dimensions."""

from __future__ import annotations

from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

from .efficientnet_lite import _round_to_8

__all__ = ["MobileNetV2"]

# expansion, channels, repeats, stride (Sandler et al. 2018, table 2)
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class _InvertedResidual(nn.Module):
    def __init__(self, dims: int, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [_conv_bn_act(dims, inputs, hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *layers,
            _conv_bn_act(dims, hidden, hidden, 3, stride=stride, groups=hidden),
            Conv[Conv.CONV, dims](hidden, outputs, 1, bias=False),
            Norm[Norm.BATCH, dims](outputs),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """A small network of inverted bottlenecks; in two dimensions with torchvision's keys.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        width: factor of all numbers of channels.
        dropout: probability before the head.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``.

    Example:
        >>> sum(p.numel() for p in MobileNetV2().parameters())
        3504872

    References:
        Sandler, Howard, Zhu, Zhmoginov, Chen. MobileNetV2: inverted residuals and linear bottlenecks. CVPR 2018.
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        inputs, features = _round_to_8(32 * width), _round_to_8(1280 * max(1.0, width))
        layers: list[nn.Module] = [_conv_bn_act(spatial_dims, in_channels, inputs, 3, stride=2)]
        for expansion, channels, repeats, stride in _STAGES:
            outputs = _round_to_8(channels * width)
            for j in range(repeats):
                layers.append(_InvertedResidual(spatial_dims, inputs, outputs, 1 if j else stride, expansion))
                inputs = outputs
        layers.append(_conv_bn_act(spatial_dims, inputs, features, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, num_classes))
        for module in self.modules():
            if isinstance(module, nn.modules.conv._ConvNd):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.features(x).flatten(2).mean(-1))


def _conv_bn_act(
    dims: int, inputs: int, outputs: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        Conv[Conv.CONV, dims](inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        Norm[Norm.BATCH, dims](outputs),
        nn.ReLU6(inplace=True),
    )
