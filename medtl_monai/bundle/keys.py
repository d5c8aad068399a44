"""The keys of a configuration: which there are, which the user gave, and what their values may be."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ComponentLocator, ConfigParser
from torch.utils.data import DataLoader

from ..model import Model
from ..utils import UserError

__all__ = [
    "DECIDED",
    "SETTINGS",
    "TEXTS",
    "as_typed",
    "check_keys",
    "check_nested",
    "check_values",
    "given_keys",
    "own_configuration",
    "switched",
]

SETTINGS: dict[str, tuple[type, float, float]] = {
    "epochs": (int, 1, 100_000),
    "batch_size": (int, 1, 100_000),
    "lr": (float, 1e-12, 100.0),
    "weight_decay": (float, 0.0, 100.0),
    "seed": (int, 0, 2**31 - 1),
    "num_workers": (int, 0, 1024),
    "image_size": (int, 32, 4096),
    "channels": (int, 1, 1024),
    "val_fraction": (float, 0.01, 0.9),
    "val_interval": (int, 1, 100_000),
    "fold": (int, 0, 100_000),
    "patience": (int, 1, 100_000),
    "cache_views": (int, 0, 100_000),
    "normal_share": (float, 0.0, 1.0),
    "slice_share": (float, 0.0, 1.0),
}
"""Numbers that a bundle's configuration takes: type, least and largest value."""

TEXTS = (
    *(
        "dataset_dir",
        "target_dir",
        "output_dir",
        "checkpoint",
        "resume",
        "cache_dir",
        "cache_features",
        "layout",
        "table",
    ),
    *("image_column", "label_column", "patient_column", "box_mode", "backbone", "weights", "strategy", "transforms"),
    *("loss_name", "axes", "device", "amp_dtype", "cache_dtype", "part", "domain", "runtime", "voting"),
)
"""Keys whose values are text, whatever MONAI's command line makes of them."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_is_text, value))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(TEXTS, (_is_text, "a text")),
    "label_column": (lambda v: _is_text(v) or _are_texts(v), "the name of a column, or a list of names"),
    "strategy": (lambda v: _is_text(v) or (isinstance(v, list) and bool(v)), "a text, or a list of texts"),
    "backbone": (lambda v: _is_text(v) or _is_mapping(v), "a name, or a dictionary with _target_"),
    "box_columns": (lambda v: v == "auto" or (_are_texts(v) and len(v) == 4), "auto, or a list of four columns"),
    "source_classes": (_are_texts, "a list of names"),
    "key_map": (lambda v: _is_text(v) or _is_mapping(v), "a file, 'pattern=replacement', or a dictionary"),
    "allow_missing": (lambda v: v == [] or _are_texts(v), "a list of names"),
    "structures": (lambda v: _are_texts(v) or (_is_mapping(v) and bool(v)), "a list of names, or names with values"),
    **dict.fromkeys(("variant", "layout_options", "loss_options", "loss_weights"), (_is_mapping, "a dictionary")),
    "groups": (
        lambda v: _is_mapping(v) and all(map(_are_texts, v.values())),
        "a dictionary of classes with lists of labels",
    ),
    **dict.fromkeys(("augmentation", "mix", "inferer"), (_is_object, "a dictionary with _target_")),
}
"""What else keys hold, where they hold anything, in code and in words."""

DECIDED = ("dataset_dir", "checkpoint", "checkpoints", "device", "amp", "amp_dtype", "crop")
"""Keys whose value may follow from the machine or the data; ``config.json`` holds what was decided."""

_PASSED_ON: dict[str, Any] = {
    "medtl_monai.bundle.new_model": Model,
    "medtl_monai.bundle.read_model": Model,
    "medtl_monai.bundle.training_loader": DataLoader,
}
"""To what a function gives the arguments that it does not take itself."""

_PLAIN = ("variant", "layout_options", "loss_options", "loss_weights", "groups", "structures", "default")
_MONAIS = ("run_name",)  # MONAI's federated client adds it to every configuration


def given_keys(config: Mapping[str, Any], base: Mapping[str, Any], own: bool) -> set[str]:
    """The keys that the user gave: on the command line, or by a value that is not the bundle's.

    Args:
        config: that runs.
        base: the bundle's own.
        own: whether ``config`` began as the bundle's own file; of another file, such as ``config.json`` of a run, all
            keys are given.
    """
    typed = {re.split("::|#", name)[0] for name in (*_typed(), *_overlaid())}
    return {key for key, value in config.items() if not own or key in typed or value != base.get(key, ...)}


def as_typed(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with texts as the user typed them: MONAI's command line makes numbers of ``2023`` and ``2024_01_31``.

    Elsewhere the texts ``true``, ``false`` and ``null`` become what they say.
    """
    typed = _typed()
    result = {}
    for key, value in config.items():
        result[key] = _text(value, typed.get(key)) if key in TEXTS else switched(value)
    return result


