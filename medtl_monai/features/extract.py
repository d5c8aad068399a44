"""What the head of a network receives for every image of a loader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..backbones import anatomy, modules_of
from ..backbones.tap import Tap
from ..utils import unwrap, with_bar
from .cache import FeatureCache

__all__ = ["extract_features"]


def extract_features(
    network: nn.Module,
    loader: DataLoader,
    prepare_batch: Callable[..., Any],
    *,
    device: torch.device | str = "cpu",
    place: str = "memory",
    progress: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What the head of ``network`` receives for each image of ``loader``, and the labels.

    For few-shot classification (:mod:`medtl_monai.fewshot`), importance weights and transferability. With a folder as
    ``place`` they are computed once: later calls read them, however the network was changed in its head, and open no
    image but those of the first batch, which is compared.

    Args:
        network: on ``device``.
        loader: of batches with ``image`` and, if any, ``label``.
        prepare_batch: as of :class:`FeatureCache`, without augmentation.
        device: where the network is.
        place: ``memory``, or a folder.
        progress: show a bar.

    Returns:
        Features ``(N, F)``, averaged over space, and labels ``(N, ...)`` or ``None``, both in the order of the data
        set and on the CPU.
    """
    parts, was_training = anatomy(network), network.training
    frozen = [name for block in parts.blocks[:-1] for name in modules_of(unwrap(network), block.prefixes)]
    cache = FeatureCache(network.eval(), loader, prepare_batch, place=place, frozen=frozen, entries=False)
    tap = Tap(network, parts.head)
    cache.refresh()
    features: dict[int, Tensor] = {}
    labels: dict[int, Tensor] = {}
    try:
        with torch.no_grad():
            for batch in with_bar(cache.loader, "features", progress):
                image, label = cache.prepare_batch(batch, device)
                network(image)
                rows = batch["row"].tolist()
                features |= zip(rows, tap.pooled.cpu(), strict=True)
                labels |= {} if label is None else zip(rows, label.cpu(), strict=True)
    finally:
        tap.close()
        cache.close()
        network.train(was_training)
    return _in_order(features), _in_order(labels) if labels else None


def _in_order(rows: dict[int, Tensor]) -> Tensor:
    """A tensor of the rows by their numbers."""
    return torch.stack([rows[row] for row in sorted(rows)])
