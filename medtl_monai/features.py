"""Frozen features, computed once: what a network's frozen first blocks give for every image, kept and replayed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from monai.transforms import Compose, RandomizableTrait
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.hooks import RemovableHandle

from . import __version__
from .backbones import anatomy, modules_of
from .data import digest, stamped
from .utils import UserError, is_under, unwrap, with_bar, write_json

__all__ = ["FeatureCache", "extract_features", "frozen_modules"]

_SHOWN = 2  # images of the rehearsal: batch norm of the trained blocks needs more than one


def frozen_modules(network: nn.Module) -> tuple[str, ...]:
    """Names of the modules of the leading blocks of which no parameter is trained; the head is never among them.

    Example:
        >>> from .backbones import build
        >>> network = build("resnet18")
        >>> _ = network.conv1.requires_grad_(False), network.bn1.requires_grad_(False)
        >>> frozen_modules(network)
        ('conv1', 'bn1')
    """
    network = unwrap(network)
    names: list[str] = []
    for block in anatomy(network).blocks[:-1]:
        if any(p.requires_grad and is_under(name, block.prefixes) for name, p in network.named_parameters()):
            break
        names += modules_of(network, block.prefixes)
    return tuple(names)


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
        random = _random_parts(loader.dataset, prepare_batch)
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
        self.loader = _reload(loader, _Rows(loader.dataset, self._known, self._visits, entries))
        self._frozen: tuple[str, ...] = ()
        self._seen: Any = None
        self._store: _Store | None = None
        self._pending: _Pending | None = None
        self._recording: _Pending | None = None
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
        seen = (frozen, [(n, t.data_ptr(), t._version, _checksum(t)) for n, t in self._tensors(frozen)])
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
            self._pending = _Pending(image, label, rows, replay=False)
        else:
            store = self._store
            assert store is not None, "what is replayed was recorded"
            shape, dtype = store.image
            image, label = torch.empty((len(rows), *shape), dtype=dtype, device="meta"), None
            if "label" in store.parts:
                label = store.read("label", rows, device)
            self._pending = _Pending(image, label, rows, replay=True, device=device)
        return image, label

    def _tensors(self, frozen: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for name in frozen:
            for key, tensor in self.network.get_submodule(name).state_dict(keep_vars=True).items():
                yield f"{name}.{key}", tensor
        for name in _beside(self.network, frozen):
            yield name, self.network.get_parameter(name)

    def _before(self, network: nn.Module, args: tuple[Any, ...]) -> None:
        pending = self._pending
        if pending is None or not args or args[0] is not pending.image:
            return  # another image, such as one of another domain
        self._pending = None
        if not self._frozen:
            return
        if not pending.replay and self._store is None:
            self._store = self._open(pending)
        store = self._store
        assert store is not None, "what is replayed was recorded"
        if pending.replay:
            forwards = {name: partial(store.replay, name, pending) for name in self._frozen}
        else:
            store.note(pending)
            forwards = {name: partial(store.record, name, pending, _forward(network, name)) for name in store.names}
        empty = _unseen(network, self._frozen, store.names) if pending.replay else ()
        self._active.enter_context(_replaced(network, forwards, empty))
        self._recording = None if pending.replay else pending

    def _after(self, network: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._active.close()
        recorded, self._recording = self._recording, None
        if recorded is not None and output is not None:  # no output: the pass has failed
            assert self._store is not None
            self._known[recorded.rows] = True
            self._store.flush(self._known)

    def _open(self, pending: _Pending) -> _Store:
        """Rehearse on two images, and make or find the place for all."""
        self._check_modes()
        image = pending.image[:_SHOWN].detach()
        shapes, outputs, names = _rehearse(self.network, image, self._frozen)
        parts = {name: _Part.of(outputs[name], self.dtype) for name in names}
        if pending.label is not None:
            parts["label"] = _Part.of(pending.label, None)
        folder, key = None, None
        if self.place != "memory":
            key = self._key(names, pending.image)
            folder = Path(self.place) / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
        store = _Store(names, shapes, parts, (tuple(image.shape[1:]), image.dtype), len(self._known), folder, key)
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
        for name, tensor in self._tensors(self._frozen):
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
    found: dict[int, tuple[Tensor, Tensor | None]] = {}
    entered: list[Tensor] = []
    head = unwrap(network).get_submodule(parts.head)
    handle = head.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    cache.refresh()
    try:
        with torch.no_grad():
            for batch in with_bar(cache.loader, "features", progress):
                image, label = cache.prepare_batch(batch, device)
                network(image)
                features = entered[-1]
                features = features.flatten(2).mean(-1) if features.ndim > 2 else features
                entered.clear()
                for i, row in enumerate(batch["row"].tolist()):
                    found[row] = (features[i].cpu(), None if label is None else label[i].cpu())
    finally:
        handle.remove()
        cache.close()
        network.train(was_training)
    rows = [found[row] for row in sorted(found)]
    labels = None if rows[0][1] is None else torch.stack([cast("Tensor", label) for _, label in rows])
    return torch.stack([features for features, _ in rows]), labels


@dataclass
class _Pending:
    """A batch between ``prepare_batch`` and the forward pass."""

    image: Tensor
    label: Tensor | None
    rows: Tensor
    replay: bool
    device: torch.device | str | None = None


class _Rows(Dataset):
    """A data set's items with their ``row`` in the cache; without image and label where a whole batch is known."""

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