def _text(value: Any, typed: str | None) -> Any:
    if isinstance(value, (int, float, tuple)):
        return typed if typed is not None and _read(typed) == value else str(value)
    return None if value == "null" else value


def switched(config: Any) -> Any:
    """``config`` with the texts ``true``, ``false`` and ``null`` made what they say: MONAI takes them from the shell as
    texts.

    Example:
        >>> switched({"calibrate": "false", "steps": ["true", "$false"], "fold": "null"})
        {'calibrate': False, 'steps': [True, '$false'], 'fold': None}
    """
    if isinstance(config, dict):
        return {key: switched(value) for key, value in config.items()}
    if isinstance(config, list):
        return [switched(value) for value in config]
    return {"true": True, "false": False, "null": None}.get(config, config) if isinstance(config, str) else config


def _typed() -> dict[str, str]:
    """What stands on the command line, by key."""
    found, words = {}, sys.argv[1:]
    for i, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if not equals:
                value = words[i + 1] if i + 1 < len(words) else ""
            found[name.replace("-", "_")] = value
    return found


def _overlaid() -> list[str]:
    """The keys of configuration files after the first on the command line."""
    files = _read(_typed().get("config_file", ""))
    found: list[str] = []
    for file in files[1:] if isinstance(files, (list, tuple)) else ():
        if Path(file).is_file() and Path(file).suffix == ".json":
            found += json.loads(Path(file).read_text(encoding="utf-8"))
    return found


