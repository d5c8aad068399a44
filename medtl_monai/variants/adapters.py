"""Small trainable additions to frozen pretrained weights.

LoRA and IA3 are torch parametrizations of a layer's weight: every layer is covered, whatever its stride, groups or
padding, and :func:`merge_adapters` turns them into plain weights with the same outputs. (`peft` wraps linear and
convolutional layers in modules of its own, which renames every weight and leaves out grouped convolutions.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..utils import UserError, last_layer

__all__ = ["ADAPTERS", "IA3", "LoRA", "ResidualAdapter", "add_adapters", "merge_adapters"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (nn.Linear, *_CONVS)
_SIDE = 96  # large enough for every network


class LoRA(nn.Module):
    """``W + (alpha / rank) B A``: a low-rank change of a weight ``(out, in / groups, *kernel)``, zero at first.

    References:
        Hu, Shen, Wallis et al. LoRA: low-rank adaptation of large language models. ICLR 2022.
    """

    def __init__(self, weight: Tensor, rank: int = 4, alpha: float = 8.0) -> None:
        super().__init__()
        rank = min(rank, len(weight), weight[0].numel())
        self.lora_a = nn.Parameter(torch.empty(rank, weight[0].numel(), device=weight.device, dtype=weight.dtype))
        self.lora_b = nn.Parameter(torch.zeros(len(weight), rank, device=weight.device, dtype=weight.dtype))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + self.scale * (self.lora_b @ self.lora_a).view_as(weight)


class IA3(nn.Module):
    """One factor for each output of a layer with weights ``(out, in / groups, *kernel)``, 1 at first.

    References:
        Liu, Tam, Muqeeth et al. Few-shot parameter-efficient fine-tuning is better and cheaper than in-context
        learning. NeurIPS 2022.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.ia3 = nn.Parameter(torch.ones(len(weight), device=weight.device, dtype=weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        """The scaled weight."""
        return weight * self.ia3.view(-1, *[1] * (weight.ndim - 1))


class ResidualAdapter(nn.Module):
    """``y + conv1x1(y)`` behind a block, zero at first: the adapter of Rebuffi et al. in series.

    References:
        Rebuffi, Bilen, Vedaldi. Learning multiple visual domains with residual adapters. NeurIPS 2017.
    """

    def __init__(self, channels: int, ndim: int) -> None:
        super().__init__()
        self.conv = _CONVS[ndim - 3](channels, channels, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(cast("Tensor", self.conv.bias))

    def forward(self, y: Tensor) -> Tensor:
        """Adapted ``y``, ``(B, C, *spatial)``."""
        return y + self.conv(y)


def _behind_block(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return cast("nn.Module", module.residual_adapter)(output)


def _channels_behind(network: nn.Module, blocks: Sequence[str]) -> dict[str, int]:
    """Channels of the maps that leave the blocks, from a forward pass without data."""
    twin = copy.deepcopy(network).to("meta").eval()
    found: dict[str, int] = {}
    for block in blocks:
        twin.get_submodule(block).register_forward_hook(partial(_note, found, block))
    first = next(module for module in twin.modules() if isinstance(module, _CONVS))
    twin(torch.empty(1, first.in_channels, *[_SIDE] * (first.weight.ndim - 2), device="meta"))
    return found


def _note(found: dict[str, int], block: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    if output.ndim > 2:
        found[block] = output.shape[1]


ADAPTERS = ("lora", "ia3", "residual")
"""Names for :func:`add_adapters`."""


def add_adapters(network: nn.Module, name: str, *, blocks: Sequence[str] = (), **settings: Any) -> nn.Module:
    """Add adapters to ``network``, in place, and freeze the weights that they adapt; the head stays trainable.

    Args:
        network: any network.
        name: ``lora`` or ``ia3``: on every linear and convolutional layer before the head; ``residual``: behind each of
            ``blocks``.
        blocks: names of modules.
        settings: ``rank`` and ``alpha`` of LoRA.

    Returns:
        ``network``. Pretrained weights load into it by their old names.

    Raises:
        UserError: an unknown name or setting, or nothing to adapt.
    """
    _check(name, settings)
    if name == "residual":
        _add_behind(network, blocks)
    else:
        _add_to_weights(network, partial(LoRA, **settings) if name == "lora" else IA3)
    return network


def _check(name: str, settings: Mapping[str, Any]) -> None:
    if name not in ADAPTERS:
        raise UserError(f"there is no adapter {name!r}: choose from {', '.join(ADAPTERS)}.")
    if set(settings) - ({"rank", "alpha"} if name == "lora" else set()):
        raise UserError(f"adapter {name} does not take {', '.join(settings)}.")
    if name == "lora" and settings.get("rank", 4) < 1:
        raise UserError(f"lora: rank must be at least 1, got {settings['rank']}.")


def _add_behind(network: nn.Module, blocks: Sequence[str]) -> None:
    """Residual adapters behind the blocks; what stands before the head is frozen."""
    dims = next(m.weight.ndim for m in network.modules() if isinstance(m, _CONVS))
    channels = _channels_behind(network, blocks)
    if not channels:
        raise UserError(f"residual adapters stand behind blocks, and {type(network).__name__} names none.")
    head = last_layer(network)
    for name, parameter in network.named_parameters():
        if not name.startswith(f"{head}."):
            parameter.requires_grad_(False)
    for block, count in channels.items():
        module = network.get_submodule(block)
        module.residual_adapter = ResidualAdapter(count, dims)
        module.register_forward_hook(_behind_block)


def _add_to_weights(network: nn.Module, make: Callable[[Tensor], nn.Module]) -> None:
    """An adapter on the weight of each layer before the head, and that weight frozen."""
    head = last_layer(network)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, _LAYERS) and name != head:
            adapter = make(layer.weight)
            layer.weight.requires_grad_(False)
            parametrize.register_parametrization(layer, "weight", adapter)


def merge_adapters(network: nn.Module) -> nn.Module:
    """Turn LoRA and IA3 into plain weights, in place: the same outputs, without their cost."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return network
