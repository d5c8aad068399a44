"""The beginning of a run: plain errors, checked keys, a folder for everything the run leaves."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from ..utils import UserError, write_json
from .memory import keep_freed_memory

__all__ = [
    "SETTINGS",
    "check_keys",
    "check_values",
    "find_root",
    "new_output_dir",
    "quieten_monai",
    "start",
    "switched",
    "write_config",
]

SETTINGS: dict[str, tuple[type, float, float]] = {
    "epochs": (int, 1, 100_000),
    "batch_size": (int, 1, 100_000),
    "lr": (float, 1e-12, 100.0),
    "seed": (int, 0, 2**31 - 1),
    "num_workers": (int, 0, 1024),
    "image_size": (int, 32, 4096),
    "crop_size": (int, 2, 4096),
    "val_fraction": (float, 0.01, 0.9),
}
"""Numbers that a bundle's configuration takes: type, least and largest value."""

_log = logging.getLogger("medtl_monai")


def start(bundle_root: str, workflow: str) -> None:
    """Make mistakes readable and find misspelt keys, before anything else happens.

    The stock runner accepts any key and answers mistakes with long stack traces.

    Args:
        bundle_root: the bundle's folder.
        workflow: name of the configuration that runs: ``train``, ``evaluate`` or ``inference``.

    Raises:
        UserError: a key that the configuration does not know, or a value of a wrong type or out of range.
    """
    sys.excepthook = _print_user_error
    quieten_monai()
    running = _running()
    if running is None:
        return
    keep_freed_memory()
    known: dict[str, Any] = {}
    for name in (workflow, f"multi_gpu_{workflow}"):
        path = Path(bundle_root) / "configs" / f"{name}.json"
        if path.is_file():
            known.update(json.loads(path.read_text(encoding="utf-8")))
    parser = running.parser
    parser.config = switched(parser.config)
    for item in parser.ref_resolver.items.values():  # which hold copies
        item.update_config(switched(item.get_config()))
    check_keys(parser.config, known)
    check_values(parser.config, [key for key, default in known.items() if isinstance(default, bool)])


def quieten_monai() -> None:
    """Leave out warnings that are of MONAI's own doing, and of no use to who runs a command."""
    for message in ("`torch.jit", "NvImgCodecPydicomReader", "PydicomReader: ImageOrientationPatient"):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)


def check_keys(config: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse keys of ``config`` that are neither in ``known`` nor used by another entry.

    Raises:
        UserError: naming the key and the nearest known ones.
    """
    text = json.dumps(config, default=repr)
    used = {re.split("::|#", reference)[0] for reference in re.findall(r"@([A-Za-z_][\w:#]*)", text)}
    for key in config:
        if key != ConfigParser.meta_key and key not in known and key not in used:
            near = get_close_matches(key, list(known), n=1)
            hint = f"did you mean --{near[0]}?" if near else "the bundle's README lists the keys."
            raise UserError(f"this bundle has no key {key!r}: {hint}")


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
        if value is None or (isinstance(value, str) and value.startswith(("$", "@"))):
            continue
        fits = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if not fits or not least <= value <= most:
            noun = "whole number" if kind is int else "number"
            raise UserError(
                f"{key} must be a {noun} from {least:g} to {most:g}, got {value!r}.".replace("1e+05", "100000")
            )
    for key in switches:
        value = config.get(key, False)
        if not isinstance(value, bool) and not str(value).startswith(("$", "@")):
            raise UserError(f"{key} must be true or false, got {value!r}.")
    if config.get("lesion_map") is True and config.get("mix") is not None:
        raise UserError("lesion_map and mix exclude each other, label maps cannot be mixed: leave one of them out.")
    device = config.get("device")
    if isinstance(device, str) and not device.startswith(("$", "@")):
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            have = "cpu, cuda" if torch.cuda.is_available() else "cpu"
            raise UserError(f"device {device!r} cannot be used here: choose from {have}.") from error


def switched(config: Any) -> Any:
    """``config`` with the texts ``true``, ``false`` and ``null`` made what they say: MONAI takes them from the shell as
    texts.

    Example:
        >>> switched({"calibrate": "false", "steps": ["true", "$false"], "patient_column": "null"})
        {'calibrate': False, 'steps': [True, '$false'], 'patient_column': None}
    """
    if isinstance(config, dict):
        return {key: switched(value) for key, value in config.items()}
    if isinstance(config, list):
        return [switched(value) for value in config]
    return {"true": True, "false": False, "null": None}.get(config, config) if isinstance(config, str) else config


def find_root() -> str:
    """The folder of the bundle whose configuration is being run: the parent of its ``configs`` folder.

    So that a bundle runs from any folder. Without a running workflow it is the current folder.
    """
    running = _running()
    return str((Path(running.config_root_path) if running else Path("configs")).resolve().parent)


def new_output_dir(bundle_root: str) -> str:
    """``<bundle_root>/runs/<date>-<time>``; the processes of one training agree on it."""
    name = [time.strftime("%Y%m%d-%H%M%S")]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(name)
    path = Path(bundle_root) / "runs" / name[0]
    tries = 1
    while path.exists():
        tries += 1
        path = path.with_name(f"{name[0]}-{tries}")
    return str(path)


def write_config(output_dir: str, bundle_root: str) -> None:
    """Write ``config.json``: the configuration of this run, with which it can be run again.

    Paths are made absolute. ``output_dir`` and ``resume`` are left at their defaults, so that the run is repeated as a
    whole and into a new folder.
    """
    running = _running()
    if running is None:
        return
    config = copy.deepcopy(dict(running.parser.config))
    config.pop(ConfigParser.meta_key, None)
    config["bundle_root"] = str(Path(bundle_root).resolve())
    config["output_dir"] = {"_target_": "medtl_monai.bundle.new_output_dir", "bundle_root": "@bundle_root"}
    for key in ("dataset_dir", "checkpoint", "weights"):
        value = config.get(key)
        if isinstance(value, str) and not value.startswith(("$", "@")) and os.path.exists(value):
            config[key] = os.path.abspath(value)
    if "resume" in config:
        config["resume"] = None
    write_json(Path(output_dir) / "config.json", json.loads(json.dumps(config, default=repr)))


def _running() -> ConfigWorkflow | None:
    """The workflow that is evaluating this expression; MONAI hands expressions no reference to it."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ConfigWorkflow):
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


def _print_user_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:  # MONAI wraps errors: look along the chain of causes
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            print(f"error: {cause}", file=sys.stderr)
            return
        cause = cause.__cause__ or cause.__context__
    sys.__excepthook__(kind, error, trace)
