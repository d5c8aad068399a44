"""The keys of a configuration: which there are, which the user gave, and what their values may be."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
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

    Raises:
        UserError: naming the key and the nearest known ones.
    """
    for key, value in config.items():
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            theirs = base.get(key) if isinstance(base, Mapping) else None
            check_nested(_numbered(value), _numbered(theirs) if isinstance(theirs, list) else {}, f"{path}{key}::")
            continue
        here, before = f"{path}{key}", base.get(key) if isinstance(base, Mapping) else None
        if key in _PLAIN or not isinstance(value, Mapping):
            continue
        known = list(before) if isinstance(before, Mapping) else []
        target = value.get("_target_")
        if target is not None:
            same = isinstance(before, Mapping) and before.get("_target_") == target
            takes = _parameters(target)
            if takes is None:  # it takes any, or cannot be found, which MONAI says
                continue
            known = [*(known if same else []), *takes]
        elif not isinstance(before, Mapping):
            continue
        for name in value:
            if name not in known and not str(name).startswith("_"):
                near = get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
                raise UserError(f"{here} has no {name!r}: {hint}")
        check_nested(value, before if isinstance(before, Mapping) else {}, f"{here}::")


def _numbered(values: list[Any]) -> dict[str, Any]:
    return {str(i): value for i, value in enumerate(values)}


def _parameters(target: Any) -> list[str] | None:
    """Names of the arguments of what ``_target_`` names; ``None``: any, or it is not known."""
    from pydoc import locate

    if not isinstance(target, str):
        return None
    found = _LOCATOR.get_component_module_name(target)
    if isinstance(found, list):
        found = found[0] if found else None
    thing = locate(f"{found}.{target}" if found else target)
    if thing is None or not callable(thing):
        return None
    try:
        parameters = [*inspect.signature(thing).parameters.values()]
        if target in _PASSED_ON:
            parameters = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
            parameters += inspect.signature(_PASSED_ON[target]).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        return None
    return [p.name for p in parameters]


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
    for key, (kind, least, most) in SETTINGS.items():
        value = config.get(key)
        if value is None or isinstance(value, Mapping) or (isinstance(value, str) and value.startswith(("$", "@"))):
            continue
        fits = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if not fits or not least <= value <= most:
            noun = "whole number" if kind is int else "number"
            raise UserError(
                f"{key} must be a {noun} from {least:g} to {most:g}, got {value!r}.".replace("1e+05", "100000")
            )
    for key in switches:
        value = config.get(key, False)
        if not isinstance(value, (bool, Mapping)) and not str(value).startswith(("$", "@")):
            raise UserError(f"{key} must be true or false, got {value!r}.")
    for key in TEXTS:
        value = config.get(key)
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"{key} holds a character that no name can hold: {value!r}.")
    _check_device(config.get("device"))


def _check_device(device: Any) -> None:
    if not isinstance(device, str) or device.startswith(("$", "@")):
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
