"""Chains of random transforms for whole batches: all parameters are drawn first, then applied.

The transforms themselves are in ``spatial`` and ``intensity``, their forms for dictionaries in ``dictionary``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from ..utils import UserError
from . import geometry
from .draw import Draw

__all__ = ["BatchCompose", "BatchTransform", "Intensity", "Plan", "Spatial"]


@dataclass(frozen=True)
class Plan:
    """What happens to a batch: its spatial ``shape``, and for each transform its parameters by name.

    A parameter's first axis is the images'. ``chosen`` ``(n,)`` says which images a transform changes at all.
    """

    shape: tuple[int, ...]
    parameters: tuple[dict[str, Tensor], ...]


class BatchTransform(nn.Module):
    """A random transform of a batch, alone or in a :class:`BatchCompose`, which it is called like.

    Args:
        prob: probability of changing an image, in ``[0, 1]``.

    Raises:
        UserError: ``prob`` is out of range.
    """

    allow_missing_keys = True

    def __init__(self, prob: float) -> None:
        super().__init__()
        if not 0 <= prob <= 1:
            raise UserError(f"{type(self).__name__}: prob must lie between 0 and 1, got {prob}.")
        self.prob = prob

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        """Parameters for ``draw.n`` images of spatial ``shape``, by name."""
        return {}

    def forward(self, data: Any, label: Tensor | None = None, *, keys: Tensor | None = None) -> Any:
        """As :meth:`BatchCompose.forward`."""
        return BatchCompose([self])(data, label, keys=keys)


class Spatial(BatchTransform):
    """A transform that moves what an image shows: image and label together.

    ``how`` holds the mode of interpolation and of padding for each entry of the batch; ``None``: any will do.
    """

    def __init__(self, prob: float, mode: str | None = None, padding_mode: str | None = None) -> None:
        super().__init__(prob)
        padding_mode = {"edge": "border", "constant": "zeros"}.get(padding_mode or "", padding_mode)
        if mode not in (None, "bilinear", "nearest") or padding_mode not in (None, "zeros", "border", "reflection"):
            raise UserError(
                f"{type(self).__name__}: mode bilinear or nearest, padding_mode zeros, border or reflection; got "
                f"{mode!r}, {padding_mode!r}."
            )
        nearest = None if mode is None else "nearest"
        self.how: dict[str, tuple] = {"image": (mode, padding_mode), "label": (nearest, padding_mode)}

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Spatial shape of the output."""
        return tuple(shape)

    def matrices(self, parameters: dict[str, Tensor], shape: Sequence[int]) -> Tensor:
        """From output to input, ``(n, dims + 1, dims + 1)``; see :mod:`~medtl_monai.transforms.geometry`."""
        raise NotImplementedError

    def offsets(self, parameters: dict[str, Tensor], size: Sequence[int], device: torch.device) -> Tensor | None:
        """A deformation of the output's positions before the matrix, ``(n, dims, *size)``, or ``None``."""
        return None


class Intensity(BatchTransform):
    """A transform that changes the values of the image and leaves it, and the label, in place."""

    names: tuple[str, ...] = ("image",)

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """``image`` ``(n, C, *spatial)``, changed; it may be overwritten."""
        raise NotImplementedError


