"""A run whose frozen blocks are computed once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ignite.engine import Engine, Events
from torch import nn

from ..features import FeatureCache
from ..model import Model
from ..strategies import STRATEGIES, Chain, Strategy
from ..utils import MonaiEngine, UserError

__all__ = ["CacheFeatures"]

_log = logging.getLogger("medtl_monai")


class CacheFeatures:
    """Handler that lets a trainer and its validator compute the frozen blocks once an image.

    Attach it after the strategy. Validation images are never augmented and always cached; training images are cached if
    there is no augmentation, or in ``views`` augmented versions.

    Args:
        place: ``memory``, a folder, or ``None`` for no cache.
        model: that is trained.
        network: its network.
        strategy: it must freeze the first blocks.
        validator: the evaluator that scores every epoch; it is not cached where its inferer divides the images.
        views: how many augmented views of a training image are kept; 0 without augmentation.
        dtype: ``float16`` for half the memory.
        resume: the checkpoint that the run goes on from.
        compiled: whether the network is compiled.

    Raises:
        UserError: the strategy freezes nothing, moves or looks at what would be cached, or the run cannot be cached.
    """

    def __init__(
        self,
        place: str | None,
        *,
        model: Model,
        network: nn.Module,
        strategy: Strategy,
        validator: Engine,
        views: int = 0,
        dtype: str | None = None,
        resume: str | None = None,
        compiled: bool = False,
    ) -> None:
        self.place, self.network = place, network
        self.validator = None if model.divides_pairs else validator
        self.views, self.dtype = views, dtype
        if place is None:
            if views or dtype:
                raise UserError("cache_views and cache_dtype have no effect without cache_features: give it too.")
            return
        _refuse_unfit(list(strategy) if isinstance(strategy, Chain) else [strategy])
        if isinstance(network, nn.parallel.DistributedDataParallel):
            raise UserError("cache_features works in one process: leave it out of a multi-process training.")
        if compiled:
            raise UserError("cache_features and compile exclude each other: leave one of them out.")
        if views and resume is not None:
            raise UserError("resume: the augmented views of an interrupted run are gone: leave cache_views out.")

    def attach(self, engine: MonaiEngine) -> None:
        """Change where ``engine`` and the validator take their batches from."""
        if self.place is None:
            return
        runs: list[tuple[MonaiEngine, int]] = [
            (run, views) for run, views in ((engine, self.views), (self.validator, 0)) if run is not None
        ]
        caches = [
            FeatureCache(
                self.network, run.data_loader, run.prepare_batch, place=self.place, views=views, dtype=self.dtype
            )
            for run, views in runs
        ]
        for (run, _), cache in zip(runs, caches, strict=True):
            run.data_loader, run.prepare_batch = cache.loader, cache.prepare_batch
            run.add_event_handler(Events.EPOCH_STARTED, lambda _, cache=cache: cache.refresh())
            engine.add_event_handler(Events.COMPLETED, lambda _, cache=cache: cache.close())
        _log.info(f"features of frozen blocks are kept: {self.place}")


def _refuse_unfit(parts: Sequence[Strategy]) -> None:
    """Raise where no part freezes the first blocks, or another moves them or looks at what is in them."""
    others = [part for part in parts if not part.cached]
    if others or not any(part.cached == "freezes" for part in parts):
        found = " + ".join(type(part).__name__ for part in others or parts)
        raise UserError(
            "cache_features needs a strategy that freezes the first blocks and looks at nothing in them "
            f"({_any_of('freezes')}, with {_any_of('beside')} beside), got {found}: choose one of these, or leave "
            "cache_features out."
        )


def _any_of(kind: str) -> str:
    names = [name for name, cls in STRATEGIES.items() if cls.cached == kind]
    return f"{', '.join(names[:-1])} or {names[-1]}"
