"""What a training starts from: network, weights and preparation follow from each other unless the user says all."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ..backbones import BACKBONES
from ..model import PREPARATION, Model, read_checkpoint
from ..utils import UserError
from ..weights import SOURCES, Source, file_hash, find, local, lookup, read_rules, recognize

__all__ = [
    "backbone_of",
    "class_names",
    "follow",
    "image_statistics",
    "read_backbone",
    "standardizes",
    "weights_hash",
]

_log = logging.getLogger("medtl_monai")

_LABELLING = ("unet_", "fcn_")  # networks around a backbone, which takes its weights
_INSIDE = {"flexibleunet": "efficientnet_b0"}


def read_backbone(backbone: Any) -> str | dict[str, Any]:
    """A backbone as a model holds it: its name, or a dictionary with ``_target_``, which may come as JSON.

    Raises:
        UserError: neither.
    """
    if isinstance(backbone, str) and backbone.lstrip().startswith("{"):
        try:
            backbone = json.loads(backbone)
        except ValueError as error:
            raise UserError(f"backbone: {backbone} is no dictionary ({error}).") from error
    if isinstance(backbone, str):
        return backbone
    if not isinstance(backbone, Mapping) or "_target_" not in backbone:
        raise UserError(
            f"backbone must be a name, or a network of MONAI such as {{'_target_': 'DenseNet121'}}, got {backbone!r}."
        )
    return dict(backbone)


def follow(config: MutableMapping[str, Any], given: Collection[str]) -> None:
    """Let what was not given follow from what was, in place: the backbone, the weights and the preparation.

    A backbone alone takes the catalogue's weights of that network, if there are any; weights alone bring their network,
    and those of another run its preparation, too.

    Args:
        config: keys and values of a training.
        given: the keys that the user gave.

    Raises:
        UserError: no such weights or backbone, or both were given and do not belong together.
    """
    _check_said(config)
    if config["weights"] is None:
        config["weights"] = "none"
    backbone, weights = read_backbone(config["backbone"]), str(config["weights"])
    before = _model_of(weights)
    if "weights" in given and weights != "none":
        _take(config, given, backbone, weights, before)
    elif "backbone" in given and "weights" not in given and weights != "none":
        config["weights"] = _weights_for(backbone)
    if before is not None:
        _keep_preparation(config, given, before)
    else:
        _take_window(config, given)


def _check_said(config: Mapping[str, Any]) -> None:
    """What the user says of the weights shows its mistakes before images are read."""
    if config.get("key_map") is not None:
        read_rules(config["key_map"])
    for key in ("source_classes", "allow_missing"):
        names = config.get(key)
        if not (names is None or isinstance(names, str) or _are_names(names)):
            raise UserError(f"{key} must be a list of names, such as \"['one','other']\", got {names!r}.")


def _are_names(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values)


def _take_window(config: MutableMapping[str, Any], given: Collection[str]) -> None:
    """The fixed values that images of these weights were scaled by, unless the user says how they are."""
    source = _entry(config["weights"])
    if source is not None and source.window is not None and not {"window", "percentiles"} & set(given):
        config["window"] = list(source.window)
        _log.info(f"window {config['window']}, as the weights saw images")


def _take(
    config: MutableMapping[str, Any], given: Collection[str], backbone: Any, weights: str, before: Model | None
) -> None:
    """The network of given weights; one that was given, too, must be the same."""
    theirs, options = _network_of(weights, before)
    if theirs is None or isinstance(backbone, Mapping):
        return
    if "backbone" in given:
        if isinstance(theirs, str) and backbone_of(theirs) != backbone_of(backbone):
            raise UserError(
                f"the weights {weights} are of {theirs}, and backbone is {backbone}: give one, and the other follows."
            )
    else:
        config["backbone"] = _around(theirs, backbone)
        if config["backbone"] != backbone:
            _log.info(f"backbone {config['backbone']}, as the weights are of it")
    ours = dict(config.get("variant", {}))
    for name, value in options.items():
        if name not in ours:
            _log.info(f"variant {name} {value}, as the weights are of it")
        elif ours[name] != value:
            _log.warning(f"variant {name} {ours[name]} as given; the weights are of {value}, and may not fit")
    config["variant"] = {**options, **ours}


def _network_of(weights: str, before: Model | None) -> tuple[str | Mapping[str, Any] | None, dict[str, Any]]:
    """The network that weights are of, and its options; ``None`` where nothing says it."""
    if before is not None:
        return before.backbone, dict(before.variant)
    source = _entry(weights)
    return (None, {}) if source is None else (source.architecture, dict(source.options))


def _around(theirs: str | Mapping[str, Any], backbone: str) -> str:
    """The network ``theirs`` in place of a bundle's own: where that labels places, around the same decoder."""
    if not isinstance(theirs, str):
        return json.dumps(theirs)
    kind = next((kind for kind in _LABELLING if backbone.startswith(kind)), "")
    if theirs in BACKBONES:
        return f"{kind}{theirs}"
    return theirs if kind else backbone


