"""Random changes of the values of whole batches, by MONAI's names, arguments and distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import ensure_tuple_rep, fall_back_tuple
from torch import Tensor

from ..utils import UserError
from . import effects
from .batched import Intensity
from .draw import Draw, fields
from .effects import _each

__all__ = [
    "RandAdjustContrast",
    "RandBiasField",
    "RandCoarseDropout",
    "RandColor",
    "RandGaussianNoise",
    "RandGaussianSmooth",
    "RandHistogramShift",
    "RandScaleIntensity",
    "RandShiftIntensity",
    "RandSimulateLowResolution",
]


class RandGaussianNoise(Intensity):
    """Add Gaussian noise of ``mean`` and of up to ``std`` (exactly that where ``sample_std`` is false)."""

    def __init__(self, prob: float = 0.1, mean: float = 0.0, std: float = 0.1, sample_std: bool = True) -> None:
        super().__init__(prob)
        self.mean, self.std, self.sample_std = mean, std, sample_std

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        return {"std": draw.uniform(0 if self.sample_std else self.std, self.std), "field": draw.seeds()}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        noise = fields(parameters["field"], image.shape[1:], image.device, normal=True)
        return image.addcmul_(noise, _each(parameters["std"], image)).add_(self.mean)


class RandGaussianSmooth(Intensity):
    """Blur by a Gaussian of a width in pixels drawn from ``sigma_x``, ``sigma_y`` and ``sigma_z``, one an axis."""

    def __init__(
        self,
        sigma_x: tuple[float, float] = (0.25, 1.5),
        sigma_y: tuple[float, float] = (0.25, 1.5),
        sigma_z: tuple[float, float] = (0.25, 1.5),
        prob: float = 0.1,
    ) -> None:
        super().__init__(prob)
        self.sigmas = (sigma_x, sigma_y, sigma_z)

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        return {"sigma": torch.stack([draw.uniform(*sigma) for sigma in self.sigmas[: len(shape)]], -1)}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return effects.gaussian_smooth(image, parameters["sigma"])


class RandBiasField(Intensity):
    """Multiply by the exponential of a polynomial with coefficients drawn from ``coeff_range``."""

    def __init__(self, degree: int = 3, coeff_range: tuple[float, float] = (0.0, 0.1), prob: float = 0.1) -> None:
        super().__init__(prob)
        if degree < 1:
            raise UserError(f"RandBiasField: degree must be 1 or more, got {degree}.")
        self.degree, self.coeff_range = degree, coeff_range

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        steps = torch.arange(self.degree + 1)
        powers = torch.stack(torch.meshgrid(*[steps] * len(shape), indexing="ij"))
        # as MONAI has it: in 2D the lower triangle, in 3D the products of at most this degree
        used = powers[1] <= powers[0] if len(shape) == 2 else powers.sum(0) <= self.degree
        return {"coefficients": used * draw.uniform(*self.coeff_range, *used.shape)}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return effects.legendre_field(image, parameters["coefficients"])


class RandAdjustContrast(Intensity):
    """Gamma: the values, scaled to [0, 1], to a power drawn from ``gamma`` (a pair, or from 0.5 up to a number)."""

    def __init__(self, prob: float = 0.1, gamma: Sequence[float] | float = (0.5, 4.5)) -> None:
        super().__init__(prob)
        low, high = (0.5, gamma) if isinstance(gamma, (int, float)) else gamma
        if not 0 < low <= high:
            raise UserError(f"RandAdjustContrast: gamma must be two rising numbers above 0, got {gamma}.")
        self.gamma = (low, high)

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        return {"gamma": draw.uniform(*self.gamma)}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return effects.adjust_contrast(image, parameters["gamma"])


class RandShiftIntensity(Intensity):
    """Brightness: add a number drawn from ``offsets`` (a pair, or the largest)."""

    def __init__(self, offsets: tuple[float, float] | float, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.offsets = _pair(offsets)

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        return {"offset": draw.uniform(*self.offsets)}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return image.add_(_each(parameters["offset"], image))


class RandScaleIntensity(Intensity):
    """Multiply by 1 plus a number drawn from ``factors`` (a pair, or the largest)."""

    def __init__(self, factors: tuple[float, float] | float, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.factors = _pair(factors)

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        return {"factor": draw.uniform(*self.factors)}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return image.mul_(_each(1 + parameters["factor"], image))


class RandSimulateLowResolution(Intensity):
    """As if taken with fewer pixels: each side times a number drawn from ``zoom_range``."""

    def __init__(self, prob: float = 0.1, zoom_range: Sequence[float] = (0.5, 1.0)) -> None:
        super().__init__(prob)
        self.zoom_range = tuple(zoom_range)

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        low, high = self.zoom_range
        return {"zoom": draw.uniform(low, high)}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return effects.simulate_low_resolution(image, parameters["zoom"])


class RandHistogramShift(Intensity):
    """Through a rising curve with ``num_control_points`` knots (a number, or from and up to), moved at random."""

    def __init__(self, num_control_points: tuple[int, int] | int = 10, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.points = ensure_tuple_rep(num_control_points, 2)
        if min(self.points) < 3:
            raise UserError(f"RandHistogramShift: num_control_points must be 3 or more, got {num_control_points}.")

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        count, most = draw.integers(*self.points).double(), max(self.points)
        place = draw.uniform(0, 1, most)
        knots = torch.arange(most) / (count[:, None] - 1)
        for i in range(1, most - 1):
            moved = knots[:, i - 1] + place[:, i] * (knots[:, i + 1] - knots[:, i - 1])
            knots[:, i] = torch.where(i < count - 1, moved, knots[:, i])
        return {"knots": knots, "count": count}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        out = torch.empty_like(image)
        for count in parameters["count"].unique().tolist():
            some = parameters["count"] == count
            out[some] = effects.histogram_shift(image[some], parameters["knots"][some, : int(count)])
        return out


class RandCoarseDropout(Intensity):
    """Fill boxes, as MONAI's ``RandCoarseDropout``.

    Args:
        holes: number of boxes, or the least.
        spatial_size: their sides in pixels, or the least.
        fill_value: a number; a pair, between which each pixel's is drawn; ``None``: the image's least and largest.
        max_holes: the largest number of boxes.
        max_spatial_size: the largest sides.
        prob: probability of changing an image.
    """

    def __init__(
        self,
        holes: int,
        spatial_size: Sequence[int] | int,
        fill_value: tuple[float, float] | float | None = None,
        max_holes: int | None = None,
        max_spatial_size: Sequence[int] | int | None = None,
        prob: float = 0.1,
    ) -> None:
        super().__init__(prob)
        if holes < 1:
            raise UserError(f"RandCoarseDropout: holes must be 1 or more, got {holes}.")
        self.holes, self.max_holes, self.fill_value = holes, max_holes or holes, fill_value
        self.spatial_size, self.max_spatial_size = spatial_size, max_spatial_size or spatial_size

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        dims = len(shape)
        least, most = (
            [min(a, n) for a, n in zip(fall_back_tuple(ensure_tuple_rep(s, dims), shape), shape, strict=True)]
            for s in (self.spatial_size, self.max_spatial_size)
        )
        count = draw.integers(self.holes, self.max_holes)
        sizes = torch.stack([draw.integers(a, b, self.max_holes) for a, b in zip(least, most, strict=True)], -1)
        space = torch.tensor(shape) - sizes + 1
        start = (draw.uniform(0, 1, self.max_holes, dims) * space).long()
        return {"count": count, "start": start, "stop": start + sizes, "field": draw.seeds()}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        fill: Any = self.fill_value
        drawn = fill is None or isinstance(fill, Sequence)
        if drawn:
            shares = (fields(parameters["field"], image.shape[1:], image.device, normal=False) + 1) / 2
        for i, one in enumerate(image):
            if drawn:
                low, high = one.aminmax() if fill is None else fill
                values = low + (high - low) * shares[i]
            boxes = zip(parameters["start"][i].tolist(), parameters["stop"][i].tolist(), strict=True)
            for start, stop in list(boxes)[: int(parameters["count"][i])]:
                box = (slice(None), *map(slice, start, stop))
                one[box] = values[box] if drawn else fill
        return image


class RandColor(Intensity):
    """Turn the hue by up to ``hue`` degrees and change the saturation by up to ``saturation`` (a share).

    MONAI has none. For images of three channels in order red, green, blue.
    """

    def __init__(self, prob: float = 0.1, hue: float = 18.0, saturation: float = 0.3) -> None:
        super().__init__(prob)
        self.hue, self.saturation = math.radians(hue), saturation

    def draw(self, draw: Draw, shape: Sequence[int]) -> dict[str, Tensor]:
        saturation = 1 + draw.uniform(-self.saturation, self.saturation)
        return {"hue": draw.uniform(-self.hue, self.hue), "saturation": saturation}

    def change(self, image: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        if image.shape[1] != 3:
            raise UserError(f"RandColor: expected images of 3 channels, got {image.shape[1]}: leave it out.")
        return effects.colour(image, parameters["hue"], parameters["saturation"])


def _pair(given: tuple[float, float] | float) -> tuple[float, float]:
    low, high = (-given, given) if isinstance(given, (int, float)) else given
    return min(low, high), max(low, high)
