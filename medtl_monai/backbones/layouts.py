"""Where the parts of MONAI's networks are, in the order in which an image passes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from monai.networks import nets
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets.resnet import ResNetFeatures
from torch import nn

from ..utils import UserError, is_under
from .heads import HEADS

__all__ = ["BLOCKS", "REFUSED", "layout", "refuse"]

_NESTED = ("a network that calls itself",)  # read by a function: its names depend on its depth

BLOCKS: dict[type[nn.Module], tuple[str, ...]] = {
    nets.AHNet: (
        *("conv1 + bn0", "layer1", "layer2", "layer3", "layer4"),
        *("up0 + dense0", "up1 + dense1", "up2 + dense2", "trans1 + dense3", "up3 + dense4", "psp", "final"),
    ),
    nets.AttentionUnet: _NESTED,
    nets.BasicUNet: (
        *("conv_0", "down_1", "down_2", "down_3", "down_4"),
        *("upcat_4", "upcat_3", "upcat_2", "upcat_1", "final_conv"),
    ),
    nets.BasicUNetPlusPlus: (
        *(f"conv_{i}_0" for i in range(5)),
        *(f"upcat_{i}_{j}" for j in range(1, 5) for i in range(4, -1, -1) if i + j < 5),
        " + ".join(f"final_conv_0_{i}" for i in range(1, 5)),
    ),
    nets.Classifier: ("net.*", "final"),
    nets.DynUNet: (
        *("input_block", "downsamples.*", "bottleneck", "upsamples.*"),
        "deep_supervision_heads.* + output_block",
    ),
    nets.HighResNet: ("blocks.*", "blocks.-1"),
    nets.MedNeXt: (
        *("stem", "enc_stages.* + down_blocks.*", "bottleneck", "up_blocks.* + dec_stages.*"),
        "out_blocks.* + out_0",
    ),
    nets.NetAdapter: ("features.*", "fc"),
    nets.Quicknat: _NESTED,
    nets.SegResNet: ("convInit", "down_layers.*", "up_samples.* + up_layers.*", "conv_final"),
    nets.SegResNetDS: (
        *("encoder.conv_init", "encoder.layers.*.blocks + encoder.layers.*.downsample"),
        *("up_layers.*.upsample + up_layers.*.blocks", "up_layers.*.head + up_layers.-1.head"),
    ),
    # the first of the convolutions beside the transformer sees the image, but is no use to what follows in it
    nets.SwinUNETR: (
        *("swinViT.patch_embed", *(f"swinViT.layers{i}c.* + swinViT.layers{i}.*" for i in range(1, 5))),
        *("encoder1", "encoder2", "encoder3", "encoder4", "encoder10"),
        *("decoder5", "decoder4", "decoder3", "decoder2", "decoder1", "out"),
    ),
    nets.UNet: _NESTED,
    nets.UNETR: (
        *("vit.patch_embedding", "vit.blocks.*", "& vit.norm"),
        *("encoder1", "encoder2", "encoder3", "encoder4", "decoder5", "decoder4", "decoder3", "decoder2", "out"),
    ),
    nets.ViT: ("cls_token + patch_embedding", "blocks.*", "& norm", "classification_head"),
    nets.VNet: (
        *("in_tr", "down_tr32", "down_tr64", "down_tr128", "down_tr256"),
        *("up_tr256", "up_tr128", "up_tr64", "up_tr32", "out_tr"),
    ),
}
"""Blocks of MONAI's networks beside those that :data:`HEADS` knows: from the stem to the head, which is the last.

``a + b`` is one block, ``a.*`` a block for each child of ``a``, ``a.-1`` its last child; ``& a`` belongs to the block
before. What a network lacks is left out. What stands before the head in its block are auxiliary heads.
"""

_DOWNSTREAM = "gives maps for another network and no classes"

REFUSED: dict[type | None, str] = {
    nets.Critic: "tells real images from others and no classes",
    nets.DAF3D: "gives a list of maps in training and is built on torchvision",
    nets.DiNTS: "is put together by a search, which is not plain data",
    nets.Discriminator: "tells real images from others and no classes",
    nets.EfficientNetBNFeatures: _DOWNSTREAM,
    nets.HoVerNet: "gives several maps of different meaning by name",
    nets.MILModel: "takes bags of images",
    nets.NaViT: "takes lists of images of different size",
    ResNetFeatures: _DOWNSTREAM,
    nets.SegResNetDS2: "gives the answers of two decoders",
    nets.SegResNetVAE: "gives a loss beside its logits; SegResNet is the same without it",
    nets.TorchVisionFCModel: "takes its network from torchvision; the same ones are here by name, such as resnet50",
    nets.Transchex: "takes texts beside images",
    nets.VISTA3D: "takes points and classes beside images",
}
"""MONAI's networks that do not classify or segment as others do, and why; others that are not known do neither."""


def refuse(kind: type[nn.Module]) -> None:
    """Say why networks of this ``kind`` cannot be used, if they are MONAI's and cannot.

    Raises:
        UserError: they cannot.
    """
    known = {*BLOCKS, *HEADS, nets.FlexibleUNet}
    base = next((base for base in kind.__mro__ if base in known or base in REFUSED), None)
    if base in known or not any(base.__module__.startswith("monai.networks.nets") for base in kind.__mro__):
        return
    reason = REFUSED.get(base, "neither classifies nor segments images")
    raise UserError(
        f"{kind.__name__} cannot be used, as it {reason}: take another network, such as DenseNet121 or SegResNet."
    )