@dataclass
class _Part:
    """How one kind of row is kept: its shape, its number type when kept and when used, its axes' order in memory."""

    shape: tuple[int, ...]
    kept: torch.dtype
    used: torch.dtype
    channels_last: bool

    @classmethod
    def of(cls, batch: Tensor, dtype: str | None) -> _Part:
        last = not batch.is_contiguous() and batch.ndim > 3 and batch.movedim(1, -1).is_contiguous()
        rows = batch.movedim(1, -1) if last else batch
        kept = getattr(torch, dtype) if dtype and batch.dtype == torch.float32 else batch.dtype
        return cls(tuple(rows.shape[1:]), kept, batch.dtype, last)

    def bytes(self) -> int:
        """Of one row."""
        return torch.Size(self.shape).numel() * self.kept.itemsize


class _Store:
    """Rows of features and labels, in memory or in a folder."""

    def __init__(
        self,
        names: Sequence[str],
        shapes: Mapping[str, tuple[torch.Size, torch.dtype]],
        parts: Mapping[str, _Part],
        image: tuple[tuple[int, ...], torch.dtype],
        rows: int,
        folder: Path | None,
        key: Mapping[str, Any] | None,
    ) -> None:
        self.names, self.shapes, self.parts, self.image, self.folder = names, shapes, parts, image, folder
        needed = rows * sum(part.bytes() for part in parts.values())
        if folder is not None and not (folder / "key.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _check_room(needed, shutil.disk_usage(folder).free, f"on the disk of {folder.parent}")
            write_json(folder / "key.json", key)
        elif folder is None:
            _check_room(needed, psutil.virtual_memory().available, "of memory")
        self._rows = {name: self._make(name, rows, part.shape, part.kept) for name, part in parts.items()}
        self._flags = self._make("known", rows, (), torch.bool) if folder is not None else None

    def load_known(self) -> Tensor | None:
        """Which rows an earlier run has left, if there is a folder."""
        return None if self._flags is None else self._flags.clone()

    def flush(self, known: Tensor) -> None:
        """Tell later runs which rows there are."""
        if self._flags is not None:
            self._flags.copy_(known)

    def note(self, pending: _Pending) -> None:
        """Keep the labels of a batch."""
        if pending.label is not None:
            self._write("label", pending.rows, pending.label)

    def record(self, name: str, pending: _Pending, forward: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Run a frozen module and keep its output, at once: what follows may change it in place."""
        output = forward(*args, **kwargs)
        self._write(name, pending.rows, output)
        # what is trained sees now what it will see later
        return self.read(name, pending.rows, output.device) if output.dtype != self.parts[name].kept else output

    def replay(self, name: str, pending: _Pending, *args: Any, **kwargs: Any) -> Tensor:
        """A frozen module's output again; of those whose output only other frozen modules use, the shape."""
        if name in self.parts:
            return self.read(name, pending.rows, pending.device)
        shape, dtype = self.shapes[name]
        return torch.empty((len(pending.rows), *shape[1:]), dtype=dtype, device="meta")

    def read(self, name: str, rows: Tensor, device: torch.device | str | None) -> Tensor:
        """The rows as a batch."""
        part = self.parts[name]
        batch = self._rows[name][rows].to(device=device, dtype=part.used)
        return batch.movedim(-1, 1) if part.channels_last else batch

    def compare(self, outputs: Mapping[str, Tensor], rows: Tensor) -> None:
        """Refuse rows that differ from what was just computed."""
        for name in self.names:
            want, got = outputs[name], self.read(name, rows, outputs[name].device)
            tolerance = 1e-2 if self.parts[name].kept.itemsize < 4 else 1e-4
            if not torch.allclose(got, want, rtol=tolerance, atol=tolerance * float(want.abs().max())):
                raise UserError(
                    f"the features in {self.folder} are not what {name} gives for the same images: "
                    "something that they depend on has changed unnoticed; delete that folder."
                )

    def _write(self, name: str, rows: Tensor, batch: Tensor) -> None:
        part = self.parts[name]
        batch = batch.detach().movedim(1, -1) if part.channels_last else batch.detach()
        kept = batch.to(device="cpu", dtype=part.kept)
        if part.kept == torch.float16 != part.used and not kept.isfinite().all():
            raise UserError(f"features of {name} do not fit into float16 (largest {float(batch.abs().max()):g}).")
        self._rows[name][rows] = kept

    def _make(self, name: str, rows: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        shape = (rows, *shape)
        if self.folder is None:
            return torch.empty(shape, dtype=dtype)
        path = self.folder / f"{name}.bin"
        return torch.from_file(str(path), shared=True, size=torch.Size(shape).numel(), dtype=dtype).view(shape)


def _rehearse(
    network: nn.Module, image: Tensor, frozen: Sequence[str]
) -> tuple[dict[str, tuple[torch.Size, torch.dtype]], dict[str, Tensor], list[str]]:
    """Shape and number type, output, and which of the frozen modules' outputs the rest of the network uses.

    The rest's gradient tells: each output is cut off from what made it, so that a gradient arrives at those alone that
    are used directly. Then the replay is tried.

    Raises:
        UserError: the network's frozen part cannot be replayed.
    """
    outputs: dict[str, Tensor] = {}
    leaves: dict[str, Tensor] = {}

    def cut(name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        output = forward(*args, **kwargs)
        if name in leaves or not isinstance(output, Tensor) or len(output) != len(image):
            raise _cannot(network, f"{name} runs more than once or does not give one tensor for a batch")
        outputs[name] = output.detach().clone(memory_format=torch.preserve_format)
        leaves[name] = output.detach().requires_grad_()
        return leaves[name].clone(memory_format=torch.preserve_format)  # which may be changed in place

    source = image.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.enable_grad():
        whole = _rehearsal(network, source, {name: partial(cut, name, _forward(network, name)) for name in frozen})
        total = torch.stack([value.float().sum() for value in whole]).sum()
        reached = torch.autograd.grad(total, [source, *leaves.values()], allow_unused=True)
    if reached[0] is not None:
        raise _cannot(network, "its trained part sees the image itself")
    used = [name for name, gradient in zip(leaves, reached[1:], strict=True) if gradient is not None]
    shapes = {name: (output.shape, output.dtype) for name, output in outputs.items()}

    def again(name: str, *_: Any, **__: Any) -> Tensor:
        if name in used:
            return outputs[name].clone(memory_format=torch.preserve_format)
        return torch.empty(shapes[name][0], dtype=shapes[name][1], device="meta")

    empty = torch.empty(image.shape, dtype=image.dtype, device="meta")
    try:
        with torch.no_grad():
            forwards = {name: partial(again, name) for name in frozen}
            replayed = _rehearsal(network, empty, forwards, _unseen(network, frozen, used))
        same = all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(whole, replayed, strict=True))
    except RuntimeError as error:
        raise _cannot(network, str(error).splitlines()[0]) from error
    if not used or not same:
        raise _cannot(network, "its output is not determined by the frozen modules' outputs")
    return shapes, outputs, used


def _rehearsal(
    network: nn.Module, image: Tensor, forwards: Mapping[str, Callable[..., Any]], empty: Sequence[str] = ()
) -> list[Tensor]:
    """The network's outputs, in its present mode, with nothing of it or of the random numbers changed."""
    weights = {name: p.detach() for name, p in network.named_parameters()}
    weights |= {name: b.clone() for name, b in network.named_buffers()}
    weights |= {name: weights[name].to("meta") for name in empty}
    devices = [] if image.device.type in ("cpu", "meta") else [image.device]
    with torch.random.fork_rng(devices), _replaced(network, forwards):
        torch.manual_seed(0)
        # not tied: of modules under two names it would put back what stood in for the weights, not the weights
        output = torch.func.functional_call(network, weights, (image,), tie_weights=False)
    return [value for value in torch.utils._pytree.tree_leaves(output) if isinstance(value, Tensor)]


def _beside(network: nn.Module, frozen: Sequence[str]) -> dict[str, set[str]]:
    """Parameters beside modules (class tokens) of the blocks whose modules are ``frozen``, with the names of these."""
    parameters = {name for name, _ in network.named_parameters()}
    found: dict[str, set[str]] = {}
    for block in anatomy(network).blocks[:-1]:
        modules = set(modules_of(network, block.prefixes))
        if modules <= set(frozen):
            found |= {name: modules for name in block.prefixes if name in parameters}
    return found


def _unseen(network: nn.Module, frozen: Sequence[str], used: Sequence[str]) -> list[str]:
    """Those of them that only frozen modules see: nothing is computed from them in a replay."""
    return [name for name, modules in _beside(network, frozen).items() if not modules & set(used)]


@contextmanager
def _replaced(
    network: nn.Module, forwards: Mapping[str, Callable[..., Any]], empty: Sequence[str] = ()
) -> Iterator[None]:
    """Other ``forward`` functions for some modules, whose hooks stay, and parameters without content."""
    weights = {name: network.get_parameter(name) for name in empty}
    for name, weight in weights.items():
        owner = network.get_submodule(name.rpartition(".")[0])
        owner._parameters[name.rpartition(".")[2]] = weight.to("meta")  # type: ignore[assignment]
    modules = {name: network.get_submodule(name) for name in forwards}
    before = {name: vars(module).get("forward") for name, module in modules.items()}
    for name, module in modules.items():
        module.forward = forwards[name]
    try:
        yield
    finally:
        for name, weight in weights.items():
            network.get_submodule(name.rpartition(".")[0])._parameters[name.rpartition(".")[2]] = weight
        for name, module in modules.items():
            del module.forward
            if (own := before[name]) is not None:
                module.forward = own


def _forward(network: nn.Module, name: str) -> Callable[..., Any]:
    return network.get_submodule(name).forward


def _cannot(network: nn.Module, why: str) -> UserError:
    return UserError(f"features of {type(network).__name__} cannot be cached: {why}; leave cache_features out.")


def _reload(loader: DataLoader, dataset: Dataset) -> DataLoader:
    """The same batches in the same order from another data set."""
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


def _random_parts(dataset: Any, prepare_batch: Any) -> list[str]:
    """Names of what draws random numbers between the file and the network."""
    transform = getattr(dataset, "transform", None)
    steps = transform.flatten().transforms if isinstance(transform, Compose) else [transform]
    own = (getattr(prepare_batch, name, None) for name in ("augment", "mix"))
    found = [*(step for step in steps if isinstance(step, RandomizableTrait)), *(part for part in own if part)]
    return list(dict.fromkeys(type(part).__name__ for part in found))


def _checksum(tensor: Tensor) -> int:
    """Changes with the content, also where torch's version counter does not (``.data``)."""
    bits = tensor.detach().contiguous().view(-1).view(torch.uint8)
    words = bits.view(torch.int64) if len(bits) % 8 == 0 else bits
    return int(torch.hash_tensor(words).item()) if len(bits) else 0


def _check_room(needed: int, free: int, where: str) -> None:
    if needed > 0.9 * free:
        raise UserError(
            f"the features need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB {where} are free: give cache_features a "
            "folder with room, cache_dtype float16, fewer cache_views, or freeze more blocks."
        )
