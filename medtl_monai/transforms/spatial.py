"""Random movements of whole batches, by MONAI's names, arguments and distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import ensure_tuple, ensure_tuple_rep, ensure_tuple_size, fall_back_tuple
from torch import Tensor

from ..utils import UserError
from . import geometry, smooth
from .batched import Parameters, Spatial, uniform, whole

__all__ = [
    "Rand2DElastic",
    "Rand3DElastic",
    "RandAffine",
    "RandFlip",
    "RandRotate",
    "RandRotate90",
    "RandSpatialCrop",
    "RandZoom",
]


class RandFlip(Spatial):
    """Mirror along ``spatial_axis`` (a number, several, or ``None`` for all), as MONAI's ``RandFlip``."""

    def __init__(self, prob: float = 0.1, spatial_axis: Sequence[int] | int | None = None) -> None:
        super().__init__(prob)
        self.spatial_axis = spatial_axis

    def matrices(self, parameters: Parameters, shape: Sequence[int]) -> Tensor:
        signs = torch.ones(int(parameters["chosen"].sum()), len(shape), dtype=torch.float64)
        signs[:, slice(None) if self.spatial_axis is None else list(ensure_tuple(self.spatial_axis))] = -1
        return geometry.scaling(signs)


class RandRotate90(Spatial):
    """1 to ``max_k`` turns by 90 degrees in the plane of ``spatial_axes``, as MONAI's ``RandRotate90``.

    Raises:
        UserError: on use, where the two axes differ in length: the images of a batch have one shape.
    """

    def __init__(self, prob: float = 0.1, max_k: int = 3, spatial_axes: tuple[int, int] = (0, 1)) -> None:
        super().__init__(prob)
        self.max_k, self.spatial_axes = max_k, tuple(spatial_axes)

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"k": whole(1, self.max_k, shape[0])}

    def matrices(self, parameters: Parameters, shape: Sequence[int]) -> Tensor:
        i, j = (axis % len(shape) for axis in self.spatial_axes)
        if shape[i] != shape[j]:
            raise UserError(f"turns by 90 degrees need axes of one length in a batch, got {tuple(shape)}.")
        one = torch.eye(len(shape) + 1, dtype=torch.float64)
        one[i, i] = one[j, j] = 0
        one[i, j], one[j, i] = 1, -1
        return torch.stack([torch.linalg.matrix_power(one, int(k)) for k in parameters["k"]])


class RandRotate(Spatial):
    """Turn by angles drawn from ``range_x`` (2D; in 3D also ``range_y``, ``range_z``), as MONAI's ``RandRotate``.

    Args:
        range_x: largest angle in radians, or the least and the largest; 3D: about the first axis.
        range_y: about the second axis.
        range_z: about the third axis.
        prob: probability of changing an image.
        mode: ``bilinear`` (in 3D trilinear) or ``nearest``.
        padding_mode: ``border``, ``zeros`` or ``reflection``.
    """

    def __init__(
        self,
        range_x: tuple[float, float] | float = 0.0,
        range_y: tuple[float, float] | float = 0.0,
        range_z: tuple[float, float] | float = 0.0,
        prob: float = 0.1,
        mode: str = "bilinear",
        padding_mode: str = "border",
    ) -> None:
        super().__init__(prob, mode, padding_mode)
        self.ranges = [_range(r) for r in (range_x, range_y, range_z)]

    def draw(self, shape: Sequence[int]) -> Parameters:
        return {"angles": _each(self.ranges[: 1 if len(shape) == 4 else 3], shape[0])}

    def matrices(self, parameters: Parameters, shape: Sequence[int]) -> Tensor:
        return geometry.rotation(parameters["angles"], len(shape))


