"""Slices and stacks of slices, with their masks, as one kind of thing: ``(1, X, Y, Z)``."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset, MetaTensor
from monai.transforms import CenterSpatialCrop, Crop, Cropd, MapTransform
from numpy.typing import NDArray
from torch import Tensor

from ..utils import UserError, atomic_path
from .cached import cached_dataset
from .geometry import brought, place_of, thickest_axis
from .masks import as_whole
from .read.any import read_image
from .read.arrays import split_array
from .read.contours import is_contour, read_contour
from .read.kinds import kind_of
from .read.place import Place
from .upright import grey

__all__ = [
    "AlwaysPresentd",
    "CentreSquared",
    "LoadStackd",
    "SelectStructuresd",
    "SliceDataset",
    "check_shapes",
    "file_order",
    "in_file_axes",
    "read_stack",
    "stack_of",
    "tells_spacing",
    "write_nifti",
]

_SHOWN = np.diag([-1.0, -1.0, 1.0, 1.0])  # x towards the patient's left, y towards the back: as pictures are shown
_FLAT = ("picture", "array", "hdf5")  # kinds of files that hold pixels alone
_FLAT_NAMES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".h5", ".hdf5", ".mat")


def read_stack(
    path: str | Path,
    key: str = "image",
    frame: int | None = None,
    *,
    slice_axis: int | None = None,
    spacing: Sequence[float] | None = None,
) -> MetaTensor:
    """A slice or a stack of slices as ``(1, X, Y, Z)``, float32, with its affine.

    Pictures (JPG, PNG, ...) become grey; their slice, and HDF5 data sets ``(Z, H, W)`` or ``(H, W)``, are taken as
    shown: x runs to the right (the patient's left), y down. Others keep the axes of their file, but for the one along
    which slices run, which comes last.

    Args:
        path: of a picture, an HDF5 file, or whatever :func:`medtl_monai.data.read.any.read_image` takes.
        key: the data set in an HDF5 file.
        frame: of a volume over time, from 0.
        slice_axis: of the file, along which slices run; default: the thickest.
        spacing: mm along X, Y and Z, of files that do not tell it.

    Returns:
        With ``spacing`` among its metadata, the voxel's size in mm, where it is known, and with ``slice_axis``.

    Raises:
        UserError: the file cannot be read, there is no such data set, or it has other dimensions.
    """
    array, meta = read_image(path, key=key)
    array = _volume(array, meta, str(path), frame)
    place = _place(array, meta)
    return _tensor(array, str(path), place, _axis(place, meta["kind"], slice_axis), spacing, meta)


def _volume(array: NDArray[Any], meta: Mapping[str, Any], name: str, frame: int | None) -> NDArray[Any]:
    """``(X, Y, Z)`` in the axes of the file."""
    shape = array.shape
    if meta.get("original_channel_dim") == -1 and array.ndim == 3:
        array = grey(torch.from_numpy(array.astype(np.float32)).movedim(-1, 0))[0].numpy()
    array = array[..., frame] if frame is not None and array.ndim == 4 else array
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3:
        raise UserError(f"{name} has the shape {shape}: expected a slice or a stack of slices, one time of them.")
    return array


def _place(array: NDArray[Any], meta: Mapping[str, Any]) -> Place:
    if meta["kind"] in _FLAT or not meta.get("tells_spacing"):
        return Place(array.shape, None, None)
    affine = np.asarray(meta["affine"], dtype=np.float64)
    return Place(array.shape, affine, tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()))


def _axis(place: Place, kind: str, stated: int | None) -> int:
    return 2 if kind in (*_FLAT, "dicom") else thickest_axis(place.shape, place.spacing) if stated is None else stated


def _tensor(
    array: NDArray[Any],
    name: str,
    place: Place,
    axis: int,
    spacing: Sequence[float] | None,
    about: Mapping[str, Any],
) -> MetaTensor:
    """``(1, X, Y, Z)`` whose last axis is the one of slices."""
    order = [k for k in range(3) if k != axis] + [axis]
    steps = list(map(float, spacing or ()))  # said by the user, of the axes as they are now
    if place.spacing is not None:
        steps = [place.spacing[k] for k in order]
    affine = _SHOWN @ np.diag([*(steps or (1, 1, 1)), 1])
    if place.affine is not None:
        affine = place.affine[:, [*order, 3]]
    meta: dict[str, Any] = {"filename_or_obj": name, "slice_axis": axis}  # MONAI collates no None
    meta |= {"spacing": steps} if steps else {}
    meta |= {key: about[key] for key in ("padding", "depth", "sform_code", "qform_code", "xyzt_units") if key in about}
    tensor = torch.from_numpy(np.moveaxis(array, axis, -1).astype(np.float32, copy=False))[None]
    return MetaTensor(tensor, affine=torch.from_numpy(np.asarray(affine, dtype=np.float64)), meta=meta)


def in_file_axes(stack: NDArray[Any], affine: NDArray[Any], slice_axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A stack ``(X, Y, Z)`` and its affine in the axes of the file that it was read from."""
    return np.moveaxis(stack, -1, slice_axis), affine[:, [*file_order(slice_axis), 3]]


def file_order(slice_axis: int) -> list[int]:
    """Which axis of a stack each axis of its file is."""
    order = [0, 1]
    order.insert(slice_axis, 2)
    return order


def tells_spacing(path: str | Path) -> bool:
    """Whether a file tells the size of its voxels: pictures and HDF5 do not."""
    if split_array(path) or str(path).lower().endswith(_FLAT_NAMES):
        return False
    return place_of(str(path)).spacing is not None


def write_nifti(path: str | Path, array: NDArray[Any], affine: NDArray[Any]) -> None:
    """Write ``array`` ``(X, Y, Z)`` as ``.nii.gz``, whole or not at all, the same bytes for the same content."""
    import nibabel as nib

    with atomic_path(path) as part:
        part.write_bytes(gzip.compress(nib.Nifti1Image(array, affine).to_bytes(), mtime=0))


def stack_of(
    item: Mapping[Any, Any], key: str, *, slice_axis: int | None = None, spacing: Sequence[float] | None = None
) -> MetaTensor:
    """The stack in the file under ``key`` of a datalist item; a ``label`` at the voxels of the item's image.

    In HDF5 files the item's ``<key>_key`` names the data set, else it is called as the key; ``frame`` is the frame of
    a volume over time. A contour becomes the mask of the item's image (:func:`medtl_monai.data.read_contour`). Another
    mask is brought to its image by what both files say of their place (:func:`medtl_monai.data.geometry.brought`), and
    values that are nearly whole numbers are rounded.

    Args:
        item: of a datalist.
        key: ``image`` or ``label``.
        slice_axis: see :func:`read_stack`.
        spacing: see there.

    Raises:
        UserError: as :func:`read_stack`; a mask that lies elsewhere.
    """
    said: dict[str, Any] = {"slice_axis": slice_axis, "spacing": spacing}
    if is_contour(item[key]):
        image = stack_of(item, "image", **said)
        mask = read_contour(item[key], (image.shape[2], image.shape[1])).astype(np.float32)
        meta = {**image.meta, "filename_or_obj": str(item[key])}  # with the affine
        return MetaTensor(torch.from_numpy(mask.T[None, ..., None]), meta=meta)
    if key != "label":
        return read_stack(item[key], item.get(f"{key}_key", key), item.get("frame"), **said)
    name = str(item[key])
    array, meta = read_image(name, key=item.get("label_key", key), values=True)
    mask = as_whole(_volume(array, meta, name, item.get("frame")))
    place, kind = _place(mask, meta), meta["kind"]
    if kind not in _FLAT and "image" in item:
        own, place, kind = place, place_of(item["image"], item.get("image_key", "image")), kind_of(item["image"])
        if place.affine is not None and own.affine is not None and meta.get("located"):
            mask = brought(mask, own.affine, place, (name, str(item["image"])))
    axis = _axis(place, kind, slice_axis)
    result = _tensor(mask, name, place, axis, spacing, {})
    result.meta["lossy"] = bool(meta.get("lossy"))
    return result


def check_shapes(item: Mapping[str, Any], image: Tensor, mask: Tensor) -> None:
    """Stop where the mask of an item has other numbers of voxels than its image, both ``(1, X, Y, Z)``.

    Raises:
        UserError: naming both.
    """
    if image.shape != mask.shape:
        raise UserError(
            f"{item['image']} has the shape {tuple(image.shape[1:])} and its mask {item['label']} "
            f"{tuple(mask.shape[1:])}: they must be equal."
        )


class LoadStackd(MapTransform):
    """Read each key's file with :func:`stack_of`.

    Args:
        keys: of the files.
        slice_axis: see :func:`read_stack`.
        spacing: see there.
    """

    def __init__(
        self,
        keys: Sequence[Hashable] | Hashable,
        slice_axis: int | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(keys)
        self.slice_axis, self.spacing = slice_axis, spacing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same item, with tensors."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = stack_of(data, str(key), slice_axis=self.slice_axis, spacing=self.spacing)
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
