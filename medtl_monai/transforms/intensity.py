"""Random changes of the values of whole batches, by MONAI's names, arguments and distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from monai.utils import ensure_tuple_rep, fall_back_tuple
from torch import Tensor
from torch.nn.functional import interpolate

from ..utils import UserError
from . import geometry, smooth
from .batched import Intensity, Parameters, each, uniform, whole

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

    def draw(self, shape: Sequence[int]) -> Parameters:
        std = self.std * (torch.rand(shape[0]) if self.sample_std else torch.ones(shape[0]))
        return {"std": std, "seed": torch.randint(2**62, (shape[0],))}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        noise, generator = torch.empty(image.shape), torch.Generator()
        for one, seed in zip(noise, parameters["seed"].tolist(), strict=True):
            one.normal_(generator=generator.manual_seed(seed))
        return image.addcmul_(noise.to(image), each(parameters["std"], image)).add_(self.mean)


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

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"sigma": torch.stack([uniform(*sigma, shape[0]) for sigma in self.sigmas[: len(shape) - 2]], -1)}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        return smooth.gaussian_smooth(image, parameters["sigma"])


class RandBiasField(Intensity):
    """Multiply by the exponential of a polynomial with coefficients drawn from ``coeff_range``."""

    def __init__(self, degree: int = 3, coeff_range: tuple[float, float] = (0.0, 0.1), prob: float = 0.1) -> None:
        super().__init__(prob)
        if degree < 1:
            raise UserError(f"RandBiasField: degree must be 1 or more, got {degree}.")
        self.degree, self.coeff_range = degree, coeff_range

    def draw(self, shape: Sequence[int]) -> Parameters:
        steps = torch.arange(self.degree + 1)
        powers = torch.stack(torch.meshgrid(*[steps] * (len(shape) - 2), indexing="ij"))
        # as MONAI has it: in 2D the lower triangle, in 3D the products of at most this degree
        used = powers[1] <= powers[0] if len(shape) == 4 else powers.sum(0) <= self.degree
        return {"coefficients": used * uniform(*self.coeff_range, shape[0], *used.shape)}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        operators = []  # Legendre polynomials of the positions from -1 to 1
        for length in image.shape[2:]:
            x = torch.linspace(-1, 1, length)
            terms = [torch.ones_like(x), x]
            for k in range(1, self.degree):
                terms.append(((2 * k + 1) * x * terms[k] - k * terms[k - 1]) / (k + 1))
            operators.append(torch.stack(terms, -1)[None])
        return image * geometry.per_axis(parameters["coefficients"][:, None].to(image), operators).exp()


class RandAdjustContrast(Intensity):
    """Gamma: the values, scaled to [0, 1], to a power drawn from ``gamma`` (a pair, or from 0.5 up to a number)."""

    def __init__(self, prob: float = 0.1, gamma: Sequence[float] | float = (0.5, 4.5)) -> None:
        super().__init__(prob)
        low, high = (0.5, gamma) if isinstance(gamma, (int, float)) else gamma
        if not 0 < low <= high:
            raise UserError(f"RandAdjustContrast: gamma must be two rising numbers above 0, got {gamma}.")
        self.gamma = (low, high)

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"gamma": uniform(*self.gamma, shape[0])}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        low, width = _range(image)
        share = (image - low).div_(width + 1e-7)
        gamma = each(parameters["gamma"], image)
        return share.log2_().mul_(gamma).exp2_().mul_(width).add_(low)  # faster than a power on CPUs


class RandShiftIntensity(Intensity):
    """Brightness: add a number drawn from ``offsets`` (a pair, or the largest)."""

    def __init__(self, offsets: tuple[float, float] | float, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.offsets = _pair(offsets)

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"offset": uniform(*self.offsets, shape[0])}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        return image.add_(each(parameters["offset"], image))


class RandScaleIntensity(Intensity):
    """Multiply by 1 plus a number drawn from ``factors`` (a pair, or the largest)."""

    def __init__(self, factors: tuple[float, float] | float, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.factors = _pair(factors)

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"factor": uniform(*self.factors, shape[0])}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        return image.mul_(each(1 + parameters["factor"], image))


class RandSimulateLowResolution(Intensity):
    """As if taken with fewer pixels: each side times a number drawn from ``zoom_range``."""

    def __init__(self, prob: float = 0.1, zoom_range: Sequence[float] = (0.5, 1.0)) -> None:
        super().__init__(prob)
        self.zoom_range = tuple(zoom_range)

    def draw(self, shape: Sequence[int]) -> Parameters:
        low, high = self.zoom_range
        return {"zoom": uniform(low, high, shape[0])}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        mode = {4: "bilinear", 5: "trilinear"}[image.ndim]
        for one, factor in zip(image, parameters["zoom"].tolist(), strict=True):
            small = [max(1, round(factor * length)) for length in one.shape[1:]]
            coarse = interpolate(one[None], small, mode="nearest")
            one.copy_(interpolate(coarse, one.shape[1:], mode=mode, align_corners=False)[0])
        return image


class RandHistogramShift(Intensity):
    """Through a rising curve with ``num_control_points`` knots (a number, or from and up to), moved at random."""

    def __init__(self, num_control_points: tuple[int, int] | int = 10, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.points = ensure_tuple_rep(num_control_points, 2)
        if min(self.points) < 3:
            raise UserError(f"RandHistogramShift: num_control_points must be 3 or more, got {num_control_points}.")

    def draw(self, shape: Sequence[int]) -> Parameters:
        count, most = whole(*self.points, shape[0]), max(self.points)
        place = torch.rand(shape[0], most)
        knots = torch.arange(most) / (count[:, None] - 1)
        for i in range(1, most - 1):
            moved = knots[:, i - 1] + place[:, i] * (knots[:, i + 1] - knots[:, i - 1])
            knots[:, i] = torch.where(i < count - 1, moved, knots[:, i])
        return {"knots": knots, "count": count}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        low, width = _range(image)
        steps = each(parameters["count"] - 1, image)
        place = (image - low) / width.clamp_min(torch.finfo(image.dtype).tiny) * steps
        return curve(parameters["knots"].to(image), place.minimum(steps)) * width + low


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

    def draw(self, shape: Sequence[int]) -> Parameters:
        n, sides = shape[0], tuple(shape[2:])
        least, most = (
            [min(a, n) for a, n in zip(fall_back_tuple(ensure_tuple_rep(s, len(sides)), sides), sides, strict=True)]
            for s in (self.spatial_size, self.max_spatial_size)
        )
        sizes = torch.stack([whole(a, b, n, self.max_holes) for a, b in zip(least, most, strict=True)], -1)
        start = (torch.rand(n, self.max_holes, len(sides)) * (torch.tensor(sides) - sizes + 1)).long()
        found = {"count": whole(self.holes, self.max_holes, n), "start": start, "stop": start + sizes}
        if self.fill_value is None or isinstance(self.fill_value, Sequence):
            found["shares"] = torch.rand(*shape)
        return found

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        for i, one in enumerate(image):
            values = self._fill(one, parameters["shares"][i]) if "shares" in parameters else self.fill_value
            boxes = zip(parameters["start"][i].tolist(), parameters["stop"][i].tolist(), strict=True)
            for start, stop in list(boxes)[: int(parameters["count"][i])]:
                box = (slice(None), *map(slice, start, stop))
                one[box] = values[box] if isinstance(values, Tensor) else values
        return image

    def _fill(self, image: Tensor, shares: Tensor) -> Tensor:
        low, high = image.aminmax() if self.fill_value is None else cast("tuple[float, float]", self.fill_value)
        return low + (high - low) * shares.to(image)


class RandColor(Intensity):
    """Turn the hue by up to ``hue`` degrees and change the saturation by up to ``saturation`` (a share).

    MONAI has none. For images of three channels in order red, green, blue.
    """

    def __init__(self, prob: float = 0.1, hue: float = 18.0, saturation: float = 0.3) -> None:
        super().__init__(prob)
        self.hue, self.saturation = math.radians(hue), saturation

    def draw(self, shape: Sequence[int]) -> Parameters:
        saturation = 1 + uniform(-self.saturation, self.saturation, shape[0])
        return {"hue": uniform(-self.hue, self.hue, shape[0]), "saturation": saturation}

    def change(self, image: Tensor, parameters: Parameters) -> Tensor:
        if image.shape[1] != 3:
            raise UserError(f"RandColor: expected images of 3 channels, got {image.shape[1]}: leave it out.")
        grey = torch.full((3, 3), 1 / 3, dtype=torch.float64)
        axis = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / 3**0.5
        cos, sin = (f(parameters["hue"].double())[:, None, None] for f in (torch.cos, torch.sin))
        turn = cos * (torch.eye(3, dtype=torch.float64) - grey) + sin * axis  # about the greys
        matrix = grey + parameters["saturation"].double()[:, None, None] * turn
        return (matrix.to(image) @ image.flatten(2)).view_as(image)


def _pair(given: tuple[float, float] | float) -> tuple[float, float]:
    low, high = (-given, given) if isinstance(given, (int, float)) else given
    return min(low, high), max(low, high)


def curve(heights: Tensor, place: Tensor) -> Tensor:
    """Heights ``(n, K + 1)`` of curves, straight between knots at 0 to K, at ``place`` ``(n, ...)``."""
    left = place.floor().clamp_(0, heights.shape[1] - 2)
    index = left.long().flatten(1)
    low, high = (heights.gather(1, i).view_as(place) for i in (index, index + 1))
    return torch.lerp(low, high, place - left)


def _range(image: Tensor) -> tuple[Tensor, Tensor]:
    """Least value and width of the range of each image, to be broadcast."""
    low, high = (torch.stack(found) for found in zip(*(one.aminmax() for one in image), strict=True))
    return each(low, image), each(high - low, image)
