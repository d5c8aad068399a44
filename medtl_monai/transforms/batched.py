"""Chains of random transforms for whole batches: all parameters are drawn first, then applied.

The transforms themselves are in ``spatial`` and ``intensity``, and the bundles' own in ``augment``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from ..utils import UserError
from . import geometry

__all__ = ["BatchCompose", "BatchTransform", "Intensity", "Parameters", "Spatial", "each", "uniform", "whole"]

Parameters = dict[str, Tensor]
"""What a transform drew, by name: ``chosen`` ``(B,)`` are the images to change; the rest is of these, in order."""


def uniform(low: float, high: float, *shape: int) -> Tensor:
    """Numbers between ``low`` and ``high``, of ``shape``, on the CPU from torch's default generator: any shape."""
    return (low + high) / 2 + (high - low) / 2 * (2 * torch.rand(shape) - 1)


def whole(low: int, high: int, *shape: int) -> Tensor:
    """Whole numbers from ``low`` to ``high``, both included, of any ``shape``, drawn likewise: any shape."""
    return torch.randint(low, high + 1, shape)


def each(values: Tensor, image: Tensor) -> Tensor:
    """A number an image, ``(n,)``, to be broadcast over ``image`` ``(n, C, *spatial)``."""
    return values.to(image).view(-1, *[1] * (image.ndim - 1))


class BatchTransform(nn.Module):
    """A random transform of a batch, alone or in a :class:`BatchCompose`, which it is called like.

    Args:
        prob: probability of changing an image, in ``[0, 1]``.

    Raises:
        UserError: ``prob`` is out of range.
    """

    def __init__(self, prob: float) -> None:
        super().__init__()
        if not 0 <= prob <= 1:
            raise UserError(f"{type(self).__name__}: prob must lie between 0 and 1, got {prob}.")
        self.prob = prob

    def sample(self, shape: Sequence[int]) -> Parameters:
        """Which images of ``shape`` ``(B, C, *spatial)`` are ``chosen`` ``(B,)``, and parameters for those."""
        chosen = torch.rand(shape[0]) < self.prob if self.prob < 1 else torch.ones(shape[0], dtype=torch.bool)
        return {"chosen": chosen, **self.draw((int(chosen.sum()), *shape[1:]))}

    def draw(self, shape: Sequence[int]) -> Parameters:
        """Parameters for the images to change, of ``shape`` ``(n, C, *spatial)``; their first axis is the images'."""
        return {}

    def forward(self, data: Any, label: Tensor | None = None) -> Any:
        """As :meth:`BatchCompose.forward`, of ``(B, C, *spatial)``."""
        return BatchCompose([self])(data, label)


class Spatial(BatchTransform):
    """A transform that moves what an image shows, and the label with it, which is interpolated as ``nearest``.

    Args:
        prob: probability of moving an image.
        mode: interpolation of the image, ``bilinear`` (in 3D trilinear) or ``nearest``; ``None``: any will do.
        padding_mode: what lies outside: ``zeros``, ``border`` or ``reflection``; ``None``: any will do.

    Raises:
        UserError: another word.
    """

    def __init__(self, prob: float, mode: str | None = None, padding_mode: str | None = None) -> None:
        super().__init__(prob)
        padding_mode = {"edge": "border", "constant": "zeros"}.get(padding_mode or "", padding_mode)
        if mode not in (None, "bilinear", "nearest") or padding_mode not in (None, "zeros", "border", "reflection"):
            raise UserError(
                f"{type(self).__name__}: mode bilinear or nearest, padding_mode zeros, border or reflection; got "
                f"{mode!r}, {padding_mode!r}."
            )
        self.how = (mode, padding_mode)

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Spatial shape of the output for the input's."""
        return tuple(shape)

    def matrices(self, parameters: Parameters, shape: Sequence[int]) -> Tensor:
        """From output to input, ``(n, dims + 1, dims + 1)``; see :mod:`~medtl_monai.transforms.geometry`."""
        raise NotImplementedError

    def offsets(self, parameters: Parameters, size: Sequence[int], device: torch.device) -> Tensor | None:
        """A deformation of the output's positions before the matrix, ``(n, dims, *size)`` in pixels, or ``None``."""
        return None


class Intensity(BatchTransform):
    """A transform that changes the values of the image and leaves it, and the label, in place."""

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        """``image`` ``(n, C, *spatial)``, changed; it may be overwritten."""
        raise NotImplementedError