def layout(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Blocks by name, from the stem to the head: the names of their modules, and of parameters beside modules.

    Empty: :data:`BLOCKS` does not hold this kind of network.

    Raises:
        UserError: the network was built without a head, or holds something that its kind does not.
    """
    kind = next((base for base in type(network).__mro__ if base in BLOCKS), None)
    if kind is None:
        return {}
    *body, last = _READERS[kind](network) if kind in _READERS else BLOCKS[kind]
    held = {name for name, module in network.named_modules(remove_duplicate=False) if module.state_dict()}
    held |= set(network.state_dict())
    head = _numbered(network, last.split(" + ")[-1])
    if head not in held or not getattr(network, "use_conv_final", True):  # SegResNet's is there, but does not run
        hint = _HINTS.get(kind, "build it with one")
        raise UserError(f"{kind.__name__} was built without its head, {head}: {hint}.")
    blocks = [*_before_head(network, body, held - {head}), (*_beside_head(network, last, held - {head}), head)]
    titles = ["stem", *(block[0] for block in blocks[1:-1]), head]
    _add_aliases(network, blocks)
    _check_all_held(kind, network, blocks)
    return dict(zip(titles, blocks, strict=True))


def _check_all_held(kind: type[nn.Module], network: nn.Module, blocks: Sequence[tuple[str, ...]]) -> None:
    beside = [key for key in network.state_dict() if _owner(key, blocks) is None]
    if beside:
        raise UserError(f"{kind.__name__} holds {', '.join(beside)}, which its kind does not: its blocks are unclear.")


def _beside_head(network: nn.Module, template: str, held: Collection[str]) -> Iterable[str]:
    """The auxiliary heads, of what is ``held``, each once."""
    return dict.fromkeys(name for names in _expand(network, template) for name in names if name in held)


def _before_head(network: nn.Module, templates: Iterable[str], held: Collection[str]) -> list[tuple[str, ...]]:
    """The blocks that the templates stand for, of what is ``held``; a norm belongs to the block before it."""
    blocks: list[tuple[str, ...]] = []
    for template in templates:
        for names in _expand(network, template.removeprefix("& ")):
            found = tuple(name for name in names if name in held)
            if blocks and (template.startswith("& ") or all(_is_norm(network, name) for name in found)):
                blocks[-1] = (*blocks[-1], *found)
            else:
                blocks.append(found)
    return blocks


_HINTS = {
    nets.SegResNet: "leave use_conv_final out",
    nets.ViT: "give classification=True, or take UNETR for segmentation",
}


def _numbered(network: nn.Module, name: str) -> str:
    """``name`` with the last child's for ``-1``."""
    parent, sep, rest = name.partition(".-1")
    return f"{parent}.{list(network.get_submodule(parent)._modules)[-1]}{rest}" if sep else name


def _expand(network: nn.Module, template: str) -> Iterator[tuple[str, ...]]:
    """The names that a template stands for, block by block."""
    parts = [_numbered(network, part) for part in template.split(" + ")]
    children = dict.fromkeys(child for part in parts for child in _children(network, part))
    if not children:
        yield tuple(part for part in parts if "*" not in part)
    for child in children:
        yield tuple(part.replace("*", child) for part in parts)


def _children(network: nn.Module, part: str) -> Iterable[str]:
    """What ``*`` in a part of a template stands for."""
    parent, star, _ = part.partition(".*")
    modules = dict(network.named_modules(remove_duplicate=False))
    return modules[parent]._modules if star and parent in modules else ()


def _is_norm(network: nn.Module, name: str) -> bool:
    parent, _, child = name.rpartition(".")
    return isinstance(getattr(network.get_submodule(parent), child), nn.modules.batchnorm._BatchNorm)


def _add_aliases(network: nn.Module, blocks: list[tuple[str, ...]]) -> None:
    """Give modules that are registered twice, such as DynUNet's, all their names."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    for module, same in names.items():
        if len(same) > 1 and module.state_dict():
            _add_names(same, blocks)


def _add_names(same: Sequence[str], blocks: list[tuple[str, ...]]) -> None:
    """Give the first block that holds one of the names of a module those that no block has."""
    owners = {name: _owner(name, blocks) for name in same}
    first = min((i for i in owners.values() if i is not None), default=None)
    if first is not None:
        blocks[first] = (*(name for name in same if owners[name] is None), *blocks[first])


def _owner(name: str, blocks: Sequence[tuple[str, ...]]) -> int | None:
    """Which of the blocks a module or parameter lies in."""
    return next((i for i, block in enumerate(blocks) if is_under(name, block)), None)


def _unet(network: nn.Module) -> Iterator[str]:
    """Of ``(down, skip around the deeper part, up[, classifier])``: all ways down, the bottom, all ways up."""
    name, ups = "model", []
    while isinstance(network.get_submodule(name)._modules.get("1"), SkipConnection):
        down, skip, *up = network.get_submodule(name)._modules
        yield f"{name}.{down}"
        ups += [f"{name}.{child}" for child in reversed(up)]
        name = f"{name}.{skip}.submodule"
    yield name
    yield from reversed(ups)


def _attention_unet(network: nn.Module) -> Iterator[str]:
    """Likewise; a way up is an attention gate, a transposed convolution and what merges both."""
    yield "model.0"
    name, ups = "model.1", []
    while True:
        ups.append(" + ".join(f"{name}.{part}" for part in ("upconv", "attention", "merge")))
        name += ".submodule"
        if not isinstance(network.get_submodule(name), nn.Sequential):
            break
        yield f"{name}.0"
        name += ".1"
    yield name
    yield from reversed(ups)
    yield "model.2"


_READERS: dict[type[nn.Module], Callable[[nn.Module], Iterator[str]]] = {
    nets.AttentionUnet: _attention_unet,
    nets.Quicknat: _unet,
    nets.UNet: _unet,
}
