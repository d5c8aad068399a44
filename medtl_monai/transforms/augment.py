"""The bundles' augmentation: a chain whose settings are largest magnitudes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ..utils import UserError
from . import smooth
from .batched import BatchCompose, BatchTransform, Intensity, Parameters, Spatial, each, uniform
from .intensity import curve

__all__ = [
    "AugmentBatch",
    "BiasField",
    "Blur",
    "Erase",
    "Gamma",
    "Levels",
    "LowResolution",
    "Move",
    "Noise",
    "Tone",
    "placements",
]


class AugmentBatch(BatchCompose):
    """Random geometry (one resampling) and intensity of a batch of 2D images in ``[0, 1]``, each image on its own.

    Every setting is a largest magnitude, drawn uniformly around "no change"; 0 switches it off.

    Args:
        flip: probability of mirroring left and right, in ``[0, 1]``.
        rotate: degrees, in ``[0, 180]``.
        zoom: log of the magnification, the same for both axes (0.2: from 0.82 to 1.22).
        stretch: log of the magnification of x against y.
        shift: fraction of the image's side, in ``[0, 1]``.
        elastic: standard deviation of a smooth deformation, as a fraction of the image's side, in ``[0, 0.1]``; each
            image gets between none and this.
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
        elastic: float = 0.0,
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
        moves = {"flip": flip, "rotate": rotate, "zoom": zoom, "stretch": stretch, "shift": shift, "elastic": elastic}
        values = {
            "gamma": gamma, "contrast": contrast, "brightness": brightness, "noise": noise, "blur": blur,
            "low_resolution": low_resolution, "bias_field": bias_field, "tone": tone, "erase": erase,
        }  # fmt: skip
        for name, value in {**moves, **values}.items():
            most = _MOST.get(name, math.inf)
            if not 0 <= value <= most:
                raise UserError(f"augmentation: {name} must lie between 0 and {most:g}, got {value}.")
        chain: list[tuple[float, Callable[[], BatchTransform]]] = [
            (max(moves.values()), lambda: Move(**moves)),
            (blur, lambda: Blur(blur)),
            (low_resolution, lambda: LowResolution(low_resolution)),
            (bias_field, lambda: BiasField(bias_field)),
            (tone, lambda: Tone(tone)),
            (gamma, lambda: Gamma(gamma)),
            (max(contrast, brightness), lambda: Levels(contrast, brightness)),
            (noise, lambda: Noise(noise)),
            (erase, lambda: Erase(erase)),
        ]
        super().__init__([make() for size, make in chain if size])

    def sample(self, shape: Sequence[int]) -> list[Parameters]:
        """As :meth:`BatchCompose.sample`, for 2D images."""
        if len(shape) != 4:
            raise UserError(f"augmentation: expected a batch of 2D images (B, C, H, W), got shape {tuple(shape)}.")
        return super().sample(shape)


