"""Key maps: how other libraries name the same weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from ..utils import UserError

__all__ = ["KEY_MAPS", "KeyMap", "Rule", "is_added", "plain_key", "read_rules", "remap"]

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression and what replaces it: text, or a function of the match."""

KeyMap: TypeAlias = str | Mapping[str, str] | Sequence[Rule]
"""What :func:`read_rules` takes: rules, or where and how they are written."""

KEY_MAPS: dict[str, Sequence[Rule]] = {
    # torchvision's file says norm.1 (older) or norm1 in a dense layer; MONAI puts the layers into a Sequential; CheXNet
    # puts its classifier into another
    "torchvision_densenet": (
        (r"^(features\.denseblock\d+\.denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3."),
        (r"^classifier\.(0\.)?", r"class_layers.out."),
    ),
    # what stands in "features" alone, as in RadImageNet's DenseNet
    "features": (
        (r"^", "features."),
        (r"^(features\.denseblock\d+\.denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3."),
    ),
    "mmpretrain": ((r"^(backbone|head)\.", ""),),
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
        UserError: two keys are given the same name.

    Example:
        >>> list(remap({"encoder.fc.weight": Tensor()}, [(r"^encoder\\.", "")]))
        ['fc.weight']
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        new = renamed_key(key, rules)
        if new in renamed:
            raise UserError(f"the key map gives two weights the name {new!r} (the second is {key!r}).")
        renamed[new] = value
    return renamed


def renamed_key(key: str, rules: Sequence[Rule]) -> str:
    """One key after all ``rules``, in their order."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def read_rules(key_map: KeyMap) -> Sequence[Rule]:
    """The rules of a key map.

    Args:
        key_map: a name of :data:`KEY_MAPS`; a JSON file that holds ``{pattern: replacement}``; such a dictionary; text
            of ``pattern=replacement``, several with spaces between them; or the rules themselves.

    Raises:
        UserError: it is none of these, or a pattern is no regular expression.

    Example:
        >>> read_rules("^net[.]= ^classifier[.]=fc.")
        [('^net[.]', ''), ('^classifier[.]', 'fc.')]
    """
    if isinstance(key_map, str):
        if key_map in KEY_MAPS:
            return KEY_MAPS[key_map]
        key_map = _read_file(Path(key_map)) if key_map.endswith(".json") else _read_text(key_map)
    rules = list(key_map.items()) if isinstance(key_map, Mapping) else key_map
    if isinstance(rules, str) or not isinstance(rules, Sequence):
        raise UserError(f"key_map must be text, a dictionary or a list of rules, got {rules!r}.")
    for rule in rules:
        _check(rule)
    return rules


def _read_file(path: Path) -> Any:
    try:
        rules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"key_map: {path} cannot be read as JSON ({error}).") from error
    if not isinstance(rules, dict):
        raise UserError(f"key_map: {path} must hold a dictionary {{pattern: replacement}}, got {type(rules).__name__}.")
    return rules


def _read_text(text: str) -> list[Rule]:
    words = text.split()
    if not words or not all("=" in word for word in words):
        raise UserError(
            f"key_map must be one of {', '.join(KEY_MAPS)}, a JSON file, or pattern=replacement, such as '^net[.]=', "
            f"got {text!r}."
        )
    halves = (word.rpartition("=") for word in words)
    return [(pattern, replacement) for pattern, _, replacement in halves]


def _check(rule: Any) -> None:
    if not isinstance(rule, (tuple, list)) or len(rule) != 2 or not (isinstance(rule[1], str) or callable(rule[1])):
        raise UserError(f"key_map: {rule!r} is no pattern and its replacement.")
    try:
        re.sub(rule[0], rule[1], "")
        groups = re.compile(rule[0])
        if isinstance(rule[1], str):
            re.compile(f"{groups.pattern}|").sub(rule[1], "")
    except (re.error, IndexError, TypeError) as error:
        raise UserError(f"key_map: {rule[0]!r} with {rule[1]!r} is no rule for names ({error}).") from error


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
