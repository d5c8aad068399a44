"""Where a network's blocks are: from the stem, which sees the image, to the head, which names the class."""

from __future__ import annotations

from dataclasses import dataclass

from monai.networks import nets
from torch import nn

from ..utils import last_layer, unwrap
from .efficientnet_lite import EfficientNetLite
from .mobilenet import MobileNetV2

__all__ = ["Anatomy", "Block", "anatomy"]


@dataclass(frozen=True)
class Block:
    """A part of a network: its name and the modules that belong to it."""

    name: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class Anatomy:
    """The ordered parts of a network.

    Attributes:
        blocks: from stem to head; every parameter and buffer lies in exactly one.
        head: the last block's module, whose last layer gives the logits.
        features: how many features the head receives.
        encoder: the module that a classification network's weights fill; empty: the network itself.
    """

    blocks: tuple[Block, ...]
    head: str
    features: int
    encoder: str = ""


def anatomy(network: nn.Module) -> Anatomy:
    """Name the blocks of ``network``, whatever wraps it.

    The backbones of this package and MONAI's ResNet, DenseNet and EfficientNet are known; a network with a method
    ``anatomy`` is asked. Of any other network the blocks are its children in order of registration, opened up until
    the head, its last layer, stands alone.

    Raises:
        ValueError: an unknown network is a single layer, or holds parameters or buffers beside its blocks.

    Example:
        >>> from .factory import build
        >>> parts = anatomy(build("resnet18"))
        >>> [block.name for block in parts.blocks], parts.head, parts.features
        (['stem', 'layer1', 'layer2', 'layer3', 'layer4', 'fc'], 'fc', 512)
    """
    network = unwrap(network)
    if hasattr(network, "anatomy"):
        return network.anatomy()
    if isinstance(network, MobileNetV2):
        blocks = [*_single("features", len(network.features)), Block("classifier", ("classifier",))]
    elif isinstance(network, (EfficientNetLite, nets.EfficientNet)):
        body = [f"_blocks.{i}" for i in range(len(network._blocks))]
        blocks = [
            Block("stem", ("_conv_stem", "_bn0")),
            *(Block(name, (name,)) for name in body),
            Block("neck", ("_conv_head", "_bn1")),
            Block("_fc", ("_fc",)),
        ]
    elif isinstance(network, nets.ResNet) and network.fc is not None:
        layers = [Block(f"layer{i}", (f"layer{i}",)) for i in range(1, 5)]
        blocks = [Block("stem", ("conv1", "bn1")), *layers, Block("fc", ("fc",))]
    elif isinstance(network, nets.DenseNet):
        blocks = _densenet(network)
    else:
        blocks = _generic(network)
    head = blocks[-1].prefixes[-1]
    layer = network.get_submodule(last_layer(network))
    features = next((int(getattr(layer, a)) for a in ("in_features", "in_channels") if hasattr(layer, a)), 0)
    return Anatomy(tuple(blocks), head, features)


def _single(parent: str, n: int) -> list[Block]:
    return [Block("stem" if i == 0 else f"{parent}.{i}", (f"{parent}.{i}",)) for i in range(n)]


def _densenet(network: nets.DenseNet) -> list[Block]:
    n = sum(name.startswith("denseblock") for name, _ in network.features.named_children())
    followed = [f"features.transition{i}" if i < n else "features.norm5" for i in range(1, n + 1)]
    dense = [Block(f"denseblock{i}", (f"features.denseblock{i}", followed[i - 1])) for i in range(1, n + 1)]
    head = Block("class_layers", ("class_layers",))
    return [Block("stem", ("features.conv0", "features.norm0")), *dense, head]


def _generic(network: nn.Module) -> list[Block]:
    head = last_layer(network)
    names: list[str] = []

    def collect(module: nn.Module, prefix: str) -> None:
        own = [key for key in module.state_dict() if "." not in key]
        if own:
            owner = prefix or type(network).__name__
            raise ValueError(f"{owner} holds {', '.join(own)} beside modules: its blocks are unclear.")
        for name, child in module.named_children():
            full = f"{prefix}.{name}" if prefix else name
            if not child.state_dict():
                continue
            if full != head and head.startswith(f"{full}."):
                collect(child, full)
            else:
                names.append(full)

    if head == "":
        raise ValueError(f"{type(network).__name__} is a single layer: it has no blocks.")
    collect(network, "")
    return [Block(name, (name,)) for name in names]
