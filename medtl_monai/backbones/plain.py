"""Networks without branches: LeNet-5, AlexNet and VGG, in one, two and three spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn

from .layers import average, batch_norm, initialize

__all__ = ["VGG", "AlexNet", "LeNet5"]

# convolutions of each stage by depth (Simonyan and Zisserman 2015, table 1: A, B, D and E)
_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class _Plain(nn.Module):
    """Convolutions, pooling to a fixed size, dense layers."""

    def __init__(self, features: Sequence[nn.Module], avgpool: nn.Module, classifier: Sequence[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.avgpool = avgpool
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class LeNet5(_Plain):
    """The first widely used convolutional network, for 32 pixels a side; larger images are pooled to its last map.

    As is usual now, subsampling is a plain average, every map of the second convolution sees all of the first, and the
    output is linear instead of radial basis functions.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``; each side at least 16.

    Example:
        >>> sum(p.numel() for p in LeNet5(in_channels=1, num_classes=10).parameters())
        61706

    References:
        LeCun, Bottou, Bengio, Haffner. Gradient-based learning applied to document recognition. Proc. IEEE 86, 1998.
    """

    def __init__(self, *, spatial_dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        conv, pool = Conv[Conv.CONV, spatial_dims], Pool[Pool.AVG, spatial_dims]
        avgpool = average(spatial_dims, 5)
        super().__init__(
            [conv(in_channels, 6, 5), nn.Tanh(), pool(2), conv(6, 16, 5), nn.Tanh(), pool(2)],
            avgpool,
            [
                *(nn.Linear(_size(avgpool) * 16, 120), nn.Tanh()),
                *(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, num_classes)),
            ],
        )


class AlexNet(_Plain):
    """Five convolutions and three dense layers: the single-stream form, in two dimensions with torchvision's keys.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        dropout: probability before the two hidden dense layers.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``; each side at least 63. A third axis is averaged before
        the dense layers.

    Example:
        >>> sum(p.numel() for p in AlexNet().parameters())
        61100840

    References:
        Krizhevsky, Sutskever, Hinton. ImageNet classification with deep convolutional neural networks. NeurIPS 2012.
        Krizhevsky. One weird trick for parallelizing convolutional neural networks. arXiv:1404.5997, 2014.
    """

    def __init__(
        self, *, spatial_dims: int = 2, in_channels: int = 3, num_classes: int = 1000, dropout: float = 0.5
    ) -> None:
        conv, pool = Conv[Conv.CONV, spatial_dims], Pool[Pool.MAX, spatial_dims]
        avgpool = average(spatial_dims, 6)
        super().__init__(
            [
                *(conv(in_channels, 64, 11, 4, 2), nn.ReLU(inplace=True), pool(3, 2)),
                *(conv(64, 192, 5, 1, 2), nn.ReLU(inplace=True), pool(3, 2)),
                *(conv(192, 384, 3, 1, 1), nn.ReLU(inplace=True)),
                *(conv(384, 256, 3, 1, 1), nn.ReLU(inplace=True)),
                *(conv(256, 256, 3, 1, 1), nn.ReLU(inplace=True), pool(3, 2)),
            ],
            avgpool,
            [
                *(nn.Dropout(dropout), nn.Linear(_size(avgpool) * 256, 4096), nn.ReLU(inplace=True)),
                *(nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(inplace=True)),
                nn.Linear(4096, num_classes),
            ],
        )


class VGG(_Plain):
    """Stages of small convolutions and three dense layers; in two dimensions with torchvision's keys.

    Args:
        depth: layers with weights: 11, 13, 16 or 19.
        norm: batch norm after every convolution.
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        dropout: probability after the two hidden dense layers.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``; each side at least 32. A third axis is averaged before
        the dense layers.

    Raises:
        ValueError: another depth.

    References:
        Simonyan, Zisserman. Very deep convolutional networks for large-scale image recognition. ICLR 2015.
    """

    def __init__(
        self,
        depth: int = 16,
        *,
        norm: bool = False,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        dropout: float = 0.5,
    ) -> None:
        if depth not in _VGG:
            raise ValueError(f"depth must be 11, 13, 16 or 19, got {depth}.")
        avgpool, layers, inputs = average(spatial_dims, 7), [], in_channels
        for stage, convolutions in enumerate(_VGG[depth]):
            outputs = min(64 << stage, 512)
            for _ in range(convolutions):
                layers.append(Conv[Conv.CONV, spatial_dims](inputs, outputs, 3, 1, 1))
                layers += [batch_norm(spatial_dims, outputs)] if norm else []
                layers.append(nn.ReLU(inplace=True))
                inputs = outputs
            layers.append(Pool[Pool.MAX, spatial_dims](2))
        super().__init__(
            layers,
            avgpool,
            [
                *(nn.Linear(_size(avgpool) * 512, 4096), nn.ReLU(inplace=True), nn.Dropout(dropout)),
                *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(dropout)),
                nn.Linear(4096, num_classes),
            ],
        )
        initialize(self, linear_std=0.01)


def _size(pool: nn.Module) -> int:
    """How many places an adaptive pooling has."""
    places = 1
    for n in cast("Sequence[int]", pool.output_size):
        places *= n
    return places