class RandZoom(Spatial):
    """Magnify about the centre, as MONAI's ``RandZoom`` with ``keep_size`` and linear interpolation.

    MONAI rounds the magnified shape to whole pixels; here the magnification is as drawn.

    Args:
        prob: probability of changing an image.
        min_zoom: least magnification; one number for all axes alike, or one an axis.
        max_zoom: largest magnification.
        mode: ``bilinear`` (in 3D trilinear) or ``nearest``.
        padding_mode: ``edge`` or ``border``, ``zeros`` or ``reflection``.
    """

    def __init__(
        self,
        prob: float = 0.1,
        min_zoom: Sequence[float] | float = 0.9,
        max_zoom: Sequence[float] | float = 1.1,
        mode: str = "bilinear",
        padding_mode: str = "edge",
    ) -> None:
        super().__init__(prob, mode, padding_mode)
        self.ranges = list(zip(ensure_tuple(min_zoom), ensure_tuple(max_zoom), strict=True))
        if min(low for low, _ in self.ranges) <= 0:
            raise UserError(f"RandZoom: magnifications must be above 0, got {min_zoom}.")

    def draw(self, shape: Sequence[int]) -> Parameters:
        zoom = _each(self.ranges, shape[0])
        if zoom.shape[1] == 2 and len(shape) == 5:
            zoom = zoom[:, [0, 0, 1]]  # MONAI: the plane's and the depth's
        return {"zoom": zoom.expand(-1, len(shape) - 2)}

    def matrices(self, parameters: Parameters, shape: Sequence[int]) -> Tensor:
        return geometry.scaling(1 / parameters["zoom"])


class RandAffine(Spatial):
    """Turn, shear, move and scale, as MONAI's ``RandAffine``.

    Args:
        prob: probability of changing an image.
        rotate_range: for each axis of rotation the largest angle in radians, or the least and the largest.
        shear_range: for each ordered pair of axes.
        translate_range: pixels, for each axis.
        scale_range: for each axis; 1 is added; above 1 shrinks the picture.
        mode: ``bilinear`` (in 3D trilinear) or ``nearest``.
        padding_mode: ``reflection``, ``border`` or ``zeros``.
    """

    def __init__(
        self,
        prob: float = 0.1,
        rotate_range: Sequence | float | None = None,
        shear_range: Sequence | float | None = None,
        translate_range: Sequence | float | None = None,
        scale_range: Sequence | float | None = None,
        mode: str = "bilinear",
        padding_mode: str = "reflection",
    ) -> None:
        super().__init__(prob, mode, padding_mode)
        self.rotate_range, self.shear_range = rotate_range, shear_range
        self.translate_range, self.scale_range = translate_range, scale_range

    def draw(self, shape: Sequence[int]) -> Parameters:
        dims = len(shape) - 2
        counts = {"rotate": 1 if dims == 2 else 3, "shear": dims * (dims - 1), "translate": dims, "scale": dims}
        found = {}
        for name, count in counts.items():
            given = getattr(self, f"{name}_range")
            pairs = () if given is None else ensure_tuple(given)
            found[name] = _each([_range(r) for r in ensure_tuple_size(pairs, count)], shape[0])
        return {**found, "scale": 1 + found["scale"]}

    def matrices(self, parameters: Parameters, shape: Sequence[int]) -> Tensor:
        turn = geometry.rotation(parameters["rotate"], len(shape))
        move, scale = geometry.translation(parameters["translate"]), geometry.scaling(parameters["scale"])
        return turn @ geometry.shearing(parameters["shear"], len(shape)) @ move @ scale


