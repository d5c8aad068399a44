"""Key maps: how other libraries name the same weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

__all__ = ["KEY_MAPS", "Rule", "is_added", "plain_key", "remap"]

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression and what replaces it: text, or a function of the match."""

KEY_MAPS: dict[str, Sequence[Rule]] = {
    # torchvision's file says norm.1 (older) or norm1 in a dense layer; MONAI puts the layers into a Sequential
    "torchvision_densenet": (
        (r"^(features\.denseblock\d+\.denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3."),
        (r"^classifier\.", r"class_layers.out."),
    ),
    "medicalnet": ((r"^module\.", ""),),
    # the encoder of a LinkNet, which is a ResNet-18
    "deepbet": (
        (r"^init\.0\.", "conv1."),
        (r"^down([0-3])\.block([12])\.", lambda m: f"layer{int(m[1]) + 1}.{int(m[2]) - 1}."),
        (r"\.double_conv\.0\.", ".conv1."),
        (r"\.double_conv\.3\.", ".conv2."),
    ),
}
"""Ordered rules by name; each is applied once to every key."""


def remap(state: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """``state`` with its keys renamed by ordered regular expressions.

    Raises:
        ValueError: two keys are given the same name.

    Example:
        >>> list(remap({"encoder.fc.weight": Tensor()}, [(r"^encoder\\.", "")]))
        ['fc.weight']
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        new = key
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise ValueError(f"the key map gives two weights the name {new!r} (the second is {key!r}).")
        renamed[new] = value
    return renamed


def plain_key(key: str) -> str:
    """The name that a weight has in a network without variants.

    Example:
        >>> plain_key("conv1.parametrizations.weight.original"), plain_key("bn1.others.0.running_mean")
        ('conv1.weight', 'bn1.running_mean')
    """
    return re.sub(r"parametrizations\.(\w+)\.original$", r"\1", re.sub(r"\bothers\.\d+\.", "", key))


def is_added(key: str) -> bool:
    """Whether a weight is a variant's addition, which no source has.

    Example:
        >>> is_added("conv1.parametrizations.weight.0.lora_a"), is_added("conv1.weight")
        (True, False)
    """
    return re.search(r"\b(lora_[ab]|ia3|region_weight|region_bias|residual_adapter\.conv\.\w+)$", key) is not None
