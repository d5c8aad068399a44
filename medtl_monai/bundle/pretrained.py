"""Source weights into the network, then the strategy: what is fine-tuned, and how."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import anatomy
from ..inference import RUNTIMES, Exported
from ..model import Model, read_checkpoint
from ..strategies import Chain, Context, Strategy, Target, describe
from ..utils import UserError
from ..variants import domains_of
from ..weights import KeyMap, LoadReport, load_weights, source_head
from .origin import class_names as rows_of

__all__ = ["Transfer", "fill", "load_network", "transfer"]

_log = logging.getLogger("medtl_monai")


@dataclass(frozen=True)
class Transfer:
    """A network ready for the optimizer, and what became of the source's weights."""

    network: nn.Module
    report: LoadReport


def transfer(
    network: nn.Module,
    strategy: Strategy,
    weights: str | None,
    *,
    device: torch.device | str,
    task: str = "classification",
    items: Sequence[Mapping[str, Any]] = (),
    classes: int = 0,
    class_names: Sequence[str] = (),
    source_classes: Sequence[str] | str | None = None,
    axes: str | None = None,
    key_map: KeyMap | None = None,
    allow_missing: Sequence[str] | str = (),
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
        task: ``classification``, ``multilabel`` or ``segmentation``.
        items: of the training part, for strategies that look at labels, weights or domains.
        classes: how many there are.
        class_names: of the head's rows: those that the source names, too, are taken from it, and no others; none given:
            a head of as many rows is.
        source_classes: names of the source's rows; default: what the catalogue or the run says that it is of.
        axes: order of the source's three axes, such as ``ZYX``; default: the catalogue's.
        key_map: renames the source's weights (:func:`medtl_monai.weights.read_rules`).
        allow_missing: modules or weights that may stay random.
        source: the training images in batches ``(B, C, *spatial)``, in the order of ``items``, for strategies that
            compare them.
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
    where = anatomy(network)
    _check_needs(parts, origin)
    head = _source_head(parts, network, origin, where.head, key_map)
    strategy.bind(_context(items, classes, target, head, task, source, cache_features))
    report = load_weights(
        network,
        origin,
        head=where.head,
        encoder=where.encoder,
        **_same_rows(origin, class_names, source_classes),
        axes=axes,
        key_map=key_map,
        allow_missing=_listed(allow_missing),
    )
    _log.info(f"weights\n{report}")
    layout: dict[str, Any] = {"memory_format": torch.channels_last} if _is_2d(network) else {}
    network = strategy.prepare(network.to(device, **layout))
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    total = sum(p.numel() for p in network.parameters())
    _log.info(f"strategy {describe(strategy)}: {trained:,} of {total:,} parameters trained")
    return Transfer(network, report)


def _check_needs(parts: Sequence[Strategy], origin: Any) -> None:
    needing = [type(part).__name__ for part in parts if part.needs_source]
    if needing and origin == "none":
        raise UserError(
            f"{' and '.join(needing)} needs pretrained weights, and weights is none: give weights or finetune."
        )


def _source_head(
    parts: Sequence[Strategy], network: nn.Module, origin: Any, head: str, key_map: KeyMap | None
) -> nn.Linear | None:
    """The source's own last layer, where a strategy looks at it."""
    if not any("source_head" in part.needs for part in parts):
        return None
    return source_head(network, origin, head=head, key_map=key_map)


def _context(
    items: Sequence[Mapping[str, Any]],
    classes: int,
    target: Target | None,
    head: nn.Linear | None,
    task: str,
    source: Iterable[Tensor] | None,
    cache_features: str | None,
) -> Context:
    labels, weight, domain, boxes = (_column(items, key) for key in ("label", "weight", "domain", "box"))
    boxes = boxes if any(len(box) for box in boxes) else []
    context = Context(labels, classes, target, head, task, source, weight, domain, boxes)
    if cache_features is None:
        return context
    return replace(context, extract=lambda network, images: images.features(network, cache_features))


def _same_rows(origin: Any, here: Sequence[str], source: Sequence[str] | str | None) -> dict[str, Any]:
    """Which rows of the source's head are of classes here, for :func:`load_weights`: none where it does not say it."""
    if not here or origin == "none":
        return {}
    theirs = _listed(source) if source else rows_of(origin) if isinstance(origin, str) else []
    return {"classes": here, "source_classes": theirs} if theirs else {"class_map": {}}


def _listed(names: Sequence[str] | str) -> list[str]:
    """Names as a list, of which the command line makes text where there is one."""
    return [names] if isinstance(names, str) else list(names)


def _column(items: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    """The entry ``key`` of every item; nothing unless all have it."""
    return [item[key] for item in items] if all(key in item for item in items) else []


def load_network(model: Model, checkpoint: str, *, device: torch.device | str, runtime: str = "torch") -> nn.Module:
    """The network of a trained model with its weights, on ``device`` and in evaluation mode.

    Args:
        model: of the checkpoint.
        checkpoint: the file.
        device: where it runs.
        runtime: ``torch``, or one of :data:`medtl_monai.inference.RUNTIMES`, which run on the CPU.

    Raises:
        UserError: no such file, or it does not fit the network; or the runtime is not known, not installed or not for
            this device or network.
    """
    if runtime != "torch" and (runtime not in RUNTIMES or torch.device(device).type != "cpu"):
        raise UserError(
            f"runtime must be torch, or on the CPU (--device cpu) {' or '.join(RUNTIMES)}; got {runtime!r} on {device}."
        )
    network = fill(model.network(), checkpoint, device)
    return network if runtime == "torch" else Exported(network, runtime)


def fill(network: nn.Module, checkpoint: str | Path, device: torch.device | str) -> nn.Module:
    """``network`` with the weights of a checkpoint, all of them, on ``device`` and in evaluation mode.

    Raises:
        UserError: the checkpoint does not fit the network.
    """
    content = read_checkpoint(checkpoint)
    weights = content["model"] if isinstance(content.get("model"), Mapping) else content
    broken = [key for key, value in weights.items() if isinstance(value, Tensor) and not value.isfinite().all()]
    if broken:
        raise UserError(f"{checkpoint} holds weights that are no finite numbers ({', '.join(map(str, broken[:3]))}).")
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[-1].strip()
        raise UserError(f"{checkpoint} does not fit the network: {reason}") from error
    layout: dict[str, Any] = {"memory_format": torch.channels_last} if _is_2d(network) else {}
    return network.to(device, **layout).eval()


def _is_2d(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in network.modules())
