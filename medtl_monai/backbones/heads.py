"""Heads: how the last map becomes a vector, and the vector the logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from monai.networks import nets
from monai.networks.layers.factories import Pool
from torch import Tensor, nn

from ..utils import UserError
from .efficientnet_lite import EfficientNetLite
from .inception import GoogLeNet, InceptionResNetV2, InceptionV3, InceptionV4
from .layers import average
from .mobilenet import MobileNet
from .plain import VGG, AlexNet, LeNet5
from .preact_resnet import PreActResNet

__all__ = ["HEADS", "HEAD_POOLS", "Head", "SpatialPyramidPool", "set_head"]

HEADS: dict[type[nn.Module], tuple[str, str]] = {
    **dict.fromkeys((LeNet5, AlexNet, VGG, MobileNet), ("avgpool", "classifier")),
    **dict.fromkeys((GoogLeNet, InceptionV3, nets.ResNet, PreActResNet), ("avgpool", "fc")),
    **dict.fromkeys((InceptionV4, InceptionResNetV2), ("avgpool", "last_linear")),
    **dict.fromkeys((EfficientNetLite, nets.EfficientNet), ("_avg_pooling", "_fc")),
    nets.SENet: ("adaptive_avg_pool", "last_linear"),
    nets.DenseNet: ("class_layers.pool", "class_layers.out"),
}
"""Where each kind of network pools its last map, and its classifier."""


class SpatialPyramidPool(nn.Module):
    """The maximum in each cell of several grids: a vector of fixed length that keeps where things are.

    Args:
        spatial_dims: 1, 2 or 3.
        levels: cells along each axis, by grid.

    Shape:
        ``(B, C, *spatial)`` to ``(B, C * sum(n ** spatial_dims for n in levels))``.

    Example:
        >>> SpatialPyramidPool(2)(torch.ones(1, 3, 9, 7)).shape
        torch.Size([1, 63])

    References:
        He, Zhang, Ren, Sun. Spatial pyramid pooling in deep convolutional networks for visual recognition. ECCV 2014.
    """

    def __init__(self, spatial_dims: int, levels: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        self.grids = nn.ModuleList(Pool[Pool.ADAPTIVEMAX, spatial_dims](n) for n in levels)
        self.places = sum(n**spatial_dims for n in levels)

    def forward(self, x: Tensor) -> Tensor:
        """The cells of all grids."""
        return torch.cat([grid(x).flatten(1) for grid in self.grids], 1)


HEAD_POOLS = {"avg": average, "max": lambda dims: Pool[Pool.ADAPTIVEMAX, dims](1), "spp": SpatialPyramidPool}
"""Pooling of the last map, by name: ``(spatial_dims)`` to a module."""


class Head(nn.Sequential):
    """Dense layers of the given widths, each with ReLU and dropout, and the logits.

    Args:
        features: length of the input.
        num_classes: number of outputs.
        widths: of the hidden layers, from the input on; none: a linear classifier.
        dropout: probability after each hidden layer.
    """

    def __init__(self, features: int, num_classes: int, widths: Sequence[int] = (), dropout: float = 0.5) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(features, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            features = width
        super().__init__(*layers, nn.Linear(features, num_classes))


def set_head(
    network: nn.Module,
    num_classes: int,
    *,
    spatial_dims: int,
    pool: str | None = None,
    widths: Sequence[int] = (),
    dropout: float = 0.5,
) -> None:
    """Give ``network`` another pooling and a :class:`Head`, in place; no forward pass is needed.

    Args:
        network: of a kind that :data:`HEADS` holds.
        num_classes: number of outputs.
        spatial_dims: of the network.
        pool: one of :data:`HEAD_POOLS`; ``None``: the network's own.
        widths: of the hidden dense layers.
        dropout: probability after each of them.

    Raises:
        UserError: an unknown pooling, or a network that :data:`HEADS` does not hold.
    """
    at_pool, at_head = next((names for kind, names in HEADS.items() if isinstance(network, kind)), ("", ""))
    if not at_head:
        raise UserError(f"{type(network).__name__} is no classification network of ours: leave out pool and head.")
    own = network.get_submodule(at_pool)
    first = next(m for m in network.get_submodule(at_head).modules() if isinstance(m, nn.Linear))
    features = first.in_features
    if pool is not None:
        if pool not in HEAD_POOLS:
            raise UserError(f"there is no pooling {pool!r}: choose from {', '.join(HEAD_POOLS)}.")
        new = HEAD_POOLS[pool](spatial_dims)
        features = features // _places(own, spatial_dims) * _places(new, spatial_dims)
        network.set_submodule(at_pool, new)
    network.set_submodule(at_head, Head(features, num_classes, widths, dropout))


def _places(pool: nn.Module, dims: int) -> int:
    """How many numbers a pooling gives for each channel."""
    if isinstance(pool, SpatialPyramidPool):
        return pool.places
    size = cast("int | Sequence[int]", pool.output_size)
    return size**dims if isinstance(size, int) else math.prod(size)
