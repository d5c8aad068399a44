"""The beginning of a run: plain errors, checked keys, and what follows from what, before any image is read."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch

from ..backbones import BACKBONES
from ..model import Model
from ..strategies import Strategy, build
from ..utils import UserError, first_process
from ..weights import find, kind_of
from .describe import read_model
from .folder import is_finished, last_checkpoint
from .keys import as_typed, check_keys, check_nested, check_values, given_keys, own_configuration
from .memory import keep_freed_memory
from .origin import follow, read_backbone
from .record import begin_record
from .stopping import end_in_a_sentence
from .workflow import running

__all__ = [
    "default_amp",
    "default_amp_dtype",
    "default_device",
    "find_root",
    "models_folder",
    "new_output_dir",
    "quieten_monai",
    "settle",
    "start",
]

_log = logging.getLogger("medtl_monai")

_OF_WEIGHTS = ("source_classes", "axes", "key_map", "allow_missing")
_COUNTS = ("out_channels", "num_classes", "n_classes")  # what MONAI's networks call the number of outputs


def start(bundle_root: str, workflow: str) -> None:
    """Make mistakes readable and find them before any image is read; settle what follows from what the user gave.

    The stock runner accepts any key and answers mistakes with long stack traces.

    Args:
        bundle_root: the bundle's folder.
        workflow: name of the configuration that runs: ``train``, ``evaluate`` or ``inference``.

    Raises:
        UserError: a key that the configuration does not know, or a value of a wrong type or out of range.
    """
    end_in_a_sentence()
    quieten_monai()
    now = running()
    if now is None:
        return
    keep_freed_memory()
    parser, base = now.parser, own_configuration(bundle_root, workflow)
    config = cast("dict[str, Any]", parser.config)
    _join_processes(config)
    begin_record()
    if now.run_id not in now.parser:  # MONAI takes the first word that belongs to no key for the name of what is run
        raise UserError(
            f"{now.run_id!r} belongs to no key: put a value that has spaces in quotes, as in --strategy 'freeze + ema'."
        )
    own = now.config_root_path.resolve() == (Path(bundle_root) / "configs").resolve()
    given = given_keys(config, base, own)
    config = as_typed(config)
    parser.config = cast("Any", config)
    settle(config, base, given, workflow)
    parser.parse(reset=True)


def settle(config: dict[str, Any], base: Mapping[str, Any], given: set[str], workflow: str) -> None:
    """Check a configuration and let what was not given follow from what was, in place.

    Args:
        config: that is to run.
        base: the bundle's own.
        given: the keys that the user gave.
        workflow: as of :func:`start`.

    Raises:
        UserError: a mistake.
    """
    check_keys(config, base)
    check_nested(config, base)
    check_values(config, [key for key, default in base.items() if isinstance(default, bool)])
    if config.get("output_dir") == "":
        raise UserError("output_dir is empty: give the name of a folder, or leave it out.")
    if workflow != "train":
        _check_checkpoints(config)
        return
    _go_on(config)
    _take_network(config, base, given)
    follow(config, given)
    check_values(config)  # some may be of another run
    _refuse_unused(config, base)
    config["strategy_def"]["exact"] = "strategy" in given
    made = _strategy(config["strategy"])
    _check_network(config)
    if config["weights"] != "none" and not (made is not None and made.from_scratch):
        kind_of(find(config["weights"]))


def _refuse_unused(config: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Refuse what says something of weights where there are none."""
    if config["weights"] != "none":
        return
    for key in _OF_WEIGHTS:
        if config.get(key) != base.get(key):
            raise UserError(f"{key} has no effect without weights: give --weights too, or leave it out.")


def _strategy(strategy: Any) -> Strategy | None:
    """What a text, or a list of them, says; of an object, or an expression, that comes later."""
    texts = strategy if isinstance(strategy, list) else [strategy]
    known = all(isinstance(text, str) and not text.startswith(("$", "@")) for text in texts)
    return build(strategy) if known else None


def _go_on(config: dict[str, Any]) -> None:
    """A training whose folder holds it, unfinished, goes on from its last checkpoint."""
    if not isinstance(config["output_dir"], str) or config.get("resume") is not None:
        return
    folder = Path(config["output_dir"]).resolve()
    last = last_checkpoint(folder)
    if last is not None and (folder / "config.json").is_file() and not is_finished(folder):
        config["resume"] = str(last)
        _log.info(f"{folder} holds this run, unfinished: it goes on from {last.name}")


def _take_network(config: dict[str, Any], base: Mapping[str, Any], given: set[str]) -> None:
    """A network given as an object is the backbone: as text, so that MONAI does not make it and a model can hold it."""
    if config.get("network_def") != base.get("network_def"):
        if "backbone" in given:
            raise UserError("backbone and network_def both name a network: give backbone alone.")
        config["backbone"], config["network_def"] = config["network_def"], base["network_def"]
        given.add("backbone")
    backbone = read_backbone(config["backbone"])
    config["backbone"] = backbone if isinstance(backbone, str) else json.dumps(backbone)
    if not isinstance(backbone, str) and "weights" not in given:
        config["weights"] = "none"
        _log.info("weights none: the network is not of the catalogue; --weights gives a file")
        given.add("weights")