class Rand2DElastic(RandAffine):
    """Offsets of control points, brought to every pixel by cubic splines, then the affine, as MONAI's.

    Args:
        spacing: of the control points, in pixels.
        magnitude_range: from which the offsets' standard deviation is drawn, in pixels.
        prob: probability of changing an image.
        affine: ``rotate_range``, ``shear_range``, ``translate_range``, ``scale_range``, ``mode`` and ``padding_mode``
            as for :class:`RandAffine`.
    """

    def __init__(
        self,
        spacing: Sequence[float] | float,
        magnitude_range: tuple[float, float],
        prob: float = 0.1,
        **affine: Any,
    ) -> None:
        super().__init__(prob, **affine)
        self.spacing, self.magnitude_range = ensure_tuple_rep(spacing, 2), magnitude_range

    def draw(self, shape: Sequence[int]) -> Parameters:
        magnitude = uniform(*self.magnitude_range, shape[0])
        points = [smooth.control_points(n, step) for n, step in zip(shape[2:], self.spacing, strict=True)]
        moves = torch.randn(shape[0], 2, *points).mul_(magnitude.view(-1, 1, 1, 1))
        return {**super().draw(shape), "moves": moves}

    def offsets(self, parameters: Parameters, size: Sequence[int], device: torch.device) -> Tensor:
        return smooth.control_offsets(parameters["moves"].to(device), size, self.spacing)


class Rand3DElastic(RandAffine):
    """Uniform offsets of every voxel under a Gaussian, then the affine, as MONAI's.

    Args:
        sigma_range: from which the Gaussian's width is drawn, in voxels.
        magnitude_range: from which the factor of the smoothed offsets is drawn, in voxels.
        prob: probability of changing an image.
        affine: as for :class:`Rand2DElastic`.
    """

    def __init__(
        self,
        sigma_range: tuple[float, float],
        magnitude_range: tuple[float, float],
        prob: float = 0.1,
        **affine: Any,
    ) -> None:
        super().__init__(prob, **affine)
        self.sigma_range, self.magnitude_range = sigma_range, magnitude_range

    def draw(self, shape: Sequence[int]) -> Parameters:
        magnitude, sigma = uniform(*self.magnitude_range, shape[0]), uniform(*self.sigma_range, shape[0])
        moves = torch.empty(shape[0], 3, *shape[2:]).uniform_(-1, 1).mul_(magnitude.view(-1, 1, 1, 1, 1))
        return {**super().draw(shape), "sigma": sigma, "moves": moves}

    def offsets(self, parameters: Parameters, size: Sequence[int], device: torch.device) -> Tensor:
        sigma = parameters["sigma"][:, None].expand(-1, 3)
        return smooth.gaussian_smooth(parameters["moves"].to(device), sigma, truncated=3.0)


class RandSpatialCrop(Spatial):
    """A box of ``roi_size`` from a random place, or the centre, of every image, as MONAI's ``RandSpatialCrop``.

    Args:
        roi_size: in pixels; one of 0 or less, or longer than the image, takes the whole side.
        random_center: take it from a random place.
    """

    def __init__(self, roi_size: Sequence[int] | int, random_center: bool = True) -> None:
        super().__init__(1.0)
        self.roi_size, self.random_center = roi_size, random_center

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        asked = fall_back_tuple(ensure_tuple_rep(self.roi_size, len(shape)), shape)
        return tuple(min(roi, n) for roi, n in zip(asked, shape, strict=True))

    def draw(self, shape: Sequence[int]) -> Parameters:
        sides = list(zip(shape[2:], self.size(shape[2:]), strict=True))
        if not self.random_center:
            return {"start": torch.tensor([n // 2 - roi // 2 for n, roi in sides]).expand(shape[0], -1)}
        return {"start": torch.stack([whole(0, n - roi, shape[0]) for n, roi in sides], -1)}

    def matrices(self, parameters: Parameters, shape: Sequence[int]) -> Tensor:
        centred = torch.tensor(self.size(shape), dtype=torch.float64) - torch.tensor(shape)
        return geometry.translation(parameters["start"] + centred / 2)


def _range(given: Sequence[float] | float) -> tuple[float, float]:
    low, high = ensure_tuple(given) if isinstance(given, Sequence) else (-given, given)
    return min(low, high), max(low, high)


def _each(ranges: Sequence[tuple[float, float]], n: int) -> Tensor:
    """A number from each of the ranges, ``(n, ranges)``."""
    return torch.stack([uniform(low, high, n) for low, high in ranges], -1)