def _weights_for(backbone: str | Mapping[str, Any]) -> str:
    inside = backbone_of(backbone) if isinstance(backbone, str) else None
    known = [source for source in SOURCES.values() if source.architecture == inside and source.spatial_dims == 2]
    known.sort(key=lambda source: (local(source) is None, not source.name.endswith("_imagenet")))
    weights = known[0].name if known else "none"
    why = f"the catalogue's for {backbone}" if known else f"the catalogue has none for {backbone}"
    _log.info(f"weights {weights}: {why}; --weights gives others")
    return weights


def _keep_preparation(config: MutableMapping[str, Any], given: Collection[str], before: Model) -> None:
    for key in PREPARATION:
        if key in config and _concerns(key, given, before):
            _keep(config, given, key, getattr(before, key))


def _concerns(key: str, given: Collection[str], before: Model) -> bool:
    """Whether the run before says something of ``key``: only stacks are cropped, and percentiles rule out a window."""
    return not (key == "crop" and before.images != "stacks") and not (key == "window" and "percentiles" in given)


def _keep(config: MutableMapping[str, Any], given: Collection[str], key: str, value: Any) -> None:
    theirs, ours = list(value) if isinstance(value, (list, tuple)) else value, config[key]
    other_channels = key in ("mean", "std") and len(theirs) != config["channels"]
    if ours == theirs or not (ours or theirs) or other_channels:
        return
    if key in given:
        _log.info(f"{key} {ours} as given; the run that the weights are of had {theirs}")
        return
    default = f"; by default {ours}" if not isinstance(ours, Mapping) and ours is not None else ""
    _log.info(f"{key} {theirs}, as in the run that the weights are of{default}")
    config[key] = theirs


def backbone_of(name: str) -> str:
    """The classification network in a network that labels places: ``unet_resnet18`` is around ``resnet18``."""
    bare = next((name.removeprefix(kind) for kind in _LABELLING if name.startswith(kind)), name)
    return _INSIDE.get(bare, bare)


def image_statistics(weights: str | None, channels: int) -> dict[str, list[float]]:
    """``mean`` and ``std`` per channel, on images in ``[0, 1]``, that the source's network was trained with.

    A file is known by its hash, or by what a run of this package wrote into it. Otherwise both are 0.5, which maps
    images to ``[-1, 1]``.

    Args:
        weights: a name of the catalogue, a file, or ``none``.
        channels: of an image.

    Raises:
        UserError: no such weights, or the run's file says what no training writes.
    """
    source = _entry(weights)
    if source is not None:
        mean, std = source.normalization(channels)
        return {"mean": list(mean), "std": list(std)}
    before = _model_of(weights)
    if before is not None and len(before.mean) == channels:
        return {"mean": list(before.mean), "std": list(before.std)}
    if weights not in (None, "none"):
        _log.warning(f"{weights} does not say how its images were scaled: mean and std are 0.5, unless you give them")
    return {"mean": [0.5] * channels, "std": [0.5] * channels}


def standardizes(weights: str | None) -> bool:
    """Whether the source's network saw each image standardized on its own."""
    source, before = _entry(weights), _model_of(weights)
    return source.standardizes if source is not None else before is not None and before.standardize


def class_names(weights: str | None) -> list[str]:
    """Names of the rows of the source's head, empty where a row was never trained; none where nothing says them."""
    source, before = _entry(weights), _model_of(weights)
    return list(source.classes if source is not None else before.classes if before is not None else ())


def weights_hash(weights: str | None) -> str | None:
    """SHA-256 of the file of these weights; ``None`` for none, or where it is not on this machine."""
    if weights in (None, "none"):
        return None
    file = local(SOURCES[weights]) if weights in SOURCES else Path(weights)
    return file_hash(file) if file is not None and file.is_file() else None


def _entry(weights: str | None) -> Source | None:
    """The catalogue's entry of a name, or of a file that is known; ``None`` for other files and for none."""
    if weights in (None, "none"):
        return None
    if weights in SOURCES:
        return SOURCES[weights]
    if Path(weights).is_file():
        return recognize(Path(weights), file_hash(Path(weights)))
    if Path(weights).suffix or "/" in weights:
        find(weights)  # says that there is no such file
    return lookup(weights)


def _model_of(weights: str | None) -> Model | None:
    """What a run of this package says of its weights; ``None`` for all others."""
    if weights in (None, "none") or weights in SOURCES or not Path(weights).is_file():
        return None
    try:
        told = "about" in read_checkpoint(weights)
    except UserError:  # of another trainer, or in another format: the loader says what it makes of it
        return None
    beside = Path(weights).with_suffix(".json")
    return Model.read(weights) if told or (beside.name == "model.json" and beside.is_file()) else None