def _read(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check_keys(config: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse keys of ``config`` that are neither in ``known`` nor used by another entry.

    Raises:
        UserError: naming the key and the nearest known ones.
    """
    text = json.dumps(config, default=repr)
    used = {re.split("::|#", reference)[0] for reference in re.findall(r"@([A-Za-z_][\w:#]*)", text)}
    for key in config:
        if key not in (ConfigParser.meta_key, *_MONAIS) and key not in known and key not in used:
            near = get_close_matches(key, list(known), n=1)
            hint = f"did you mean --{near[0]}?" if near else "the bundle's README lists the keys."
            raise UserError(f"this bundle has no key {key!r}: {hint}")


def check_nested(config: Mapping[str, Any], base: Mapping[str, Any], path: str = "") -> None:
    """Refuse keys inside of ``config`` that the bundle's own does not have, and that its objects do not take.

    Args:
        config: the configuration, or a part of it.
        base: the same of the bundle's own.
        path: where the part is.

    Raises:
        UserError: naming the key and the nearest known ones.
    """
    for key, value in config.items():
        here, before = f"{path}{key}", base.get(key)
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            check_nested(_numbered(value), _numbered(before) if isinstance(before, list) else {}, f"{here}::")
        elif isinstance(value, Mapping) and key not in _PLAIN:
            known = _known_inside(value, before)
            if known is not None:
                _refuse_unknown(value, known, here)
                check_nested(value, before if isinstance(before, Mapping) else {}, f"{here}::")


def _known_inside(value: Mapping[str, Any], before: Any) -> list[str] | None:
    """The keys that ``value`` may have where the bundle has ``before``; ``None``: any."""
    own, target = list(before) if isinstance(before, Mapping) else None, value.get("_target_")
    if target is None:
        return own
    takes = _parameters(target)
    if takes is None:  # it takes any, or cannot be found, which MONAI says
        return None
    return [*(own if own and before.get("_target_") == target else []), *takes]


def _refuse_unknown(value: Mapping[str, Any], known: Sequence[str], here: str) -> None:
    for name in value:
        if name not in known and not str(name).startswith("_"):
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
            raise UserError(f"{here} has no {name!r}: {hint}")


def _numbered(values: list[Any]) -> dict[str, Any]:
    return {str(i): value for i, value in enumerate(values)}


def _parameters(target: Any) -> list[str] | None:
    """Names of the arguments of what ``_target_`` names; ``None``: any, or it is not known."""
    thing = _located(target)
    if not callable(thing):
        return None
    try:
        parameters = [*inspect.signature(thing).parameters.values()]
    except (TypeError, ValueError):
        return None
    if target in _PASSED_ON:
        parameters = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
        parameters += inspect.signature(_PASSED_ON[target]).parameters.values()
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        return None
    return [p.name for p in parameters]


def _located(target: Any) -> Any:
    """What ``_target_`` names, as MONAI finds it."""
    from pydoc import locate

    if not isinstance(target, str):
        return None
    module = _LOCATOR.get_component_module_name(target)
    if isinstance(module, list):
        module = module[0] if module else None
    return locate(f"{module}.{target}" if module else target)


_LOCATOR = ComponentLocator()


def check_values(config: Mapping[str, Any], switches: Sequence[str] = ()) -> None:
    """Refuse numbers of a wrong type or out of range, and values of ``switches`` that are neither true nor false.

    Raises:
        UserError: naming the key, what was expected and what was found.

    Example:
        >>> check_values({"epochs": "ten"})
        Traceback (most recent call last):
        ...
        medtl_monai.utils.UserError: epochs must be a whole number from 1 to 100000, got 'ten'.
    """
    for key in SETTINGS:
        if not _comes_later(config.get(key)):
            _check_number(key, config[key])
    for key in switches:
        value = config.get(key, False)
        if value is None or not (isinstance(value, bool) or _comes_later(value)):
            raise UserError(f"{key} must be true or false, got {value!r}.")
    for key in _KINDS:
        if not _comes_later(config.get(key)):
            _check_kind(key, config[key])
    _check_device(config.get("device"))


def _comes_later(value: Any) -> bool:
    """Whether a value is not set, or is an object or an expression that MONAI evaluates."""
    made = isinstance(value, Mapping) and "_target_" in value
    return value is None or made or str(value).startswith(("$", "@"))


def _check_kind(key: str, value: Any) -> None:
    fits, expected = _KINDS[key]
    if not fits(value):
        raise UserError(f"{key} must be {expected}, got {value!r}.")
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{key} holds a character that no name can hold: {value!r}.")


def _check_number(key: str, value: Any) -> None:
    kind, least, most = SETTINGS[key]
    fits = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not fits or not least <= value <= most:
        noun = "whole number" if kind is int else "number"
        raise UserError(f"{key} must be a {noun} from {least:g} to {most:g}, got {value!r}.".replace("1e+05", "100000"))


def _check_device(device: Any) -> None:
    if not isinstance(device, str) or _comes_later(device):
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        have = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise UserError(f"device {device!r} cannot be used here: choose from {have}.") from error


def own_configuration(bundle_root: str | Path, workflow: str) -> dict[str, Any]:
    """The bundle's own configuration of that name, and what several processes add to it."""
    known: dict[str, Any] = {}
    for name in (workflow, f"multi_gpu_{workflow}"):
        path = Path(bundle_root) / "configs" / f"{name}.json"
        if path.is_file():
            for key, value in json.loads(path.read_text(encoding="utf-8")).items():
                *outer, last = key.split("::")
                inside = known
                for part in outer:
                    inside = inside.setdefault(part, {})
                inside[last] = value
    return known
