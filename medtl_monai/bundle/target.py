"""Images for the strategies that look at more than the batch: the target's without labels, and the training set's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.data import CacheDataset, DataLoader, Dataset
from torch import Tensor, nn

from ..data import SliceDataset, check_readable, unlabelled
from ..features import extract_features
from ..model import Model
from .segmentation import unmasked

__all__ = ["SourceImages", "TargetImages", "target_images"]

_log = logging.getLogger("medtl_monai")


class _Images:
    """A data set's images in their order, prepared for the network and not augmented."""

    def __init__(
        self, dataset: Any, prepare: Callable[..., Any], batch_size: int | None, device: torch.device | str
    ) -> None:
        self.dataset, self.prepare, self.batch_size, self.device = dataset, prepare, batch_size, device

    def __iter__(self) -> Iterator[Tensor]:
        """Every image once, in order, in batches ``(B, C, *spatial)``."""
        for batch in DataLoader(self.dataset, batch_size=self.batch_size):
            yield self.prepare(batch, self.device)[0]

    def features(self, network: nn.Module, place: str) -> Tensor:
        """What enters the head of ``network``, ``(N, F)``, by the cache in ``place``: ``memory`` or a folder."""
        loader = DataLoader(self.dataset, batch_size=self.batch_size)
        return extract_features(network, loader, self.prepare, device=self.device, place=place)[0].float()


class TargetImages(_Images):
    """Batches of images without labels, in random order and without end.

    Args:
        loader: of batches with ``image``, shuffled.
        views: how an image becomes what the network takes: ``plain`` and ``augmented``.
        device: where it goes.
    """

    def __init__(self, loader: DataLoader, views: dict[str, Callable[..., Any]], device: torch.device | str) -> None:
        super().__init__(loader.dataset, views["plain"], loader.batch_size, device)
        self.loader, self.views = loader, views
        self._batches: Iterator[Any] = iter(())

    def restart(self) -> None:
        """Begin anew, in an order that the present seed decides."""
        self._batches = iter(self.loader)

    def next(self, *views: str) -> list[Tensor]:
        """The next batch ``(B, C, *spatial)``, once for each view, each augmented view in its own way."""
        batch = next(self._batches, None)
        if batch is None:
            self.restart()
            batch = next(self._batches)
        return [self.views[view](batch, self.device)[0] for view in views]


class SourceImages(_Images):
    """Batches of the training images without augmentation, in their order, read anew each time.

    Args:
        items: of the training part.
        transform: from an item to an image.
        prepare: makes a batch what the network takes.
        batch_size: of each batch.
        device: where it goes.
    """

    def __init__(
        self,
        items: Sequence[dict[str, Any]],
        *,
        transform: Callable[..., Any],
        prepare: Callable[..., Any],
        batch_size: int,
        device: torch.device | str,
    ) -> None:
        super().__init__(Dataset(items, transform), prepare, batch_size, device)


def target_images(
    target_dir: str | None,
    *,
    model: Model,
    batch_size: int,
    augmented: Callable[..., Any],
    device: torch.device | str,
) -> TargetImages | None:
    """The images in the folder ``target_dir``, read and cached; ``None`` without a folder.

    Args:
        target_dir: images without labels, in any of the formats of the training images.
        model: that is trained.
        batch_size: of each batch; the whole folder if it holds fewer.
        augmented: prepares a batch with augmentation.
        device: where the training runs.

    Raises:
        UserError: there is no image, or one that cannot be read.
    """
    if target_dir is None:
        return None
    dataset: Dataset
    transform = model.preparation("target")
    if model.images == "stacks":
        items = [{"image": item["image"]} for item in unmasked(target_dir)]  # phases may be known of some
        dataset = SliceDataset(items, transform, keys=("image",))
    else:
        items = unlabelled(target_dir)
        check_readable(items)
        dataset = CacheDataset(items, transform, num_workers=2)
    _log.info(f"target: {len(dataset)} images without labels in {target_dir}")
    loader = DataLoader(dataset, batch_size=min(batch_size, len(dataset)), shuffle=True, drop_last=True)
    return TargetImages(loader, {"plain": model.prepare_batch(), "augmented": augmented}, device)