def placements(angle: Tensor, zoom: Tensor, shift: Tensor, flip: Tensor, size: Sequence[int]) -> Tensor:
    """Matrices that turn, zoom, shift and mirror 2D images, for :func:`~medtl_monai.transforms.geometry.resample`.

    Args:
        angle: turn of the picture, counter-clockwise, in radians, ``(B,)``.
        zoom: magnification along each axis (x, y), above 0, ``(B, 2)``; 2 doubles the size.
        shift: movement of the picture as a fraction of its side along x and y, ``(B, 2)``.
        flip: True mirrors left and right, ``(B,)``.
        size: height and width in pixels.

    Returns:
        ``(B, 3, 3)``, float64.

    Example:
        >>> one = torch.ones(1)
        >>> placements(0 * one, 2 * torch.ones(1, 2), torch.zeros(1, 2), one < 0, (8, 8))[0, :2, :2].tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # y points down
    mirror = torch.where(flip, -1.0, 1.0)
    scale = 1 / zoom
    linear = torch.diag_embed(torch.stack([mirror * scale[:, 0], scale[:, 1]], -1)) @ turn
    sides = torch.cat([linear, -(linear @ (2 * shift)[..., None])], -1)  # x before y, half a side as 1
    half = torch.tensor([*size, 2], dtype=torch.float64) / 2
    pixels = torch.eye(3, dtype=torch.float64).repeat(len(angle), 1, 1)
    pixels[:, :2] = sides.flip(1)[:, :, [1, 0, 2]].double()
    return pixels * half[:, None] / half


class Move(Spatial):
    """Mirror, turn, magnify, stretch, shift and bend 2D images; the settings are those of :class:`AugmentBatch`."""

    def __init__(
        self, *, flip: float, rotate: float, zoom: float, stretch: float, shift: float, elastic: float = 0.0
    ) -> None:
        super().__init__(1.0, "bilinear", "zeros")
        self.flip, self.rotate, self.zoom, self.stretch, self.shift = flip, math.radians(rotate), zoom, stretch, shift
        self.elastic = elastic

    def draw(self, shape: Sequence[int]) -> Parameters:
        n = shape[0]
        stretch = _around_zero(self.stretch / 2, n)
        zoom = _around_zero(self.zoom, n)[:, None] + torch.stack([stretch, -stretch], -1)
        turn, shift, flip = _around_zero(self.rotate, n), _around_zero(self.shift, n, 2), torch.rand(n) < self.flip
        found = {"matrices": placements(turn, zoom.exp(), shift, flip, shape[2:])}
        if self.elastic:
            points = [smooth.control_points(side, _spacing(side)) for side in shape[2:]]
            sides = self.elastic * torch.rand(n, 1) * torch.tensor(shape[2:])
            found["moves"] = sides[:, :, None, None] * torch.randn(n, 2, *points)
        return found

    def matrices(self, parameters: Parameters, shape: Sequence[int]) -> Tensor:
        return parameters["matrices"]

    def offsets(self, parameters: Parameters, size: Sequence[int], device: torch.device) -> Tensor | None:
        if "moves" not in parameters:
            return None
        return smooth.control_offsets(parameters["moves"].to(device), size, [_spacing(side) for side in size])


class Blur(Intensity):
    """Mixed with its 5 x 5 triangle-filtered self by a random share, with probability ``prob``."""

    def sample(self, shape: Sequence[int]) -> Parameters:
        found = super().sample(shape)
        return {**found, "amount": torch.rand(shape[0])[found["chosen"]]}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        blurred = avg_pool2d(avg_pool2d(pad(image, [2] * 4, mode="replicate"), 3, stride=1), 3, stride=1)
        return torch.lerp(image, blurred, each(parameters["amount"], image))


class LowResolution(Intensity):
    """With probability ``prob`` as if taken with 40 to 80% of the pixels per side, the same for the whole batch."""

    def sample(self, shape: Sequence[int]) -> Parameters:
        factor, found = torch.empty(()).uniform_(0.4, 0.8), super().sample(shape)
        return {**found, "factor": factor.expand(int(found["chosen"].sum()))}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        size, factor = image.shape[2:], float(parameters["factor"][0])
        small = [max(1, round(factor * side)) for side in size]
        return interpolate(interpolate(image, small, mode="bilinear", antialias=True), size, mode="bilinear")


class BiasField(Intensity):
    """Times the exponential of a smooth field with a standard deviation of ``size``."""

    def __init__(self, size: float) -> None:
        super().__init__(1.0)
        self.size = size

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"knots": self.size * torch.randn(shape[0], 3, 3)}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        knots = parameters["knots"][:, None].to(image)
        return image.mul_(interpolate(knots, image.shape[2:], mode="bicubic", align_corners=True).exp_())


class Tone(Intensity):
    """Values in ``[0, 1]`` through a random rising curve, with probability ``prob``; those outside are clipped.

    It is MONAI's ``RandHistogramShift`` with one curve an image.
    """

    def sample(self, shape: Sequence[int]) -> Parameters:
        steps, found = torch.rand(shape[0], 6) + 0.15, super().sample(shape)
        return {**found, "steps": steps[found["chosen"]]}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        steps = parameters["steps"]
        heights = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(1)], 1).to(image)
        return curve(heights / heights[:, -1:], image.clamp(0, 1) * steps.shape[1])


class Gamma(Intensity):
    """To a power whose logarithm is at most ``size``; values below 0 become 0."""

    def __init__(self, size: float) -> None:
        super().__init__(1.0)
        self.size = size

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"gamma": _around_zero(self.size, shape[0]).exp()}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        return image.clamp_min_(0).pow_(each(parameters["gamma"], image))


class Levels(Intensity):
    """Times 1 plus at most ``contrast``, plus at most ``brightness``."""

    def __init__(self, contrast: float, brightness: float) -> None:
        super().__init__(1.0)
        self.contrast, self.brightness = contrast, brightness

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"scale": 1 + _around_zero(self.contrast, shape[0]), "offset": _around_zero(self.brightness, shape[0])}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        return image.mul_(each(parameters["scale"], image)).add_(each(parameters["offset"], image))


class Noise(Intensity):
    """Plus Gaussian noise of a standard deviation of up to ``size``."""

    def __init__(self, size: float) -> None:
        super().__init__(1.0)
        self.size = size

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"std": self.size * torch.rand(shape[0]), "noise": torch.randn(*shape)}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        return image.add_(parameters["noise"].to(image) * each(parameters["std"], image))


class Erase(Intensity):
    """A box of a tenth to a third of each side filled with a random value, with probability ``prob``: random erasing.

    References:
        Zhong, Zheng, Kang, Li, Yang. Random erasing data augmentation. AAAI 2020.
    """

    def sample(self, shape: Sequence[int]) -> Parameters:
        sides = torch.empty(shape[0], 2).uniform_(0.1, 0.35)
        corner = torch.rand(shape[0], 2) * (1 - sides)
        boxes, fill = torch.cat([corner, corner + sides], 1), torch.rand(shape[0])
        found = super().sample(shape)
        return {**found, "boxes": boxes[found["chosen"]], "fill": fill[found["chosen"]]}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        height, width = image.shape[2:]
        y = (torch.arange(height, device=image.device) + 0.5)[None, :, None] / height
        x = (torch.arange(width, device=image.device) + 0.5)[None, None, :] / width
        top, left, bottom, right = parameters["boxes"].to(image)[:, :, None, None].unbind(1)
        inside = (y > top) & (y < bottom) & (x > left) & (x < right)
        return torch.where(inside[:, None], each(parameters["fill"], image), image)


_MOST = {
    **dict.fromkeys(("flip", "shift", "contrast", "brightness", "blur", "low_resolution", "tone", "erase"), 1.0),
    "rotate": 180.0, "elastic": 0.1,
}  # fmt: skip


def _around_zero(most: float, *shape: int) -> Tensor:
    return uniform(-most, most, *shape)


def _spacing(side: int) -> float:
    """Pixels between the control points of a deformation."""
    return max(1.0, side / 8)
