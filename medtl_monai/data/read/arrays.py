"""Images that are arrays in a file of many (npz, HDF5, MATLAB 7.3), by the name ``file#key`` or ``file#key/index``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from numpy.typing import NDArray

from ...utils import UserError
from .dicom_header import split_frame
from .limits import check_size

__all__ = ["ArrayReader", "read_array", "read_stored", "split_array", "stored_in"]

Array = NDArray[Any]

_NAME = re.compile(r"(.+\.(?:npz|h5|hdf5|mat))#(.+?)(?:/(\d+))?", re.IGNORECASE)


def split_array(name: str | Path) -> tuple[str, str, int | None] | None:
    """File, key and index of an image's name, the index ``None`` where it has none; ``None`` for other names.

    Example:
        >>> split_array("chestmnist.npz#train_images/12")
        ('chestmnist.npz', 'train_images', 12)
    """
    found = _NAME.fullmatch(str(name))
    return (found[1], found[2], None if found[3] is None else int(found[3])) if found else None


def stored_in(name: str | Path) -> Path:
    """The file that holds an image: without the array's or the frame's name."""
    parts = split_array(name)
    return Path(parts[0] if parts else split_frame(name)[0])


def read_array(name: str | Path) -> Array:
    """The array of that name, upright: ``(H, W)``, or with colour or slices besides.

    Raises:
        UserError: the name says no key, the file holds no such array, or h5py is missing.
    """
    file, key, index = _parts(name)
    try:
        if not file.lower().endswith(".npz"):
            return _hdf5(file, key, index)
        about = Path(file).stat()
        array = _npz(file, key, about.st_size, about.st_mtime_ns)
        return array if index is None else array[index]
    except (KeyError, IndexError) as error:
        raise UserError(f"{file} holds no {str(name).rpartition('#')[2]} ({error}).") from error


class ArrayReader(ImageReader):
    """MONAI's reader interface for :func:`read_array`, for ``LoadImaged``'s ``reader``; ``(x, y)`` as MONAI's."""

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:  # type: ignore[override]
        """Whether all are names of arrays."""
        names = [filename] if isinstance(filename, (str, Path)) else filename
        return all(split_array(name) is not None for name in names)

    def read(self, data: Sequence[str | Path] | str | Path, **_: Any) -> str:  # type: ignore[override]
        """The name, if it is one; reading is left to :meth:`get_data`."""
        name = data if isinstance(data, (str, Path)) else data[0]
        _parts(name)
        return str(name)

    def get_data(self, img: str) -> tuple[Array, dict[str, Any]]:
        """The array and its metadata."""
        array = np.swapaxes(read_array(img), 0, 1)
        return array, _meta(array, colour=array.ndim == 3 and array.shape[-1] in (3, 4))


def read_stored(path: str, key: str) -> tuple[Array, dict[str, Any]]:
    """The data set ``key`` of an HDF5 file, ``(H, W)`` or ``(Z, H, W)``, as ``(x, y)`` or ``(x, y, z)``; and metadata.

    Raises:
        UserError: there is no such data set, or h5py is missing.
    """
    array = _hdf5(path, key).T
    return array, _meta(array, colour=False)


def _meta(array: Array, colour: bool) -> dict[str, Any]:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # x to the left, y to the back
    return {
        "affine": affine,
        "original_affine": affine.copy(),
        "space": "RAS",
        "spatial_shape": np.array(array.shape[:2] if colour else array.shape),
        "original_channel_dim": -1 if colour else float("nan"),
    }


def _parts(name: str | Path) -> tuple[str, str, int | None]:
    parts = split_array(name)
    if parts is None:
        raise UserError(f"{name} names no array: expected a name such as file.npz#images/0 or file.h5#image.")
    return parts


@lru_cache(maxsize=3)  # training, validation and test images of one file
def _npz(file: str, key: str, size: int, changed: int) -> Array:
    with np.load(file, allow_pickle=False) as arrays:
        return arrays[key]


def _hdf5(file: str, key: str, index: int | None = None) -> Array:
    try:
        import h5py
    except ImportError as error:
        raise UserError("HDF5 and MATLAB 7.3 files need h5py: pip install 'medtl_monai[formats]'.") from error

    turned = file.lower().endswith(".mat")  # MATLAB's columns come first
    with h5py.File(file) as content:
        if key not in content:
            raise UserError(f"{file} has no data set {key!r}: it has {', '.join(content)}.")
        found = content[key]
        lazily = index is not None and not turned
        check_size(f"{file}#{key}", *(found.shape[1:] if lazily else found.shape))
        array = found[index] if lazily else np.asarray(found)
    array = np.swapaxes(array, 0, 1) if turned else array
    return array[index] if turned and index is not None else array
