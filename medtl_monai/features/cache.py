"""The cache of a loader: its first epoch computes the frozen blocks' output, the later ones replay it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle

from .. import __version__
from ..data import digest, stamped
from ..utils import UserError, unwrap
from .frozen import checksum, frozen_modules, state_of, unseen
from .rehearsal import forward_of, rehearse, replaced
from .rows import Rows, random_parts, reload
from .store import Part, Pending, Store

__all__ = ["FeatureCache"]

_SHOWN = 2  # images of the rehearsal: batch norm of the trained blocks needs more than one


class FeatureCache:
    """The frozen first blocks' output for every image of a loader: computed in its first epoch, replayed afterwards.

    The network is not cut. In a replayed step the frozen modules return what they returned before, and everything
    between the image and them runs on torch's ``meta`` device, which computes nothing; so any network that
    :func:`medtl_monai.backbones.anatomy` knows will do, also with skip connections out of the frozen part. Images that
    are not needed are neither read nor augmented. Losses, gradients and weights are those of the uncached training.

    What is kept is valid for one state of the frozen modules: :meth:`refresh`, called before every epoch, drops it when
    another set of modules is frozen or their weights or statistics have changed. In a folder it is kept under a key of
    the weights, the modules, the transforms, the data (paths, sizes and times of the files), the device and the number
    types, and compared with the first batch before it is used.

    Args:
        network: wrapped or not; its frozen modules must be in evaluation mode whenever it runs (as the strategies of
            this package keep them).
        loader: of batches with ``image`` and, if any, ``label``; its data set is indexed.
        prepare_batch: from ``(batch, device, non_blocking)`` to ``(image, label)``, as MONAI's engines take it.
        place: ``memory``, or a folder for memory-mapped files that later runs can use.
        views: 0: there is no random augmentation; otherwise how many augmented views of an image are computed, in
            its first so many visits, and used in turn afterwards.
        dtype: ``float16`` to keep the features in half the memory; ``None``: as they are computed.
        frozen: names of the frozen modules; ``None``: those of :func:`frozen_modules`, looked up at every refresh.
        entries: whether replayed batches hold the items' other entries (patients, domains), for which the data set is
            asked as ever; a data set that reads its files when asked is then read again.

    Raises:
        UserError: there is augmentation and ``views`` is 0, or an argument is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        loader: DataLoader,
        prepare_batch: Callable[..., Any],
        *,
        place: str = "memory",
        views: int = 0,
        dtype: str | None = None,
        frozen: Sequence[str] | None = None,
        entries: bool = True,
    ) -> None:
        if not isinstance(views, int) or views < 0:
            raise UserError(f"cache_views must be a whole number from 0, got {views!r}.")
        if dtype not in (None, "float16"):
            raise UserError(f"cache_dtype must be float16, or null for the features' own, got {dtype!r}.")
        random = random_parts(loader.dataset, prepare_batch)
        if random and not views:
            raise UserError(
                f"features cannot be cached under random augmentation ({', '.join(random)}): "
                "switch it off (--augmentation '$None', no crop_size), or say with cache_views how many views of each "
                "image are kept."
            )
        self.network, self.place, self.views, self.dtype = unwrap(network), place, views, dtype
        self._inner, self._given = prepare_batch, None if frozen is None else tuple(frozen)
        self._data = cast("Any", loader.dataset)
        count = len(self._data)
        self._known = torch.zeros(max(views, 1) * count, dtype=torch.bool).share_memory_()  # workers read it
        self._visits = torch.zeros(count, dtype=torch.long).share_memory_()
        self.loader = reload(loader, Rows(loader.dataset, self._known, self._visits, entries))
        self._frozen: tuple[str, ...] = ()
        self._seen: Any = None
        self._store: Store | None = None
        self._pending: Pending | None = None
        self._recording: Pending | None = None
        self._active = ExitStack()
        self._handles: list[RemovableHandle] = []

    def refresh(self) -> None:
        """Look at what is frozen now, and drop what was kept for another state; call it before every epoch."""
        if not self._handles:  # after the hooks that put frozen parts into evaluation mode
            self._handles = [
                self.network.register_forward_pre_hook(self._before),
                self.network.register_forward_hook(self._after, always_call=True),
            ]
        frozen = frozen_modules(self.network) if self._given is None else self._given
        seen = (frozen, [(n, t.data_ptr(), t._version, checksum(t)) for n, t in state_of(self.network, frozen)])
        if seen != self._seen:
            self._frozen, self._seen, self._store = frozen, seen, None
            self._known.zero_()
            self._visits.zero_()

    def close(self) -> None:
        """Leave the network and forget the features; those in a folder stay there."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._store, self._seen, self._pending = [], None, None, None
        self._known.zero_()

    def prepare_batch(
        self, batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Image and label of a batch of :attr:`loader`; for a replay the image has a shape and no content."""
        if self._pending is not None:
            raise UserError(
                "features cannot be cached: the network was not given the images as they were prepared, but parts of "
                "them (as with compare_sides): leave cache_features out."
            )
        rows = batch["row"]
        self._visits[rows % len(self._data)] += 1
        if "image" in batch:
            image, label = self._inner(batch, device, non_blocking)
            self._pending = Pending(image, label, rows, replay=False)
        else:
            store = self._store
            assert store is not None, "what is replayed was recorded"
            shape, dtype = store.image
            image, label = torch.empty((len(rows), *shape), dtype=dtype, device="meta"), None
            if "label" in store.parts:
                label = store.read("label", rows, device)
            self._pending = Pending(image, label, rows, replay=True, device=device)
        return image, label

    def _before(self, network: nn.Module, args: tuple[Any, ...]) -> None:
        pending = self._pending
        if pending is None or not args or args[0] is not pending.image:
            return  # another image, such as one of another domain
        self._pending = None
        if not self._frozen:
            return
        if pending.replay:
            self._active.enter_context(self._replaying(network, pending))
        else:
            self._active.enter_context(self._keeping(network, pending))
            self._recording = pending

    def _keeping(self, network: nn.Module, pending: Pending) -> AbstractContextManager[None]:
        """Within it, what the frozen modules give for a batch is kept."""
        if self._store is None:
            self._store = self._open(pending)
        store = self._store
        store.note(pending)
        forwards = {name: partial(store.record, name, pending, forward_of(network, name)) for name in store.names}
        return replaced(network, forwards)

    def _replaying(self, network: nn.Module, pending: Pending) -> AbstractContextManager[None]:
        """Within it, the frozen modules give again what they gave for a batch."""
        store = self._store
        assert store is not None, "what is replayed was recorded"
        forwards = {name: partial(store.replay, name, pending) for name in self._frozen}
        return replaced(network, forwards, unseen(network, self._frozen, store.names))

    def _after(self, network: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._active.close()
        recorded, self._recording = self._recording, None
        if recorded is not None and output is not None:  # no output: the pass has failed
            assert self._store is not None
            self._known[recorded.rows] = True
            self._store.flush(self._known)

    def _open(self, pending: Pending) -> Store:
        """Rehearse on two images, and make or find the place for all."""
        self._check_modes()
        image = pending.image[:_SHOWN].detach()
        shapes, outputs, names = rehearse(self.network, image, self._frozen)
        parts = {name: Part.of(outputs[name], self.dtype) for name in names}
        if pending.label is not None:
            parts["label"] = Part.of(pending.label, None)
        folder, key = None, None
        if self.place != "memory":
            key = self._key(names, pending.image)
            folder = Path(self.place) / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
        store = Store(names, shapes, parts, (tuple(image.shape[1:]), image.dtype), len(self._known), folder, key)
        known = store.load_known()
        if known is not None:
            rows = pending.rows[:_SHOWN]
            if not self.views and known[rows].all():
                store.compare(outputs, rows)
            self._known.copy_(known)
        return store

    def _check_modes(self) -> None:
        for name in self._frozen:
            moving = [m for m in self.network.get_submodule(name).modules() if m.training]
            if moving:
                raise UserError(
                    f"features of {name} cannot be cached: its weights are frozen, but not its batch norm and dropout "
                    f"({type(moving[-1]).__name__} is in training mode): use a strategy that freezes all of it, "
                    "such as freeze or partial_freeze."
                )

    def _key(self, names: Sequence[str], image: Tensor) -> dict[str, Any]:
        """What the features depend on; two runs with equal keys have equal features."""
        weights = hashlib.sha256()
        for name, tensor in state_of(self.network, self._frozen):
            weights.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            weights.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        device = image.device.type
        return {
            "weights": weights.hexdigest(),
            "modules": digest([str(self.network), type(self.network).__qualname__]),
            "frozen": list(self._frozen),
            "kept": list(names),
            "batch_norm": "running statistics",
            "transforms": digest([getattr(self._data, "transform", None), self._inner]),
            "data": digest([stamped(item) for item in getattr(self._data, "data", self._data)]),
            "views": [self.views, torch.initial_seed() if self.views else None],
            "image": [*image.shape[1:], str(image.dtype)],
            "dtype": self.dtype,
            "autocast": str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None,
            "device": device,
            "versions": [__version__, torch.__version__],
        }
