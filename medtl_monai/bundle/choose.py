"""How a training learns: the strategy as the user gave it, or the bundle's as far as the data goes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from monai.data import DataLoader, Dataset

from ..data import repeat_minority as repeated
from ..model import Model
from ..strategies import STRATEGIES, Chain, Strategy, build, describe
from ..strategies.text import parse, render
from .cases import Parts

__all__ = ["box_columns", "choose_strategy", "scoring_loaders", "training_items", "training_loader", "wants_boxes"]

_log = logging.getLogger("medtl_monai")

_VALIDATION_BATCH = 32


def choose_strategy(
    strategy: str | Strategy | Sequence[str | Strategy],
    *,
    weights: str | None,
    items: Sequence[Mapping[str, Any]],
    exact: bool = False,
    cache_features: str | None = None,
) -> Strategy:
    """The strategy of a training. Of a bundle's default, what the data or the weights have no use for is left out.

    Without weights nothing can be frozen or tuned: ``scratch`` is in its place. Where no image has a box, or cached
    features hide where lesions are, there is no ``localization``.

    Args:
        strategy: as text, an object or a list.
        weights: what the training starts from.
        items: of the training part.
        exact: the user gave it: take all of it.
        cache_features: where features of frozen blocks are kept, if they are.

    Raises:
        UserError: there is no such strategy.
    """
    if exact or not isinstance(strategy, str):
        return build(strategy)
    parts = parse(strategy)
    if weights in (None, "none"):
        parts = _from_scratch(parts)
    if cache_features is not None or not any(item.get("box") for item in items):
        parts = [part for part in parts if "boxes" not in STRATEGIES[part[0]].needs]
    made = build(render(parts))
    if describe(made) != describe(strategy):
        _log.info(f"strategy {describe(made)}: what this training has a use for of the default {describe(strategy)}")
    return made


def _from_scratch(parts: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The parts that make sense without weights."""
    kept = [part for part in parts if not STRATEGIES[part[0]].sets_trainable and part[0] != "finetune"]
    return [("scratch", {}), *kept]


def wants_boxes(strategy: Any, others: Sequence[Any] = ()) -> bool:
    """Whether a training looks at boxes around lesions: by its strategy, or because any of ``others`` is set."""
    made = build(strategy)
    parts = list(made) if isinstance(made, Chain) else [made]
    return any(others) or any("boxes" in part.needs for part in parts)


def box_columns(columns: str | Sequence[str] | None, strategy: Any) -> str | Sequence[str] | None:
    """The columns of boxes that are read: those given; ``auto`` finds them where the strategy learns from boxes."""
    return None if columns == "auto" and not wants_boxes(strategy) else columns


def training_items(items: Sequence[dict[str, Any]], repeat_minority: bool) -> list[dict[str, Any]]:
    """The items of a training's epoch."""
    return repeated(items) if repeat_minority else list(items)


def training_loader(dataset: Dataset, batch_size: int, drop_last: bool | None = None, **more: Any) -> DataLoader:
    """Batches of one size: an incomplete one, which batch norm would take for the whole, is left out if it can be."""
    drop_last = len(dataset) > batch_size if drop_last is None else drop_last
    return DataLoader(dataset, batch_size=batch_size, drop_last=drop_last, **more)


def scoring_loaders(
    model: Model, parts: Parts, train: Dataset, validate: Dataset, num_workers: int = 0
) -> dict[str, DataLoader]:
    """Every part of a training's data as it is scored at the end, unshuffled and without augmentation.

    Args:
        model: that is trained.
        parts: the split.
        train: the training's own images.
        validate: those of its validation.
        num_workers: loading processes.
    """
    if model.images == "stacks":  # whose labels are scored in their own space
        preparation = model.preparation("score")
        return {part: DataLoader(Dataset(parts.of(part), preparation)) for part in ("train", "val", "test")}
    preparation = model.preparation("validate")
    if model.images == "breasts":  # where training repeats and crops
        train = Dataset(parts.of("train"), preparation)
    found = {"train": train, "val": validate, "test": Dataset(parts.of("test"), preparation)}
    how = {"batch_size": _VALIDATION_BATCH, "num_workers": num_workers}
    return {part: DataLoader(dataset, **how) for part, dataset in found.items()}
