"""Source weights into the network, then the strategy: what is fine-tuned, and how."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import BACKBONES, anatomy, build, compare_sides
from ..runtime import RUNTIMES, Exported
from ..strategies import Chain, Context, Strategy, Target
from ..utils import UserError
from ..variants import VARIANTS, apply, domains_of
from ..weights import SOURCES, LoadReport, load_weights, source_head

__all__ = [
    "Transfer",
    "build_network",
    "image_statistics",
    "load_model",
    "model_settings",
    "read_checkpoint",
    "transfer",
]

_log = logging.getLogger("medtl_monai")


@dataclass(frozen=True)
class Transfer:
    """A network ready for the optimizer, and what became of the source's weights."""

    network: nn.Module
    report: LoadReport


def build_network(settings: Mapping[str, Any]) -> nn.Module:
    """The network of a model's settings: ``backbone``, ``channels``, ``classes``, ``variant``, ``compare_sides``,
    ``crop_size`` and ``lesion_map``.

    The entries of ``variant`` are those of :func:`medtl_monai.variants.apply`; others are options of the backbone. For
    a ``lesion_map`` the backbone labels every place: ``fcn_<backbone>``, unless it does so already.

    Raises:
        UserError: settings that exclude each other.
    """
    lesion_map, cropped = settings.get("lesion_map", False), settings.get("crop_size") is not None
    if lesion_map and cropped:
        raise UserError("crop_size and lesion_map exclude each other: leave one of them out.")
    backbone = settings["backbone"]
    if lesion_map and backbone in BACKBONES:
        backbone = f"fcn_{backbone}"
    variant = dict(settings["variant"])
    changes = {key: variant.pop(key) for key in VARIANTS if key in variant}
    network = build(backbone, in_channels=settings["channels"], num_classes=len(settings["classes"]), **variant)
    network = apply(network, changes, blocks=[block.prefixes[-1] for block in anatomy(network).blocks[:-1]])
    # trained on crops or maps it sees one side at a time, and the inferer compares what it says of both
    pairs = settings.get("compare_sides") and not cropped and not lesion_map
    return compare_sides(network) if pairs else network


def transfer(
    network: nn.Module,
    strategy: Strategy,
    weights: str | None,
    *,
    device: torch.device | str,
    min_coverage: float = 0.9,
    task: str = "classification",
    items: Sequence[Mapping[str, Any]] = (),
    classes: int = 0,
    source: Iterable[Tensor] | None = None,
    target: Target | None = None,
    cache_features: str | None = None,
) -> Transfer:
    """Load ``weights``, move the network to ``device`` and let ``strategy`` prepare it, in this order.

    Args:
        network: with a new head.
        strategy: what decides how the network learns.
        weights: a name of the catalogue, a file, or ``none``.
        device: where the training runs.
        min_coverage: least share of the backbone's elements that the source must fill.
        task: ``classification``, ``multilabel`` or ``segmentation``.
        items: of the training part, for strategies that look at labels, weights or domains.
        classes: how many there are.
        source: the training images in batches, in the order of ``items``, for strategies that compare them.
        target: images without labels, for strategies that use them.
        cache_features: where features of ``source`` and ``target`` are kept: ``memory`` or a folder.

    Raises:
        UserError: the weights fill too little, or the strategy lacks something that it needs, or the network needs the
            domains of the ``target``.
    """
    if target is not None and domains_of(network):
        raise UserError("norm domain: images in target_dir are of no known domain: leave it out, or take another norm.")
    origin = "none" if strategy.from_scratch or weights is None else weights
    parts = list(strategy) if isinstance(strategy, Chain) else [strategy]
    needing = [type(part).__name__ for part in parts if part.needs_source]
    if origin == "none" and needing:
        raise UserError(
            f"{' and '.join(needing)} needs pretrained weights, and weights is none: give weights or finetune."
        )
    where = anatomy(network)
    heads = any("source_head" in part.needs for part in parts)
    head = source_head(network, origin, head=where.head) if heads else None
    labels, weight, domain, boxes = (_column(items, key) for key in ("label", "weight", "domain", "box"))
    boxes = boxes if any(len(box) for box in boxes) else []
    context = Context(labels, classes, target, head, task, source, weight, domain, boxes)
    if cache_features is not None:
        context = replace(context, extract=lambda network, images: images.features(network, cache_features))
    strategy.bind(context)
    report = load_weights(network, origin, head=where.head, encoder=where.encoder, min_coverage=min_coverage)
    _log.info(f"weights\n{report}")
    layout = {"memory_format": torch.channels_last} if _is_2d(network) else {}
    network = strategy.prepare(network.to(device, **layout))
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    total = sum(p.numel() for p in network.parameters())
    _log.info(
        f"strategy {' + '.join(type(part).__name__ for part in parts)}: {trained:,} of {total:,} parameters trained"
    )
    return Transfer(network, report)


