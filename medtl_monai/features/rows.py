"""A loader's items with their rows in the cache, and without the image where its features are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.transforms import Compose, RandomizableTrait
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..utils import UserError

__all__ = ["Rows", "random_parts", "reload"]


class Rows(Dataset):
    """A data set's items with their ``row`` in the cache; without image and label where a whole batch is known.

    Args:
        dataset: of dictionaries with ``image`` and, if any, ``label``.
        known: ``(V N,)``, which rows are in the cache; N images in V views.
        visits: ``(N,)``, how often each image was asked for.
        entries: whether the other entries are asked for where image and label are not.
    """

    def __init__(self, dataset: Any, known: Tensor, visits: Tensor, entries: bool) -> None:
        self.dataset, self.known, self.visits, self.entries = dataset, known, visits, entries

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        where = torch.as_tensor(list(indices))
        rows = self.visits[where] % (len(self.known) // len(self)) * len(self) + where
        known = bool(self.known[rows].all())
        if known and not self.entries:
            return [{"row": row} for row in rows.tolist()]
        left_out = ("image", "label") if known else ()
        items = []
        for index, row in zip(where.tolist(), rows.tolist(), strict=True):
            item = {key: value for key, value in self.dataset[index].items() if key not in left_out}
            items.append({**item, "row": row})
        return items


def reload(loader: DataLoader, dataset: Dataset) -> DataLoader:
    """The same batches in the same order from another data set.

    Raises:
        UserError: the loader makes no batches.
    """
    if loader.batch_sampler is None:
        raise UserError("features can be cached for loaders that make batches, and this one has batch_size null.")
    return DataLoader(
        dataset,
        batch_sampler=loader.batch_sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        persistent_workers=loader.persistent_workers,
    )


def random_parts(dataset: Any, prepare_batch: Any) -> list[str]:
    """Names of what draws random numbers between the file and the network."""
    transform = getattr(dataset, "transform", None)
    steps = transform.flatten().transforms if isinstance(transform, Compose) else [transform]
    own = (getattr(prepare_batch, name, None) for name in ("augment", "mix"))
    found = [*(step for step in steps if isinstance(step, RandomizableTrait)), *(part for part in own if part)]
    return list(dict.fromkeys(type(part).__name__ for part in found))