class BatchCompose(nn.Module):
    """Random transforms of a batch of images, and of labels with them, one after another.

    Neighbouring movements with the same interpolation and padding are composed into one matrix and resample the batch
    once; a deformation ends such a row. Flips, turns by 90 degrees and crops alone are copied exactly, and an image for
    which nothing was drawn stays as it is, bit by bit. On CPUs a few images at a time are worked on, so that
    they stay in the cache; elsewhere the whole batch.

    Every image has a key, from which all its random numbers follow, whatever the batch: its own, where ``keys`` are
    given, or one from a generator.

    Args:
        transforms: of this package.
        seed: of a generator of this chain's own; without it torch's default generator gives the keys.
        track_meta: return ``MetaTensor`` with the affine of what is seen where one is given; else plain tensors.

    Raises:
        UserError: a transform is none of this package's.

    Example:
        >>> from medtl_monai.transforms import BatchCompose, RandFlip, RandScaleIntensity
        >>> augment = BatchCompose([RandFlip(prob=1.0, spatial_axis=1), RandScaleIntensity(0.0, prob=1.0)])
        >>> image, label = augment(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0, 1]]]]))
        >>> image.tolist(), label.tolist()
        ([[[[2.0, 1.0]]]], [[[[1, 0]]]])
    """

    def __init__(
        self, transforms: Sequence[BatchTransform], *, seed: int | None = None, track_meta: bool = False
    ) -> None:
        super().__init__()
        for transform in transforms:
            if not isinstance(transform, BatchTransform):
                raise UserError(f"expected transforms of whole batches (medtl_monai.transforms), got {transform!r}.")
        self.transforms = cast("Sequence[BatchTransform]", nn.ModuleList(transforms))
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.track_meta = track_meta

    def forward(self, data: Any, label: Tensor | None = None, *, keys: Tensor | None = None) -> Any:
        """Draw parameters and apply them.

        Args:
            data: images ``(B, C, H, W)`` or ``(B, C, D, H, W)``, or a dictionary that holds them.
            label: moved with the images, ``(B, C, *spatial)``.
            keys: a whole number an image, ``(B,)``, such as its index plus 100,000 times the epoch.

        Returns:
            images; images and label where a label is given; the dictionary, its other entries as they were.
        """
        entries = dict(data) if isinstance(data, Mapping) else {"image": data}
        if label is not None:
            entries["label"] = label
        first = next(iter(self._entries(entries).values()), None)
        if first is not None:
            entries = self.apply(self.sample(len(first), first.shape[2:], keys), entries)
        if isinstance(data, Mapping):
            return entries
        return entries["image"] if label is None else (entries["image"], entries["label"])

    def sample(self, n: int, shape: Sequence[int], keys: Tensor | None = None) -> Plan:
        """Parameters of every transform for ``n`` images of spatial ``shape``."""
        if keys is None:
            keys = torch.randint(2**62, (n,), generator=self.generator)
        size, parameters = tuple(shape), []
        for stream, transform in enumerate(self.transforms):
            draw = Draw(torch.as_tensor(keys, device="cpu"), stream)
            chosen = draw.uniform(0, 1) < transform.prob
            parameters.append({"chosen": chosen, **transform.draw(draw, size)})
            size = transform.size(size) if isinstance(transform, Spatial) else size
        return Plan(tuple(shape), tuple(parameters))

    @torch.no_grad()
    def apply(self, plan: Plan, data: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """The entries of a batch under ``plan``.

        Raises:
            UserError: an entry that a transform names is missing, or is no batch of images of the plan's shape.
        """
        device = next((value.device for value in data.values() if isinstance(value, Tensor)), torch.device("cpu"))
        with torch.autocast(device.type, enabled=False):  # positions in 16 bits are off by pixels
            return self._changed(plan, dict(data))

    def _changed(self, plan: Plan, data: dict[str, Any]) -> dict[str, Any]:
        given = self._entries(data)
        for name, image in given.items():
            data[name] = _checked(name, image, plan)
            if any(isinstance(t, Intensity) and name in t.names for t in self.transforms):
                data[name] = _floating(data[name])
        seen = {name: geometry.scaling(torch.ones(1, len(plan.shape), dtype=torch.float64)) for name in given}
        own: set[str] = set()
        size = plan.shape
        for row in self._rows():
            transform = self.transforms[row[0]]
            if isinstance(transform, Spatial):
                matrices, after = self._matrices(row, plan, size)
                names = [name for name in transform.how if name in data]
                self._move(row, plan, data, names, matrices, after)
                for name in names:
                    seen[name] = seen[name] @ geometry.index_matrices(matrices, size, after)
                size = after
                own.update(names)
            elif isinstance(transform, Intensity):
                for name in transform.names:
                    if name in data and plan.parameters[row[0]]["chosen"].any():
                        image = data[name] if name in own else data[name].clone()
                        data[name] = _change(transform, image, plan.parameters[row[0]])
                        own.add(name)
        for name, before in given.items():
            if data[name].dtype != before.dtype and before.is_floating_point():
                data[name] = data[name].to(before.dtype)
            if self.track_meta and isinstance(before, MetaTensor):
                data[name] = _with_affine(data[name], before, seen[name])
        return data

    @torch.no_grad()
    def inverse(self, plan: Plan, image: Tensor, mode: str = "bilinear") -> Tensor:
        """What lies in the output's frame brought back to the input's: a prediction for test-time augmentation.

        Args:
            plan: as it was applied.
            image: ``(B, C, *spatial)``.
            mode: ``bilinear``, or ``nearest`` for labels.

        Raises:
            UserError: the plan holds a deformation, which has no inverse.
        """
        size, total = plan.shape, geometry.scaling(torch.ones(1, len(plan.shape), dtype=torch.float64))
        for row in self._rows():
            if isinstance(self.transforms[row[0]], Spatial):
                last = cast("Spatial", self.transforms[row[-1]])
                if type(last).offsets is not Spatial.offsets and plan.parameters[row[-1]]["chosen"].any():
                    raise UserError(f"{type(last).__name__} has no inverse: leave it out of test-time augmentation.")
                matrices, size = self._matrices(row, plan, size)
                total = total @ matrices
        total = torch.linalg.inv(total.expand(len(image), -1, -1))
        plain = _plain(image)
        moved = geometry.resample(_floating(plain), total, plan.shape, mode=mode)
        return moved.to(image.dtype)

    def _entries(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """What of ``data`` the transforms change, by name."""
        found = {}
        for transform in self.transforms:
            for name in _names(transform):
                if name in data:
                    found[name] = data[name]
                elif not transform.allow_missing_keys:
                    raise UserError(f"{type(transform).__name__}: the batch has {list(data)}, and no {name!r}.")
        return found

    def _rows(self) -> Iterator[list[int]]:
        """Indices of the transforms that are applied at once."""
        row: list[int] = []
        for i, transform in enumerate(self.transforms):
            if row and not _fit([self.transforms[k] for k in row], transform):
                yield row
                row = []
            row.append(i)
        if row:
            yield row

    def _matrices(self, row: list[int], plan: Plan, size: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        n = len(plan.parameters[row[0]]["chosen"])
        unit = geometry.scaling(torch.ones(n, len(size), dtype=torch.float64))
        total = unit
        for i in row:
            parameters, transform = plan.parameters[i], cast("Spatial", self.transforms[i])
            if parameters["chosen"].any():
                matrices = transform.matrices(parameters, size)
                total = total @ torch.where(parameters["chosen"][:, None, None], matrices, unit)
            size = transform.size(size)
        return total, size

    def _move(
        self, row: list[int], plan: Plan, data: dict, names: list[str], matrices: Tensor, size: tuple[int, ...]
    ) -> None:
        chosen = torch.stack([plan.parameters[i]["chosen"] for i in row]).any(0)
        if not chosen.any() or not names:
            return
        transforms = [cast("Spatial", self.transforms[i]) for i in row]
        parameters, device = plan.parameters[row[-1]], data[names[0]].device
        offsets = transforms[-1].offsets(parameters, size, device) if parameters["chosen"].any() else None
        for name in names:
            modes, paddings = zip(*(t.how[name] for t in transforms), strict=True)
            image = data[name]
            moved = geometry.resample(
                _floating(image),
                matrices,
                size,
                mode=next(filter(None, modes), "nearest"),
                padding_mode=next(filter(None, paddings), "zeros"),
                offsets=offsets,
            )
            data[name] = moved if image.is_floating_point() else moved.to(image.dtype)


def _change(transform: Intensity, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    chosen = parameters["chosen"].nonzero()[:, 0].tolist()
    for some in geometry.chunks(chosen, image):
        image[some] = transform.change(image[some], {name: value[some] for name, value in parameters.items()})
    return image


def _names(transform: BatchTransform) -> tuple[str, ...]:
    return tuple(transform.how) if isinstance(transform, Spatial) else cast("Intensity", transform).names


def _fit(row: list[BatchTransform], transform: BatchTransform) -> bool:
    """Whether ``transform`` may be composed with the movements before it."""
    if not isinstance(transform, Spatial) or not isinstance(row[0], Spatial):
        return False
    movements = cast("list[Spatial]", row)
    if type(movements[-1]).offsets is not Spatial.offsets or transform.how.keys() != movements[0].how.keys():
        return False
    return all(
        None in (a, b) or a == b
        for other in movements
        for name in transform.how
        for a, b in zip(other.how[name], transform.how[name], strict=True)
    )


def _plain(image: Tensor) -> Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def _floating(image: Tensor) -> Tensor:
    return image if image.dtype in (torch.float32, torch.float64) else image.float()


def _checked(name: str, image: Any, plan: Plan) -> Tensor:
    n = len(plan.parameters[0]["chosen"])
    if not isinstance(image, Tensor) or image.ndim not in (4, 5) or (len(image), *image.shape[2:]) != (n, *plan.shape):
        found = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise UserError(f"{name!r}: expected a batch ({n}, channels, {', '.join(map(str, plan.shape))}), got {found}.")
    return _plain(image)


def _with_affine(image: Tensor, before: MetaTensor, seen: Tensor) -> MetaTensor:
    """``image`` with the metadata of ``before``, its affine leading from the new indices to the world."""
    dims = image.ndim - 2
    matrix = torch.eye(4, dtype=torch.float64).repeat(len(image), 1, 1)
    matrix[:, :dims, :dims], matrix[:, :dims, 3] = seen[:, :-1, :-1], seen[:, :-1, -1]
    out = MetaTensor(image, meta=before.meta)
    out.affine = before.affine.to(matrix) @ matrix
    out.is_batch = True
    return out