class BatchCompose(nn.Module):
    """Random transforms of a batch of images, and of labels with them, one after another.

    Neighbouring movements with the same interpolation and padding are composed into one matrix and resample the batch
    once; a deformation ends such a row. Flips, turns by 90 degrees and crops alone are copied exactly, and an image for
    which nothing was drawn stays as it is, bit by bit. On CPUs a few images at a time are worked on, so that they stay
    in the cache; elsewhere the whole batch. Parameters are drawn on the CPU from torch's default generator, so a seed
    gives the same ones on every device.

    Args:
        transforms: of this package.

    Raises:
        UserError: a transform is none of this package's.

    Example:
        >>> from medtl_monai.transforms import BatchCompose, RandFlip, RandScaleIntensity
        >>> augment = BatchCompose([RandFlip(prob=1.0, spatial_axis=1), RandScaleIntensity(0.0, prob=1.0)])
        >>> image, label = augment(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0, 1]]]]))
        >>> image.tolist(), label.tolist()
        ([[[[2.0, 1.0]]]], [[[[1, 0]]]])
    """

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        super().__init__()
        for transform in transforms:
            if not isinstance(transform, BatchTransform):
                raise UserError(f"expected transforms of whole batches (medtl_monai.transforms), got {transform!r}.")
        self.transforms = cast("Sequence[BatchTransform]", nn.ModuleList(transforms))

    def forward(self, data: Any, label: Tensor | None = None) -> Any:
        """Draw parameters and apply them.

        Args:
            data: images ``(B, C, H, W)`` or ``(B, C, D, H, W)``, or a dictionary with ``image`` and perhaps ``label``.
            label: moved with the images, ``(B, C, *spatial)``.

        Returns:
            images; images and label where a label is given; the dictionary, its other entries as they were. Plain
            tensors come back, grey levels as real numbers, in the images' type otherwise.

        Raises:
            UserError: there is no image, or the label has another shape than the images.
        """
        if isinstance(data, Mapping):
            if "image" not in data:
                raise UserError(f"a batch needs an entry 'image'; it has {list(data)}.")
            moved = self(data["image"], data.get("label"))
            names = ("image",) if data.get("label") is None else ("image", "label")
            return {**data, **dict(zip(names, moved if len(names) == 2 else (moved,), strict=True))}
        data, label = _plain(data, label)
        image, label = self.transform(self.sample(data.shape), data, label)
        return image if label is None else (image, label)

    def sample(self, shape: Sequence[int]) -> list[Parameters]:
        """Parameters of every transform for images of ``shape`` ``(B, C, *spatial)``."""
        drawn, shape = [], tuple(shape)
        for transform in self.transforms:
            drawn.append(transform.sample(shape))
            if isinstance(transform, Spatial):
                shape = (*shape[:2], *transform.size(shape[2:]))
        return drawn

    @torch.no_grad()
    def transform(
        self, drawn: Sequence[Parameters], image: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Images ``(B, C, *spatial)``, and labels, under the parameters of :meth:`sample`; see :meth:`forward`."""
        given, label = _plain(image, label)
        image = _real(given) if any(isinstance(one, Intensity) for one in self.transforms) else given
        with torch.autocast(image.device.type, enabled=False):  # positions in 16 bits are off by pixels
            for row in self._rows():
                transforms, parameters = [self.transforms[i] for i in row], [drawn[i] for i in row]
                if isinstance(transforms[0], Spatial):
                    image, label = _move(cast("list[Spatial]", transforms), parameters, image, label)
                else:
                    image = image.clone() if image.data_ptr() == given.data_ptr() else image
                    _change(cast("Intensity", transforms[0]), parameters[0], image)
        return image.to(given.dtype) if given.is_floating_point() else image, label

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


def _move(
    row: list[Spatial], drawn: list[Parameters], image: Tensor, label: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Image and label under a row of movements, resampled once."""
    if not any(parameters["chosen"].any() for parameters in drawn):
        return image, label
    size: tuple[int, ...] = tuple(image.shape[2:])
    total = geometry.scaling(torch.ones(len(image), len(size), dtype=torch.float64))
    for transform, parameters in zip(row, drawn, strict=True):
        if (moved := parameters["chosen"]).any():
            total[moved] = total[moved] @ transform.matrices(parameters, size)
        size = transform.size(size)
    bent = drawn[-1]["chosen"].nonzero()[:, 0].tolist()
    offsets = row[-1].offsets(drawn[-1], size, image.device) if bent else None
    mode, padding_mode = (next(filter(None, found), None) for found in zip(*(t.how for t in row), strict=True))

    def resampled(image: Tensor, mode: str) -> Tensor:
        how = {"mode": mode, "padding_mode": padding_mode or "zeros"}
        return geometry.resample(_real(image), total, size, offsets=offsets, bent=bent, **how).to(image.dtype)

    return resampled(image, mode or "nearest"), None if label is None else resampled(label, "nearest")


def _change(transform: Intensity, parameters: Parameters, image: Tensor) -> None:
    """The chosen images' values changed in place, a few images at a time."""
    start = 0
    for some in geometry.chunks(parameters["chosen"].nonzero()[:, 0].tolist(), image):
        part = image[some]
        own = {name: value[start : start + len(part)] for name, value in parameters.items() if name != "chosen"}
        changed = transform.change(part, own)
        if changed is not part or not isinstance(some, slice):
            image[some] = changed
        start += len(part)


def _fit(row: list[BatchTransform], transform: BatchTransform) -> bool:
    """Whether ``transform`` may be composed with the movements before it."""
    if not isinstance(transform, Spatial) or not isinstance(row[0], Spatial):
        return False
    movements = cast("list[Spatial]", row)
    pairs = [pair for other in movements for pair in zip(other.how, transform.how, strict=True)]
    return type(movements[-1]).offsets is Spatial.offsets and all(None in pair or pair[0] == pair[1] for pair in pairs)


def _real(image: Tensor) -> Tensor:
    return image if image.dtype in (torch.float32, torch.float64) else image.float()


def _plain(image: Any, label: Any) -> tuple[Tensor, Tensor | None]:
    """Image and label as plain tensors, as many of one as of the other, and of one shape."""
    for name, one in (("image", image),) if label is None else (("image", image), ("label", label)):
        shape = tuple(one.shape) if isinstance(one, Tensor) else (type(one).__name__,)
        if len(shape) not in (4, 5):
            raise UserError(f"{name!r}: expected a batch (B, C, *spatial), got {shape}.")
        if (shape[0], *shape[2:]) != (len(image), *image.shape[2:]):
            expected = ", ".join(map(str, (len(image), "channels", *image.shape[2:])))
            raise UserError(f"{name!r}: expected a batch ({expected}), got {shape}.")
    image, label = (one.as_tensor() if isinstance(one, MetaTensor) else one for one in (image, label))
    return image, label
