"""Prepared images, kept: in memory, or in a folder under a key of all that they depend on."""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.utils import TraceKeys, convert_to_tensor
from torch import Tensor

from ..utils import UserError, damaged_entry, make_folder, one_thread, write_torch
from .read.arrays import stored_in

__all__ = ["cached_dataset", "digest", "stamped"]

_log = logging.getLogger("medtl_monai")


def cached_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Callable[..., Any],
    cache_dir: str | Path | None = None,
    num_workers: int = 2,
    progress: bool = True,
) -> Dataset:
    """The items, transformed once: MONAI's ``CacheDataset``, or its ``PersistentDataset`` in a folder.

    In the folder an item is found again as long as its entries, the files that it names (their sizes and times) and the
    transforms are the same, and what was kept fits its checksum; so later runs need not decode. Tensors are plain ones:
    metadata is not kept.

    Args:
        data: MONAI datalist items.
        transform: deterministic.
        cache_dir: the folder; ``None``: in memory.
        num_workers: threads that fill the memory at once; in a folder an item is made when it is first asked for.
        progress: show a bar.
    """
    if cache_dir is None:
        with one_thread():  # of torch in each thread, which would only wait for another's
            return _InMemory(data, transform, num_workers=num_workers, progress=progress and sys.stderr.isatty())
    folder = make_folder(cache_dir, "cache_dir") / digest(transform)[:20]
    return _Kept(data, transform, folder, hash_func=_name)


class _InMemory(CacheDataset):
    """Gives plain tensors that were copied last.

    Left where a transform made it, amid what it used and freed, each result would keep glibc from using that memory
    again: several times that of the results would be taken.
    """

    def _load_cache_item(self, idx: int) -> Any:
        item = super()._load_cache_item(idx)
        return copy.deepcopy(convert_to_tensor(item, track_meta=False, convert_numeric=False))


class _Kept(PersistentDataset):
    """Gives plain tensors from the first time on, as it does once an item is in its folder: batches mix both.

    MONAI's own takes a file as it is, however damaged, and stops at an empty one.
    """

    def _cachecheck(self, item_transformed: Any) -> Any:
        path = Path(str(self.cache_dir)) / f"{_name(item_transformed).decode()}.pt"
        if path.is_file():
            if damaged_entry(path) is None:
                return torch.load(path, weights_only=True)
            _log.warning(f"{path} is damaged: the image is prepared anew")
        made = self._pre_transform(copy.deepcopy(item_transformed))
        traces = {f"{key}{TraceKeys.KEY_SUFFIX}" for key in made}  # hold classes, which are not read from files
        made = {key: value for key, value in made.items() if key not in traces}
        write_torch(path, convert_to_tensor(made, convert_numeric=False, track_meta=False))
        return made

    def _post_transform(self, item_transformed: Any) -> Any:
        return convert_to_tensor(super()._post_transform(item_transformed), track_meta=False)


def _name(item: Any) -> bytes:
    return digest(stamped(item))[:32].encode()


def stamped(item: Any) -> Any:
    """A datalist item with the size and the time of every file that it names."""
    if isinstance(item, Mapping):
        return {key: stamped(value) for key, value in sorted(item.items())}
    path = stored_in(item) if isinstance(item, str) and len(item) < 4096 else None
    if path is None or not path.is_file():
        return item
    about = path.stat()
    return [item, about.st_size, about.st_mtime_ns]


def digest(content: Any) -> str:
    """SHA-256 of anything that can be pickled, the same in every process; states of random generators do not count.

    Raises:
        UserError: it cannot be pickled.

    Example:
        >>> digest({"a": 1}) == digest({"a": 1}), digest({"a": 1}) == digest({"a": 2})
        (True, False)
    """
    text = io.BytesIO()
    pickler = _Pickler(text, protocol=5)
    pickler.fast = True  # otherwise equal texts that are one object are written differently from such that are two
    try:
        pickler.dump(content)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"no key can be made of the transforms or the data ({error}): cache in memory.") from error
    return hashlib.sha256(text.getvalue()).hexdigest()


class _Pickler(pickle.Pickler):
    """Tensors by their content alone: torch's own pickles of equal tensors differ."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return list, ((str(obj.dtype), obj.tolist()),)
        if isinstance(obj, np.random.RandomState):
            return str, ()
        return NotImplemented
