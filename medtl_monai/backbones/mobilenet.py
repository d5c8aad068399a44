"""MobileNetV2 and V3 in one, two and three spatial dimensions."""

from __future__ import annotations

from collections.abc import Callable

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from .layers import average, conv_bn_act, drop_paths, initialize, round_to_8

__all__ = ["MobileNetV2", "MobileNetV3"]

# expansion, channels, repeats, stride (Sandler et al. 2018, table 2)
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# kernel size, expanded channels, channels, squeeze-and-excitation, hard swish, stride (Howard et al. 2019, tables 1, 2)
_V3 = {
    "large": (
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    ),
    "small": (
        (3, 16, 16, True, False, 2),
        (3, 72, 24, False, False, 2),
        (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2),
        (5, 240, 40, True, True, 1),
        (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1),
        (5, 144, 48, True, True, 1),
        (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1),
        (5, 576, 96, True, True, 1),
    ),
}


class Residual(nn.Module):
    """Inverted bottleneck: the input is added where shapes allow.

    Args:
        name: under which the layers stand.
        layers: of the block.
        adds: whether the input is added.
        drop: stochastic depth: probability, in training, of leaving the layers out for an image.
    """

    def __init__(self, name: str, layers: list[nn.Module], adds: bool, drop: float = 0.0) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(*layers))
        self.adds, self.drop = adds, drop

    def forward(self, x: Tensor) -> Tensor:
        """The sum, ``(B, C, *spatial)``."""
        y = x
        for layers in self.children():
            y = layers(y)
        if not self.adds:
            return y
        return x + (drop_paths(y, self.drop) if self.training and self.drop > 0 else y)


class Excitation(nn.Module):
    """Squeeze and excitation: a factor in [0, 1] for each channel, from the mean of all."""

    def __init__(
        self,
        dims: int,
        channels: int,
        squeezed: int,
        act: Callable[..., nn.Module] = nn.ReLU,
        gate: Callable[..., nn.Module] = nn.Hardsigmoid,
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, dims]
        self.avgpool = average(dims)
        self.fc1, self.activation = conv(channels, squeezed, 1), act(inplace=True)
        self.fc2, self.scale = conv(squeezed, channels, 1), gate()

    def forward(self, x: Tensor) -> Tensor:
        """The scaled channels, ``(B, C, *spatial)``."""
        return x * self.scale(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


class MobileNet(nn.Module):
    """Convolutions, global average, classifier: base of the networks of inverted bottlenecks."""

    def __init__(self, dims: int, features: list[nn.Module], classifier: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.avgpool = average(dims)
        self.classifier = nn.Sequential(*classifier)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)``."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class MobileNetV2(MobileNet):
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
        dims, inputs, last = spatial_dims, round_to_8(32 * width), round_to_8(1280 * max(1.0, width))
        layers: list[nn.Module] = [conv_bn_act(dims, in_channels, inputs, 3, stride=2)]
        for expansion, channels, repeats, first_stride in _V2:
            outputs = round_to_8(channels * width)
            for j in range(repeats):
                hidden, stride = inputs * expansion, 1 if j else first_stride
                block = [
                    *([conv_bn_act(dims, inputs, hidden, 1)] if expansion > 1 else []),
                    conv_bn_act(dims, hidden, hidden, 3, stride=stride, groups=hidden),
                    *conv_bn_act(dims, hidden, outputs, 1, act=None),
                ]
                layers.append(Residual("conv", block, stride == 1 and inputs == outputs))
                inputs = outputs
        layers.append(conv_bn_act(dims, inputs, last, 1))
        super().__init__(dims, layers, [nn.Dropout(dropout), nn.Linear(last, num_classes)])


class MobileNetV3(MobileNet):
    """Inverted bottlenecks with excitation and hard swish, found by search; in 2D with torchvision's keys.

    Args:
        size: ``small`` or ``large``.
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        dropout: probability before the head.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``.

    Raises:
        ValueError: another size.

    Example:
        >>> [sum(p.numel() for p in MobileNetV3(size).parameters()) for size in ("small", "large")]
        [2542856, 5483032]

    References:
        Howard et al. Searching for MobileNetV3. ICCV 2019.
    """

    def __init__(
        self,
        size: str = "large",
        *,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        dropout: float = 0.2,
    ) -> None:
        if size not in _V3:
            raise ValueError(f"size must be 'small' or 'large', got {size!r}.")
        dims, eps, inputs = spatial_dims, 1e-3, 16
        layers: list[nn.Module] = [conv_bn_act(dims, in_channels, inputs, 3, stride=2, act=nn.Hardswish, eps=eps)]
        for kernel_size, hidden, outputs, excited, hard, stride in _V3[size]:
            act = nn.Hardswish if hard else nn.ReLU
            block = [
                *([conv_bn_act(dims, inputs, hidden, 1, act=act, eps=eps)] if hidden != inputs else []),
                conv_bn_act(dims, hidden, hidden, kernel_size, stride=stride, groups=hidden, act=act, eps=eps),
                *([Excitation(dims, hidden, round_to_8(hidden // 4))] if excited else []),
                conv_bn_act(dims, hidden, outputs, 1, act=None, eps=eps),
            ]
            layers.append(Residual("block", block, stride == 1 and inputs == outputs))
            inputs = outputs
        layers.append(conv_bn_act(dims, inputs, 6 * inputs, 1, act=nn.Hardswish, eps=eps))
        last = {"small": 1024, "large": 1280}[size]
        classifier = [
            *(nn.Linear(6 * inputs, last), nn.Hardswish(inplace=True)),
            *(nn.Dropout(dropout, inplace=True), nn.Linear(last, num_classes)),
        ]
        super().__init__(dims, layers, classifier)