def _check_checkpoints(config: Mapping[str, Any]) -> None:
    """Trained weights that are not there show before images are read."""
    several = config.get("checkpoints")
    named = several if isinstance(several, list) else [config.get("checkpoint")]
    for file in named:
        if isinstance(file, str) and not file.startswith(("$", "@")):
            read_model(file, config["model"]["default"])


def _check_network(config: Mapping[str, Any]) -> None:
    """Make the network without memory for its weights: what it cannot be shows before images are read."""
    model = _draft(config)
    model.prepare_batch(mix=config.get("mix"))
    try:
        with torch.device("meta"):
            network = model.network().eval()
            output = network(torch.empty(1, *model.input_shape))
    except UserError:
        raise
    except Exception:  # of a network that needs real numbers to be made
        return
    segments, backbone = model.learns == "segmentation", model.backbone
    if segments != (output.ndim > 2):
        around = segments and isinstance(backbone, str) and backbone in BACKBONES
        fitting = f"unet_{backbone}" if around else "another network"
        what = "one answer a pixel" if segments else "one answer an image"
        raise UserError(f"backbone {backbone} does not give {what}: take {fitting}.")


def _draft(config: Mapping[str, Any]) -> Model:
    """The model as far as it is known without images: classes, statistics and domains are made up."""
    own = {field.name: config[field.name] for field in fields(Model) if _is_known(config.get(field.name))}
    own |= {"backbone": read_backbone(config["backbone"]), "images": config["model"]["images"]}
    own["variant"] = _without_domains(own.get("variant", {}))
    channels = config.get("channels", 1)
    own |= {"mean": [0.5] * channels, "std": [0.5] * channels}
    names = [str(k) for k in range(_outputs(own["backbone"]))]
    if own["images"] == "stacks":
        structures = {name: int(name) for name in names[1:]}
        return Model(
            **{**own, "task": "segmentation", "classes": ["background", *structures], "structures": structures}
        )
    return Model(**{**own, "task": "classification", "classes": names, "structures": {}})


def _outputs(backbone: str | Mapping[str, Any]) -> int:
    """How many a network says that it has; two where that follows from the data."""
    said = [] if isinstance(backbone, str) else [backbone[name] for name in _COUNTS if name in backbone]
    return said[0] if said and isinstance(said[0], int) else 2


def _without_domains(variant: Any) -> Any:
    """A variant without the norm whose domains the data names."""
    if not isinstance(variant, Mapping) or "domain" not in str(variant.get("norm")):
        return variant
    return {key: value for key, value in variant.items() if key != "norm"}


def _is_known(value: Any) -> bool:
    """Whether a value is set, and not an object or an expression that is evaluated later."""
    later = "_target_" in value if isinstance(value, Mapping) else str(value).startswith(("$", "@"))
    return value is not None and not later


def _join_processes(config: Mapping[str, Any]) -> None:
    """Let the processes of one training find each other; only the first talks."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return
    if "DistributedDataParallel" not in str(config.get("network")):
        raise UserError("several processes need configs/multi_gpu_train.json after train.json in --config_file.")
    if torch.cuda.is_available():
        torch.cuda.set_device(default_device())
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if not first_process():
        _log.setLevel(logging.ERROR)


def quieten_monai() -> None:
    """Leave out warnings and summaries that are of MONAI's own doing, and of no use to who runs a command."""
    for message in ("`torch.jit", "NvImgCodecPydicomReader", "PydicomReader: ImageOrientationPatient"):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("monai.bundle"):
            logging.getLogger(name).setLevel(logging.WARNING)


def default_device() -> str:
    """The GPU, that of this process where there are several; without one the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def default_amp(device: str) -> bool:
    """Half precision is for GPUs: few CPUs are quicker with it."""
    return str(device).startswith("cuda")


def default_amp_dtype(device: str) -> str:
    """Of half precision: float16 on a GPU, elsewhere bfloat16, which has the range for gradients."""
    return "float16" if str(device).startswith("cuda") else "bfloat16"


def models_folder(bundle_root: str, wanted: bool) -> str | None:
    """Where a bundle's own model lies, where one is wanted."""
    return str(Path(bundle_root) / "models") if wanted else None


def find_root() -> str:
    """The folder of the bundle whose configuration is being run: the parent of its ``configs`` folder.

    So that a bundle runs from any folder. Without a running workflow it is the current folder.
    """
    now = running()
    return str((Path(now.config_root_path) if now else Path("configs")).resolve().parent)


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
