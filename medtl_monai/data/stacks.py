"""Slices and stacks of slices, with their masks, as one kind of thing: ``(1, X, Y, Z)``."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset, MetaTensor
from monai.transforms import CenterSpatialCrop, Crop, Cropd, LoadImage, MapTransform
from numpy.typing import NDArray
from torch import Tensor

from ..utils import UserError, atomic_path
from .cached import cached_dataset
from .read.any import AnyReader
from .read.arrays import read_array, split_array
from .read.contours import is_contour, read_contour
from .read.nifti import NiftiReader

__all__ = [
    "AlwaysPresentd",
    "CentreSquared",
    "LoadStackd",
    "SelectStructuresd",
    "SliceDataset",
    "read_stack",
    "stack_of",
    "tells_spacing",
    "write_nifti",
]

_HDF5 = (".h5", ".hdf5")
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
_SHOWN = np.diag([-1.0, -1.0, 1.0, 1.0])  # x towards the patient's left, y towards the back: as pictures are shown


def read_stack(path: str | Path, key: str = "image", frame: int | None = None) -> MetaTensor:
    """A slice or a stack of slices as ``(1, X, Y, Z)``, float32, with its affine.

    Pictures (JPG, PNG, ...) become grey; their slice, and HDF5 data sets ``(Z, H, W)`` or ``(H, W)``, are taken as
    shown: x runs to the right (the patient's left), y down. Others keep the axes of their file.

    Args:
        path: of a picture, an HDF5 file, or whatever MONAI's readers take.
        key: the data set in an HDF5 file.
        frame: of a volume over time, from 0.

    Returns:
        With ``spacing`` among its metadata, the voxel's size in mm, where the file tells it.

    Raises:
        UserError: there is no such data set, or it has other dimensions.
    """
    name = str(path).lower()
    if split_array(path):
        array = read_array(path).T[..., None]
    elif name.endswith(_HDF5):
        array = _read_hdf5(path, key)
        array = np.moveaxis(array[None] if array.ndim == 2 else array, (0, 1, 2), (2, 1, 0))
    elif name.endswith(_PICTURES):
        from PIL import Image

        with Image.open(path) as picture:
            grey = picture if picture.mode in ("P", "I", "F") or picture.mode[:2] == "I;" else picture.convert("L")
            array = np.asarray(grey).T[..., None]
    else:
        loaded = _load(str(path))
        array = loaded.numpy()
        array = array[..., frame] if frame is not None and array.ndim == 4 else array
        while array.ndim > 3 and array.shape[-1] == 1:
            array = array[..., 0]
        array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3:
        raise UserError(f"{path} has the shape {array.shape}: expected a slice or a stack of slices, one time of them.")
    if not tells_spacing(path):
        affine, spacing = _SHOWN, None
    else:
        affine = loaded.affine.numpy()
        spacing = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    meta = {"filename_or_obj": str(path), **({"spacing": spacing} if spacing else {})}  # MONAI collates no None
    tensor = torch.from_numpy(array.astype(np.float32, copy=False))[None]
    return MetaTensor(tensor, affine=torch.from_numpy(np.asarray(affine, dtype=np.float64)), meta=meta)


def tells_spacing(path: str | Path) -> bool:
    """Whether files of this kind hold the voxel's size: pictures and HDF5 do not."""
    return split_array(path) is None and not str(path).lower().endswith((*_HDF5, *_PICTURES))


def write_nifti(path: str | Path, array: NDArray[Any], affine: NDArray[Any]) -> None:
    """Write ``array`` as ``.nii.gz``, whole or not at all, the same bytes for the same content."""
    import nibabel as nib

    with atomic_path(path) as part:
        part.write_bytes(gzip.compress(nib.Nifti1Image(array, affine).to_bytes(), mtime=0))


def stack_of(item: Mapping[Any, Any], key: str) -> MetaTensor:
    """The stack in the file under ``key`` of a datalist item.

    In HDF5 files the item's ``<key>_key`` names the data set, else it is called as the key; ``frame`` is the frame of
    a volume over time. A contour becomes the mask of the item's image (:func:`medtl_monai.data.read_contour`).
    """
    if is_contour(item[key]):
        image = stack_of(item, "image")
        mask = read_contour(item[key], (image.shape[2], image.shape[1])).astype(np.float32)
        meta = {**image.meta, "filename_or_obj": str(item[key])}  # with the affine
        return MetaTensor(torch.from_numpy(mask.T[None, ..., None]), meta=meta)
    return read_stack(item[key], item.get(f"{key}_key", key), item.get("frame"))


class LoadStackd(MapTransform):
    """Read each key's file with :func:`stack_of`."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item, with tensors."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = stack_of(data, str(key))
        return result


class SelectStructuresd(MapTransform):
    """A mask's values into classes: 1 for the first of ``values``, 2 for the second ..., 0 for all others.

    Args:
        keys: of the masks.
        values: of the structures in the file, in the order of the classes.
    """

    def __init__(self, keys: Sequence[Hashable] | Hashable, values: Sequence[int]) -> None:
        super().__init__(keys)
        self.values = list(values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item, with classes."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = sum((result[key] == value) * float(k) for k, value in enumerate(self.values, start=1))
        return result


class AlwaysPresentd(MapTransform):
    """Probabilities ``(1 + K, X, Y, Z)`` of data whose every slice shows every structure.

    In each slice a structure's probabilities are divided by their largest, and the background's are set to 1/2, so that
    the largest probability marks the likeliest place of a structure that is hard to see, instead of none.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item, with these probabilities."""
        result = dict(data)
        for key in self.key_iterator(result):
            largest = result[key][1:].amax((1, 2), keepdim=True).clamp_min(1e-12)
            result[key] = torch.cat([torch.full_like(result[key][:1], 0.5), result[key][1:] / largest])
        return result


class _CentreSquare(CenterSpatialCrop):
    def __init__(self, share: float) -> None:
        super().__init__(roi_size=-1)
        self.share = share

    def compute_slices(self, spatial_size: Sequence[int]) -> tuple[slice, ...]:  # type: ignore[override]
        side = max(1, round(self.share * min(spatial_size[:2])))
        centre = [n // 2 for n in spatial_size]
        return Crop.compute_slices(roi_center=centre, roi_size=[side, side, *spatial_size[2:]])


class CentreSquared(Cropd):
    """Crop the middle square of every slice; MONAI's ``Invertd`` undoes it.

    Args:
        keys: of ``(1, X, Y, Z)`` tensors.
        share: the square's side as a share of the slice's shorter side, above 0 and at most 1.

    Raises:
        UserError: the share is out of range.
    """

    def __init__(self, keys: Sequence[Hashable] | Hashable, share: float) -> None:
        if not 0 < share <= 1:
            raise UserError(f"crop must be above 0 and at most 1 (the whole), got {share}.")
        super().__init__(keys, cropper=_CentreSquare(share))


class SliceDataset(Dataset):
    """The slices of transformed stacks, which are read once and kept in memory.

    Args:
        data: MONAI datalist items of stacks (or single slices).
        transform: gives tensors ``(1, X, Y, Z)`` under ``keys``.
        keys: what is sliced; of the other entries ``domain`` is kept (empty: unknown).
        num_workers: threads that read.
        cache_dir: folder in which the transformed stacks are kept for later runs; ``None``: none.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[..., Any],
        keys: Sequence[str] = ("image", "label"),
        num_workers: int = 2,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(data)
        stacks: Any = cached_dataset(data, transform, cache_dir, num_workers, progress=False)
        self.slices = [
            {**{key: _slice(stack[key], z) for key in keys}, "domain": stack.get("domain", "")}
            for stack in stacks
            for z in range(stack[keys[0]].shape[-1])
        ]

    def __len__(self) -> int:
        return len(self.slices)

    def _transform(self, index: int) -> dict[str, Any]:
        return self.slices[index]


def _slice(stack: Tensor, z: int) -> Tensor:
    tensor = stack.as_tensor() if isinstance(stack, MetaTensor) else stack
    return tensor[..., z].contiguous()


def _load(path: str) -> MetaTensor:
    if not path.lower().endswith((".nii", ".nii.gz")):
        return _loader()(path)
    reader = NiftiReader()  # without LoadImage, which copies a volume three times
    array, meta = reader.get_data(reader.read(path))
    return MetaTensor(torch.from_numpy(array.astype(np.float32)), affine=torch.from_numpy(meta["affine"]))


@cache
def _loader() -> LoadImage:
    return LoadImage(AnyReader, image_only=True)


def _read_hdf5(path: str | Path, key: str) -> NDArray[Any]:
    import h5py

    with h5py.File(path) as file:
        if key not in file:
            raise UserError(f"{path} has no data set {key!r}: it has {', '.join(file)}.")
        return np.asarray(file[key])
