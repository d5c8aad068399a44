"""ResNet v2: normalization and activation before each convolution."""

from __future__ import annotations

from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn

from .layers import average, batch_norm, initialize

__all__ = ["PreActResNet"]

_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class _Block(nn.Module):
    """Norm, ReLU, convolution, two or three times; the sum goes on as it is."""

    def __init__(self, dims: int, inputs: int, planes: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        conv, outputs = Conv[Conv.CONV, dims], planes * (4 if bottleneck else 1)
        if bottleneck:
            rows = [(inputs, planes, 1, 1), (planes, planes, 3, stride), (planes, outputs, 1, 1)]
        else:
            rows = [(inputs, planes, 3, stride), (planes, planes, 3, 1)]
        self.first = nn.Sequential(batch_norm(dims, inputs), nn.ReLU(inplace=True))
        layers: list[nn.Module] = []
        for n_in, n_out, kernel_size, step in rows:
            layers += [batch_norm(dims, n_in), nn.ReLU(inplace=True)] if layers else []
            layers.append(conv(n_in, n_out, kernel_size, step, kernel_size // 2, bias=False))
        self.layers = nn.Sequential(*layers)
        self.shortcut = conv(inputs, outputs, 1, stride, bias=False) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.layers(y) + (x if self.shortcut is None else self.shortcut(y))


class PreActResNet(nn.Module):
    """Residual network v2: a clean path from the input to the last map.

    Args:
        depth: layers with weights: 18, 34, 50, 101 or 152.
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``.

    Raises:
        ValueError: another depth.

    References:
        He, Zhang, Ren, Sun. Identity mappings in deep residual networks. ECCV 2016.
    """

    def __init__(
        self, depth: int = 50, *, spatial_dims: int = 2, in_channels: int = 3, num_classes: int = 1000
    ) -> None:
        super().__init__()
        if depth not in _LAYERS:
            raise ValueError(f"depth must be one of {', '.join(map(str, _LAYERS))}, got {depth}.")
        bottleneck, channels = depth >= 50, 64
        self.conv1 = Conv[Conv.CONV, spatial_dims](in_channels, channels, 7, 2, 3, bias=False)
        self.maxpool = Pool[Pool.MAX, spatial_dims](3, 2, 1)
        stages = []
        for i, blocks in enumerate(_LAYERS[depth]):
            stage = []
            for j in range(blocks):
                stage.append(_Block(spatial_dims, channels, 64 << i, 2 if i and not j else 1, bottleneck))
                channels = (64 << i) * (4 if bottleneck else 1)
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn = batch_norm(spatial_dims, channels)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = average(spatial_dims)
        self.fc = nn.Linear(channels, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.maxpool(self.conv1(x))))))
        return self.fc(self.avgpool(self.relu(self.bn(x))).flatten(1))
