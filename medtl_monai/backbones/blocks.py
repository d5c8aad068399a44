"""Where a network's blocks are: from the stem, which sees the image, to the head, which names the class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from monai.networks import nets
from torch import nn

from ..utils import UserError, last_layer, unwrap
from .heads import HEADS, Head
from .inception import ConvNorm
from .layouts import layout, refuse

__all__ = ["Anatomy", "Block", "anatomy", "modules_of"]


@dataclass(frozen=True)
class Block:
    """A part of a network: its name and the modules that belong to it, the last of which gives the block's output.

    Parameters that stand beside modules, such as a class token, are named among them; so are modules by every name that
    they are registered under.
    """

    name: str
    prefixes: tuple[str, ...]

    def within(self, parent: str) -> Block:
        """This block of the network that is the module ``parent`` of another."""
        return Block(f"{parent}.{self.name}", tuple(f"{parent}.{prefix}" for prefix in self.prefixes))


def modules_of(network: nn.Module, prefixes: Iterable[str]) -> dict[str, nn.Module]:
    """Those of ``prefixes`` that are modules of ``network``, each once; parameters beside modules are left out."""
    found: dict[int, tuple[str, nn.Module]] = {}
    for prefix in prefixes:
        parent, _, name = prefix.rpartition(".")
        part = getattr(network.get_submodule(parent), name)
        if isinstance(part, nn.Module):
            found[id(part)] = (prefix, part)
    return dict(found.values())


@dataclass(frozen=True)
class Anatomy:
    """The ordered parts of a network.

    Attributes:
        blocks: from stem to head; every parameter and buffer lies in exactly one.
            The last is the head's, and where there are auxiliary heads theirs too.
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

    The networks of :data:`BACKBONES` are known, and those of MONAI that classify or segment; a network with a method
    ``anatomy`` is asked. Of any other the blocks are its children in order of registration, opened up until the head,
    its last layer, stands alone.

    Raises:
        UserError: a network of MONAI's that does neither, or was built without a head.
        ValueError: an unknown network is a single layer, or holds parameters or buffers beside its blocks.

    Example:
        >>> from .factory import build
        >>> parts = anatomy(build("resnet18"))
        >>> [block.name for block in parts.blocks], parts.head, parts.features
        (['stem', 'layer1', 'layer2', 'layer3', 'layer4', 'fc'], 'fc', 512)
    """
    network = unwrap(network)
    if hasattr(network, "anatomy"):
        return cast("Any", network).anatomy()
    refuse(type(network))
    if isinstance(network, nets.FlexibleUNet):
        return _flexible(network)
    blocks = [Block(name, prefixes) for name, prefixes in layout(network).items()]
    if blocks:
        head = blocks[-1].name
    elif not any(isinstance(network, kind) for kind in HEADS):
        head = last_layer(network)
        blocks = [Block(name, (name,)) for name in _parts(network, head)]
    else:
        head = _head(network)
        blocks = _known(network, head)
    return Anatomy(tuple(blocks), head, _features(network, head))


def _features(network: nn.Module, head: str) -> int:
    layers = network.get_submodule(head).modules()
    features = (getattr(layer, a, None) for layer in layers for a in ("in_features", "in_channels"))
    return next((n for n in features if n), 0)


def _flexible(network: nets.FlexibleUNet) -> Anatomy:
    """The encoder is a whole classification network, whose last layers are there but never run."""
    head = last_layer(network)
    blocks: list[Block] = []
    for name in _parts(network, head, ("decoder", "decoder.blocks")):
        inner = _known(network.encoder, "") if name == "encoder" else ()
        blocks += [block.within(name) for block in inner] or [Block(name, (name,))]
    return Anatomy(tuple(blocks), head, _features(network, head), encoder="encoder")


def _head(network: nn.Module) -> str:
    """The classifier where it is new or a single layer, else its last layer: those before it are pretrained too."""
    classifier = next(at for kind, (_, at) in HEADS.items() if isinstance(network, kind))
    if classifier not in (name for name, _ in network.named_modules()):
        raise UserError(f"{type(network).__name__} was built without its head, {classifier}: build it with one.")
    module = network.get_submodule(classifier)
    layers = [name for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    return classifier if isinstance(module, Head) or len(layers) == 1 else f"{classifier}.{layers[-1]}"


def _known(network: nn.Module, head: str) -> list[Block]:
    """What belongs together in one block: a convolution and its norm, the stem's convolutions, all heads."""
    auxiliary = getattr(network, "auxiliary", [])
    blocks: list[Block] = []
    for name in _parts(network, head, ("features", "_blocks")):
        module = network.get_submodule(name)
        follows = isinstance(module, nn.modules.batchnorm._BatchNorm) or ".transition" in name
        if name == head:
            blocks.append(Block(head, (*auxiliary, head)))
        elif follows or (len(blocks) == 1 and isinstance(module, ConvNorm)):
            blocks[-1] = Block(blocks[-1].name, (*blocks[-1].prefixes, name))
        elif name not in auxiliary:
            blocks.append(Block(name if blocks else "stem", (name,)))
    return blocks


def _parts(network: nn.Module, head: str, opened: Sequence[str] = (), prefix: str = "") -> Iterator[str]:
    """Names of the modules with weights, in order: children, those ``opened`` and around the head by their parts."""
    module = network.get_submodule(prefix)
    own = [key for key in module.state_dict() if "." not in key]
    if own:
        owner = prefix or type(network).__name__
        raise ValueError(f"{owner} holds {', '.join(own)} beside modules: its blocks are unclear.")
    for child, part in module.named_children():
        name = f"{prefix}.{child}" if prefix else child
        if name in opened or head.startswith(f"{name}."):
            yield from _parts(network, head, opened, name)
        elif part.state_dict():
            yield name