def _column(items: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    """The entry ``key`` of every item; nothing unless all have it."""
    return [item[key] for item in items] if all(key in item for item in items) else []


def image_statistics(weights: str | None, channels: int) -> dict[str, list[float]]:
    """``mean`` and ``std`` per channel, on images in ``[0, 1]``, that the source's network was trained with.

    Without a catalogue entry (a file, or none) both are 0.5, which maps images to ``[-1, 1]``; a checkpoint of a bundle
    brings its own.
    """
    if weights in SOURCES:
        mean, std = SOURCES[weights].normalization(channels)
        return {"mean": list(mean), "std": list(std)}
    if weights is not None and Path(weights).is_file():
        saved = read_checkpoint(weights).get("settings", {})
        if len(saved.get("mean", [])) == channels:
            return {"mean": saved["mean"], "std": saved["std"]}
    return {"mean": [0.5] * channels, "std": [0.5] * channels}


def model_settings(checkpoint: str, default: Mapping[str, Any]) -> dict[str, Any]:
    """What a trained model needs besides its weights: from the checkpoint, else ``default`` where there is none yet.

    So that a model trained on other classes, or with another backbone, is scored and used without repeating its
    settings.
    """
    return (
        {**default, **read_checkpoint(checkpoint).get("settings", {})} if Path(checkpoint).is_file() else dict(default)
    )


def load_model(network: nn.Module, checkpoint: str, *, device: torch.device | str, runtime: str = "torch") -> nn.Module:
    """``network`` with the weights of a bundle's checkpoint, all of them, on ``device`` and in evaluation mode.

    Args:
        network: of the checkpoint's architecture.
        checkpoint: the file.
        device: where it runs.
        runtime: ``torch``, or one of :data:`medtl_monai.runtime.RUNTIMES`, which run on the CPU.

    Raises:
        UserError: no such file, or it does not fit the network; or the runtime is not known, not installed or not for
            this device or network.
    """
    if runtime != "torch" and (runtime not in RUNTIMES or torch.device(device).type != "cpu"):
        raise UserError(
            f"runtime must be torch, or on the CPU (--device cpu) {' or '.join(RUNTIMES)}; got {runtime!r} on {device}."
        )
    if not Path(checkpoint).is_file():
        raise UserError(
            f"there are no trained weights at {checkpoint}: give --checkpoint a best.pt of a training, "
            "or train with --save_to_models true."
        )
    state = read_checkpoint(checkpoint)
    try:
        network.load_state_dict(state.get("model", state))
    except RuntimeError as error:
        raise UserError(f"{checkpoint} does not fit the network: {str(error).splitlines()[1].strip()}") from error
    layout = {"memory_format": torch.channels_last} if _is_2d(network) else {}
    network = network.to(device, **layout).eval()
    return network if runtime == "torch" else Exported(network, runtime)


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a checkpoint: tensors, numbers, text and lists of these, on the CPU.

    Raises:
        UserError: it cannot be read, or holds code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: no checkpoint at all, a pickle of code, a truncated file
        raise UserError(f"{path} is no checkpoint that can be read safely: {str(error).splitlines()[0]}") from error
    return content if isinstance(content, dict) else {}


def _is_2d(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in network.modules())
