"""Augmentation of whole batches on the device: sample one set of parameters an image, then apply them all at once."""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from ..utils import UserError
from . import effects, geometry
from .effects import _each
from .standardize import standardized

__all__ = ["AugmentBatch", "PrepareBatch", "affine_matrices", "pixel_matrices", "warp"]


def affine_matrices(angle: Tensor, zoom: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Matrices that turn, zoom, shift and mirror 2D images, for :func:`warp`.

    Args:
        angle: turn of the picture, counter-clockwise, in radians, ``(B,)``.
        zoom: magnification along each axis (x, y), above 0, ``(B, 2)``; 2 doubles the size.
        shift: movement of the picture as a fraction of its side along x and y, ``(B, 2)``.
        flip: True mirrors left and right, ``(B,)``.

    Returns:
        ``(B, 2, 3)``, from output to input positions, in the coordinates of ``torch.nn.functional.affine_grid``.

    Example:
        >>> one = torch.ones(1)
        >>> affine_matrices(0 * one, 2 * torch.ones(1, 2), torch.zeros(1, 2), one < 0)[0, :, :2].tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # y points down
    mirror = torch.where(flip, -1.0, 1.0)
    scale = 1 / zoom
    linear = torch.diag_embed(torch.stack([mirror * scale[:, 0], scale[:, 1]], -1)) @ turn
    offset = -(linear @ (2 * shift)[..., None])
    return torch.cat([linear, offset], -1)


def warp(image: Tensor, matrices: Tensor, mode: str = "bilinear") -> Tensor:
    """Resample ``image`` ``(B, C, H, W)`` once under ``matrices`` ``(B, 2, 3)``; zero outside.

    ``mode`` is ``bilinear``, or ``nearest`` for labels.
    """
    return geometry.resample(image, pixel_matrices(matrices, image.shape[2:]), mode=mode)


def pixel_matrices(matrices: Tensor, size: Sequence[int]) -> Tensor:
    """``matrices`` ``(B, 2, 3)`` of ``affine_grid`` for rows and columns in pixels from the centre, ``(B, 3, 3)``."""
    half = torch.tensor([*size, 2], dtype=torch.float64) / 2
    out = torch.eye(3, dtype=torch.float64).repeat(len(matrices), 1, 1)
    out[:, :2] = matrices.cpu().flip(1)[:, :, [1, 0, 2]].double()
    return out * half[:, None] / half


class AugmentBatch(nn.Module):
    """Random geometry (one resampling) and intensity of a batch of 2D images in ``[0, 1]``, each image on its own.

    Parameters are drawn on the CPU from torch's default generator, so a seed gives the same ones on every device.
    Every setting is a largest magnitude, drawn uniformly around "no change"; 0 switches it off.

    Args:
        flip: probability of mirroring left and right, in ``[0, 1]``.
        rotate: degrees, in ``[0, 180]``.
        zoom: log of the magnification, the same for both axes (0.2: from 0.82 to 1.22).
        stretch: log of the magnification of x against y.
        shift: fraction of the image's side, in ``[0, 1]``.
        gamma: log of the exponent.
        contrast: relative change of the intensity's scale.
        brightness: change of intensity.
        noise: standard deviation of Gaussian noise; each image gets between none and this.
        blur: probability of blur, of random strength.
        low_resolution: probability of having been taken with 40 to 80% of the pixels per side.
        bias_field: standard deviation of the logarithm of a smooth multiplicative field.
        tone: probability of a random rising tone curve (histogram shift).
        erase: probability that a box of a tenth to a third of each side is filled with a random value.

    Raises:
        UserError: a setting is negative or out of range.
    """

    def __init__(
        self,
        *,
        flip: float = 0.5,
        rotate: float = 20.0,
        zoom: float = 0.15,
        stretch: float = 0.0,
        shift: float = 0.08,
        gamma: float = 0.3,
        contrast: float = 0.2,
        brightness: float = 0.05,
        noise: float = 0.02,
        blur: float = 0.0,
        low_resolution: float = 0.0,
        bias_field: float = 0.0,
        tone: float = 0.0,
        erase: float = 0.0,
    ) -> None:
        super().__init__()
        settings = {
            "flip": (flip, 1.0),
            "rotate": (rotate, 180.0),
            "zoom": (zoom, math.inf),
            "stretch": (stretch, math.inf),
            "shift": (shift, 1.0),
            "gamma": (gamma, math.inf),
            "contrast": (contrast, 1.0),
            "brightness": (brightness, 1.0),
            "noise": (noise, math.inf),
            "blur": (blur, 1.0),
            "low_resolution": (low_resolution, 1.0),
            "bias_field": (bias_field, math.inf),
            "tone": (tone, 1.0),
            "erase": (erase, 1.0),
        }
        for name, (value, most) in settings.items():
            if not 0 <= value <= most:
                raise UserError(f"augmentation: {name} must lie between 0 and {most:g}, got {value}.")
        self.flip, self.rotate, self.zoom, self.stretch, self.shift = flip, math.radians(rotate), zoom, stretch, shift
        self.gamma, self.contrast, self.brightness, self.noise = gamma, contrast, brightness, noise
        self.blur, self.low_resolution, self.bias_field, self.tone, self.erase = (
            blur, low_resolution, bias_field, tone, erase,
        )  # fmt: skip

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Augmented ``image``, ``(B, C, H, W)``; with a ``label`` of that shape, both, the label moved alike."""
        if image.ndim != 4:
            raise ValueError(f"expected a batch of 2D images (B, C, H, W), got shape {tuple(image.shape)}.")
        return self.apply(self.sample(image.shape), image, label)

    def sample(self, shape: Sequence[int]) -> dict[str, Tensor]:
        """Parameters of the effects that are switched on, for images of ``shape`` ``(B, C, H, W)``."""
        n, found = shape[0], {}
        if self.flip or self.rotate or self.zoom or self.stretch or self.shift:
            stretch = _around_zero(self.stretch / 2, n)
            zoom = _around_zero(self.zoom, n)[:, None] + torch.stack([stretch, -stretch], -1)
            found["matrices"] = affine_matrices(
                _around_zero(self.rotate, n), zoom.exp(), _around_zero(self.shift, n, 2), torch.rand(n) < self.flip
            )
        if self.blur:
            found["blur"] = (torch.rand(n) < self.blur) * torch.rand(n)
        if self.low_resolution:
            found["factor"] = torch.empty(()).uniform_(0.4, 0.8)
            found["low_resolution"] = torch.rand(n) < self.low_resolution
        if self.bias_field:
            found["bias_field"] = self.bias_field * torch.randn(n, 3, 3)
        if self.tone:
            found["steps"] = torch.rand(n, 6) + 0.15
            found["tone"] = torch.rand(n) < self.tone
        if self.gamma:
            found["gamma"] = _around_zero(self.gamma, n).exp()
        if self.contrast or self.brightness:
            found["scale"], found["offset"] = 1 + _around_zero(self.contrast, n), _around_zero(self.brightness, n)
        if self.noise:
            found["noise"] = (self.noise * torch.rand(n)).view(-1, 1, 1, 1) * torch.randn(*shape)
        if self.erase:
            sides = torch.empty(n, 2).uniform_(0.1, 0.35)
            corner = torch.rand(n, 2) * (1 - sides)
            found["boxes"] = torch.cat([corner, corner + sides], 1)
            found["fill"], found["erase"] = torch.rand(n), torch.rand(n) < self.erase
        return found

    @staticmethod
    def apply(  # type: ignore[override]
        found: dict[str, Tensor], image: Tensor, label: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """``image``, and ``label`` with it, under the parameters of :meth:`sample`."""
        if "matrices" in found:
            image = warp(image, found["matrices"])
            if label is not None:
                label = warp(label.float(), found["matrices"], "nearest").to(label.dtype)
        if "blur" in found:
            image = effects.blur(image, found["blur"])
        if "low_resolution" in found:
            image = effects.low_resolution(image, float(found["factor"]), found["low_resolution"])
        if "bias_field" in found:
            image = effects.bias_field(image, found["bias_field"])
        if "tone" in found:
            changed = effects.tone_curve(image, found["steps"])
            image = torch.where(found["tone"].to(image.device).view(-1, 1, 1, 1), changed, image)
        if "gamma" in found:
            image = image.clamp_min(0) ** _each(found["gamma"], image)
        if "scale" in found:
            image = image * _each(found["scale"], image) + _each(found["offset"], image)
        if "noise" in found:
            image = image + found["noise"].to(image)
        if "erase" in found:
            image = effects.erase(image, found["boxes"], found["fill"], found["erase"])
        return image if label is None else (image, label)


class PrepareBatch:
    """MONAI's ``prepare_batch``: move a batch to the device once, then augment and normalize it there.

    Args:
        mean: subtracted from each channel, in units of the images (``[0, 1]``).
        std: divides each channel.
        augment: a module for a batch of images, and with masks or a map ``lesion`` for both, or ``None``.
        mix: a module for a batch of images and labels, such as :class:`~medtl_monai.transforms.MixBatch`, or ``None``.
        standardize: first give each image mean 0 and standard deviation 1 of its own (:func:`standardized`).
        dimensions: of an image; further axes are of its slices, each of which is then standardized on its own.

    Called with ``(batch, device, non_blocking)``, it returns ``(image, label)``; the label is ``None`` where the batch
    has none. Labels of the images' shape (masks) are augmented with them, and so is a map ``lesion`` ``(B, 1, H, W)``
    of where lesions are, which is laid back into the batch. Images are laid out channels-last, which is faster for
    convolutions on CPUs and tensor cores. MONAI's metadata is dropped: it costs 12 us an operation.
    """

    def __init__(
        self,
        mean: list[float],
        std: list[float],
        augment: nn.Module | None = None,
        mix: nn.Module | None = None,
        *,
        standardize: bool = False,
        dimensions: int = 2,
    ) -> None:
        self.mean, self.std, self.augment, self.mix = torch.tensor(mean), torch.tensor(std), augment, mix
        self.standardize, self.dimensions = standardize, dimensions

    def __call__(
        self,
        batch: MutableMapping[str, Any],
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None]:
        image, label, lesion = (
            None if value is None else torch.as_tensor(_plain(value)).to(device, non_blocking=non_blocking)
            for value in (batch["image"], batch.get("label"), batch.get("lesion"))
        )
        assert image is not None
        if self.augment is not None and lesion is not None:
            image, lesion = self.augment(image, lesion)
        elif self.augment is not None:
            masks = label is not None and label.ndim == image.ndim
            image, label = self.augment(image, label) if masks else (self.augment(image), label)
        if self.mix is not None and label is not None:
            mixed = image if lesion is None else torch.cat([image, lesion.to(image)], 1)
            mixed, label = self.mix(mixed, label)
            image, lesion = mixed[:, : image.shape[1]], None if lesion is None else mixed[:, image.shape[1] :]
        if lesion is not None:
            batch["lesion"] = lesion
        shape = (-1,) + (1,) * (image.ndim - 2)
        if self.standardize:
            image = standardized(image, range(2, 2 + self.dimensions))
        image = (image - self.mean.to(image).view(shape)) / self.std.to(image).view(shape)
        if image.ndim == 4:
            image = image.contiguous(memory_format=torch.channels_last)
        return image, label


def _plain(value: Any) -> Any:
    return value.as_tensor() if isinstance(value, MetaTensor) else value


def _around_zero(most: float, *shape: int) -> Tensor:
    return most * (2 * torch.rand(shape) - 1)
