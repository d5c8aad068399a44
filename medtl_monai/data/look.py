"""One case as training reads it, and what of it is kept to be reported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from .leakage import perceptual_hash
from .read.any import read_image
from .read.dicom_header import header, split_frame
from .read.kinds import kind_of
from .spacing import suspicious_spacing
from .stacks import file_order, stack_of
from .upright import as_upright

__all__ = ["Look", "look_at", "shape_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Look:
    """What is kept of an image.

    Attributes:
        shape: of a picture rows and columns, of a volume the axes of its file.
        depth: how values are stored.
        spacing: mm along the axes; ``None``: not told.
        doubt: why the spacing is not to be trusted.
        low: least value, padding left out.
        high: largest value.
        digest: of all values.
        hash: perceptual, of the (middle) slice.
    """

    shape: tuple[int, ...]
    depth: str
    spacing: tuple[float, ...] | None
    doubt: str | None
    low: float
    high: float
    digest: bytes
    hash: int


def look_at(item: Mapping[str, Any], *, stacks: bool, views: bool = False) -> Look:
    """Read the image of an item as training does.

    Args:
        item: of a datalist; where its image is a list of files, each is a channel.
        stacks: it is read with :func:`medtl_monai.data.stack_of`, else as a slice.
        views: DICOM files of several frames are taken, slice by slice; the middle one is read.

    Raises:
        UserError: it cannot be read, or is no such image.
    """
    files = [item["image"]] if isinstance(item["image"], str) else item["image"]
    found = [_stack({**item, "image": file}) if stacks else _slice(file, item, views) for file in files]
    first = found[0]
    values = [one.array for one in found]
    low = min(float(one.measured().min()) for one in found)
    digest = hashlib.blake2b(b"".join(np.ascontiguousarray(v).tobytes() for v in values), digest_size=16).digest()
    high = max(float(v.max()) for v in values)
    return Look(first.shape, first.depth, first.spacing, first.doubt, low, high, digest, perceptual_hash(first.plane))


def shape_of(stack: MetaTensor) -> tuple[int, ...]:
    """The shape of a stack as it is told: of a picture rows and columns, of a volume the axes of its file."""
    shape = list(stack.shape[1:])
    if "spacing" not in stack.meta and shape[2] == 1:
        return (shape[1], shape[0])
    return tuple(shape[k] for k in file_order(stack.meta["slice_axis"]))


@dataclass(frozen=True)
class _Seen:
    array: Array
    plane: Array
    shape: tuple[int, ...]
    depth: str
    spacing: tuple[float, ...] | None = None
    doubt: str | None = None
    padding: float | None = None

    def measured(self) -> Array:
        """Without padding."""
        return self.array if self.padding is None else self.array[self.array > self.padding]


def _stack(item: Mapping[str, Any]) -> _Seen:
    stack = stack_of(item, "image")
    array, meta, shape = stack[0].numpy(), stack.meta, shape_of(stack)
    spacing = None
    if "spacing" in meta:
        spacing = tuple(float(meta["spacing"][k]) for k in file_order(meta["slice_axis"]))
    doubt = suspicious_spacing(stack) if spacing else None
    plane = array[..., array.shape[-1] // 2]
    return _Seen(array, plane, shape, meta["depth"], spacing, doubt, meta.get("padding"))


def _slice(file: str, item: Mapping[str, Any], views: bool) -> _Seen:
    frames = _frames(file) if views else 1
    name = f"{file}#{frames // 2}" if frames > 1 else file
    array, meta = read_image(name, key=item.get("image_key") or "image")
    about = {**meta, "filename_or_obj": name, "affine": torch.as_tensor(np.asarray(meta["affine"], dtype=np.float64))}
    loaded = MetaTensor(torch.from_numpy(np.asarray(array, np.float32)), meta=about)
    plane = as_upright(loaded, 1)[0].numpy()
    told = meta.get("tells_spacing", False)
    spacing = tuple(map(float, loaded.pixdim)) if told else meta.get("pixel_spacing")
    shape = array.shape if meta["kind"] in ("nifti", "volume") else plane.shape
    shape = (*shape, frames) if frames > 1 else shape
    doubt = suspicious_spacing(loaded) if told and array.ndim > 2 else None
    return _Seen(array, plane, shape, meta["depth"], spacing, doubt, meta.get("padding"))


def _frames(file: str) -> int:
    return header(file).frames if kind_of(file) == "dicom" and split_frame(file)[1] is None else 1
