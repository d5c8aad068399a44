"""One reader for every format that the bundles take: the file's content chooses it, and no other is tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from numpy.typing import NDArray

from ...utils import UserError
from .arrays import ArrayReader, read_stored
from .dicom import DicomReader
from .kinds import kind_of
from .limits import UnreadableError
from .nifti import read_nifti
from .pictures import read_picture
from .volumes import read_volume

__all__ = ["AnyReader", "read_image"]

Array = NDArray[Any]
Read = tuple[Array, dict[str, Any]]


class AnyReader(ImageReader):
    """MONAI's reader interface for :func:`read_image`, for ``LoadImaged``'s ``reader``."""

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:  # type: ignore[override]
        """Always."""
        return True

    def read(self, data: Sequence[str | Path] | str | Path, **_: Any) -> list[str]:  # type: ignore[override]
        """The names; MONAI would try other readers if this failed, so that reading is left to :meth:`get_data`."""
        return [str(name) for name in ([data] if isinstance(data, (str, Path)) else data)]

    def get_data(self, img: list[str]) -> Read:
        """The array and its metadata."""
        return read_image(img[0]) if len(img) == 1 else DicomReader().get_data(DicomReader().read(img))


def read_image(name: str | Path, *, key: str = "image", values: bool = False) -> Read:
    """What a file holds, by the reader of its kind.

    Args:
        name: of a file, a folder of a DICOM series, a frame (``file#12``) or an array (``file#key/index``).
        key: the data set of an HDF5 file.
        values: of a mask: numbers as they are stored, where a picture's palette would make colours of them.

    Returns:
        ``(x, y)``, ``(x, y, z)`` or more, colour last; pictures, arrays and DICOM with x to the right and y down as
        they are shown, others in the axes of their file. And MONAI's metadata; besides, ``kind``; ``depth``, how values
        are stored; ``tells_spacing`` and ``located``, whether the size of voxels and the place in space are known;
        ``lossy`` of pictures; ``padding`` where values at or below it stand for no measurement.

    Raises:
        UserError: naming the file: it cannot be read, or holds values that are not finite.
    """
    name, kind = str(name), kind_of(name)
    try:
        array, meta = _READERS[kind](name, key, values)
    except UserError:
        raise
    except Exception as error:  # every library has its own kinds
        raise UnreadableError(name, _reason(error, name)) from error
    _check_finite(array, name)
    depth = f"{meta['bits_stored']} bits" if "bits_stored" in meta else str(array.dtype)
    return array, {**meta, "kind": kind, "depth": depth}


def _reason(error: Exception, name: str) -> str:
    line = str(error).partition("\n")[0].replace(repr(name), "").replace(name, "").strip(" .:")
    return line[:120] or type(error).__name__


def _check_finite(array: Array, name: str) -> None:
    if array.dtype.kind not in "fc" or np.isfinite(array).all():
        return
    count = array.size - int(np.isfinite(array).sum())
    raise UnreadableError(name, f"{count} of its {array.size} values are not finite, NaN or infinite")


_READERS: dict[str, Callable[[str, str, bool], Read]] = {
    "array": lambda name, key, values: ArrayReader().get_data(name),
    "dicom": lambda name, key, values: DicomReader().get_data([name]),
    "hdf5": lambda name, key, values: read_stored(name, key),
    "nifti": lambda name, key, values: read_nifti(name),
    "picture": lambda name, key, values: read_picture(name, values),
    "volume": lambda name, key, values: read_volume(name),
}
