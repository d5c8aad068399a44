"""Which modules of a network are frozen, and the state that their outputs depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..backbones import anatomy, modules_of
from ..utils import is_under, unwrap

__all__ = ["beside", "checksum", "frozen_modules", "state_of", "unseen"]


def frozen_modules(network: nn.Module) -> tuple[str, ...]:
    """Names of the modules of the leading blocks of which no parameter is trained; the head is never among them.

    Example:
        >>> from ..backbones import build
        >>> network = build("resnet18")
        >>> _ = network.conv1.requires_grad_(False), network.bn1.requires_grad_(False)
        >>> frozen_modules(network)
        ('conv1', 'bn1')
    """
    network = unwrap(network)
    names: list[str] = []
    for block in anatomy(network).blocks[:-1]:
        if any(p.requires_grad and is_under(name, block.prefixes) for name, p in network.named_parameters()):
            break
        names += modules_of(network, block.prefixes)
    return tuple(names)


def state_of(network: nn.Module, frozen: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Weights and statistics, of any shape, of the modules named ``frozen`` and of parameters beside them, by name."""
    for name in frozen:
        for key, tensor in network.get_submodule(name).state_dict(keep_vars=True).items():
            yield f"{name}.{key}", tensor
    for name in beside(network, frozen):
        yield name, network.get_parameter(name)


def beside(network: nn.Module, frozen: Sequence[str]) -> dict[str, set[str]]:
    """Parameters beside modules (class tokens) of the blocks whose modules are ``frozen``, with the names of these."""
    parameters = {name for name, _ in network.named_parameters()}
    found: dict[str, set[str]] = {}
    for block in anatomy(network).blocks[:-1]:
        modules = set(modules_of(network, block.prefixes))
        if modules <= set(frozen):
            found |= {name: modules for name in block.prefixes if name in parameters}
    return found


def unseen(network: nn.Module, frozen: Sequence[str], used: Sequence[str]) -> list[str]:
    """Those of them that only frozen modules see: nothing is computed from them in a replay."""
    return [name for name, modules in beside(network, frozen).items() if not modules & set(used)]


def checksum(tensor: Tensor) -> int:
    """Changes with the content of a tensor of any shape, also where torch's version counter does not (``.data``)."""
    bits = tensor.detach().contiguous().view(-1).view(torch.uint8)
    words = bits.view(torch.int64) if len(bits) % 8 == 0 else bits
    return int(torch.hash_tensor(words).item()) if len(bits) else 0
