"""2D images of any format as upright arrays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform
from numpy.typing import NDArray
from torch import Tensor

from ..utils import UserError
from .read.any import AnyReader
from .read.pictures import draft

__all__ = ["ToSliced", "as_upright", "grey", "read_grey"]

_JPEG = (".jpg", ".jpeg")
_RED, _BLUE = 0.299, 0.114  # luminance by ITU-R BT.601; green has the rest


class ToSliced(MapTransform):
    """A loaded 2D image, as MONAI's readers give it, as upright ``(channels, H, W)`` float32.

    Follows ``LoadImaged(image_only=True)``. MONAI's readers put x first; here rows run from top to bottom as the image
    is shown. NIfTI slices are shown as radiologists do: anterior (or superior) up, the patient's right on the left.
    Colour becomes grey by luminance (ITU-R BT.601) where one channel is asked for, grey is repeated where three are;
    transparency is dropped.

    Args:
        keys: of the images.
        channels: 1 or 3.
        allow_missing_keys: pass over keys that an item lacks.

    Raises:
        UserError: a volume, or another shape that is not a slice.
    """

    def __init__(
        self, keys: Sequence[Hashable] | Hashable, channels: int = 1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if channels not in (1, 3):
            raise UserError(f"channels must be 1 or 3 for images of two dimensions, got {channels!r}.")
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, with upright images."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = as_upright(result[key], self.channels)
        return result


def read_grey(path: str | Path) -> NDArray[np.float32]:
    """One image as an upright grey array ``(H, W)``, on the file's own scale; large JPEGs are decoded smaller."""
    if str(path).lower().endswith(_JPEG):
        small = draft(str(path))
        if small is not None:
            return small
    return np.ascontiguousarray(as_upright(_loader()(path), 1)[0])


@cache
def _loader() -> LoadImage:
    return LoadImage(AnyReader, image_only=True)


def as_upright(image: Tensor, channels: int) -> Tensor:
    """One image ``(H, W)``, or in colour, for :class:`ToSliced`.

    Raises:
        UserError: it is no single slice.
    """
    meta = image.meta if isinstance(image, MetaTensor) else {}
    name = str(meta.get("filename_or_obj", "an image"))
    array = _with_channels_last(image, meta)
    nifti = meta.get("kind") == "nifti" or name.lower().endswith((".nii", ".nii.gz"))
    array = _from_nifti(array, meta) if nifti else _as_shown(array)
    if array.ndim != 3 or array.shape[-1] > 4:
        raise UserError(f"{name} has the shape {tuple(image.shape)}: expected a single slice, grey or RGB.")
    array = array[..., :-1] if array.shape[-1] in (2, 4) else array  # without transparency
    array = _with_channels(array.movedim(-1, 0), channels)
    return MetaTensor(array, meta={key: meta[key] for key in ("filename_or_obj", "padding") if key in meta})


def _with_channels_last(image: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """``(x, y, ..., C)``, float32."""
    array = (image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)).float()
    last = meta.get("original_channel_dim", -1 if array.shape[-1] in (3, 4) else None)  # MONAI: -1 or NaN
    return array if last == -1 else array[..., None]


def _as_shown(array: Tensor) -> Tensor:
    """``(x, y, ..., C)``, x to the right and y down, as ``(H, W, C)`` where it is a slice."""
    while array.ndim > 3 and 1 in array.shape[:-1]:
        array = array.squeeze(max(axis for axis in range(array.ndim - 1) if array.shape[axis] == 1))
    return array.transpose(0, 1)


def _from_nifti(array: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """``(X, Y, Z, ..., C)`` as ``(H, W, C)`` where it is a slice, and as it is where it is not."""
    array = array[:, :, None] if array.ndim == 3 else array
    while array.ndim > 4 and array.shape[-2] == 1:  # time and the like
        array = array.squeeze(-2)
    if array.ndim == 4 and 1 in array.shape[:3]:
        return _radiological(array, np.asarray(meta["affine"]))
    return array


def _with_channels(image: Tensor, channels: int) -> Tensor:
    return image.expand(3, -1, -1).contiguous() if channels == 3 else grey(image)


def grey(image: Tensor) -> Tensor:
    """The luminance ``(1, H, W)`` of one channel or three; exact where they are equal."""
    if len(image) == 1:
        return image
    red, green, blue = image
    return (green + _RED * (red - green) + _BLUE * (blue - green))[None]


def _radiological(array: Tensor, affine: NDArray[Any]) -> Tensor:
    """A NIfTI slice ``(X, Y, Z, C)``, one of length 1, as ``(H, W, C)``: front or top up, the right on the left."""
    thin = next(axis for axis in (2, 1, 0) if array.shape[axis] == 1)
    axes = [axis for axis in range(3) if axis != thin]
    directions = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-9)
    world = _world_axes(directions, axes)
    vertical = max(axes, key=lambda axis: world[axis])  # superior before anterior before right
    horizontal = next(axis for axis in axes if axis != vertical)
    plane = array.squeeze(thin)
    if axes.index(vertical) == 1:
        plane = plane.transpose(0, 1)
    # NIfTI's axes point to the right, to the front and up; pictures show front and up at the top, the right on the
    # left, and, seen from the side, the front on the left
    turned = [k for k, axis in enumerate((vertical, horizontal)) if directions[world[axis], axis] > 0]
    return plane.flip(turned) if turned else plane


def _world_axes(directions: NDArray[Any], axes: Sequence[int]) -> dict[int, int]:
    """Along what each of two axes of voxels runs: 0 right and left, 1 back and front, 2 up."""
    world = {axis: int(np.abs(directions[:, axis]).argmax()) for axis in axes}
    return world if len(set(world.values())) == 2 else dict(zip(axes, (0, 1), strict=True))  # too oblique: as stored
