"""DICOM as MONAI's readers give images: a frame, a file, a series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from numpy.typing import NDArray

from ...utils import UserError
from .dicom_header import Header, header, is_dicom, split_frame
from .dicom_pixels import darkened, shown_frame
from .dicom_series import name_of, shown_series

__all__ = ["DicomReader"]

Array = NDArray[Any]


class DicomReader(ImageReader):
    """MONAI's reader interface for the functions of this module, for ``LoadImaged``'s ``reader``.

    A file gives its image, ``file#12`` the frame 12 alone, a file of several frames, a folder or a list of files the
    volume. As with MONAI's readers, arrays are ``(x, y)``, ``(x, y, z)``, or with colour last, and the affine is RAS+.

    Args:
        rescale: as in :func:`read_frame`.
        window: as in :func:`read_frame`; not for volumes.
    """

    def __init__(self, rescale: bool = True, window: bool = False) -> None:
        self.rescale, self.window = rescale, window

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:  # type: ignore[override]
        """Whether all are DICOM files or folders."""
        names = [filename] if isinstance(filename, (str, Path)) else filename
        return all(Path(name).is_dir() or is_dicom(name) for name in names)

    def read(self, data: Sequence[str | Path] | str | Path, **_: Any) -> list[str]:  # type: ignore[override]
        """The paths; decoding is left to :meth:`get_data`.

        Raises:
            UserError: one is no DICOM file.
        """
        names = [data] if isinstance(data, (str, Path)) else list(data)
        if not self.verify_suffix(names):
            raise UserError(f"{name_of(names)} is no DICOM file.")
        return [str(name) for name in names]

    def get_data(self, img: list[str]) -> tuple[Array, dict[str, Any]]:
        """The array and its metadata."""
        array, about, padding = self._read(img)
        spatial = 2 if array.ndim - (about.channels > 1) == 2 else 3
        marked = {}
        if padding is not None:  # a value below all others, which statistics leave out
            array, marked["padding"] = darkened(array, padding, below=True)
        array = np.ascontiguousarray(np.moveaxis(array, range(spatial), range(spatial)[::-1]))
        row, column = about.spacing or (1.0, 1.0)
        scale = np.diag([-column, -row, about.slice_spacing or 1.0, 1.0])  # x to the left, y to the back
        affine = scale if about.affine is None else about.affine
        return array, {
            "affine": affine,
            "original_affine": affine.copy(),
            "space": "RAS",
            "spatial_shape": np.array(array.shape[:spatial]),
            "original_channel_dim": -1 if array.ndim > spatial else float("nan"),
            "modality": about.modality,
            "laterality": about.laterality,
            "view": about.view,
            "bits_stored": about.bits_stored,
            "located": about.affine is not None,
            "tells_spacing": None not in (about.spacing, about.slice_spacing),
            **({"pixel_spacing": about.spacing} if about.spacing else {}),
            **marked,
        }

    def _read(self, names: list[str]) -> tuple[Array, Header, Array | None]:
        """The pixels, rows first, their header and which are padding."""
        path, index = split_frame(names[0])
        if len(names) == 1 and not Path(path).is_dir():
            about = header(path)
            if index is not None or about.frames == 1:
                array, padding = shown_frame(path, index, self.rescale, self.window)
                return array, about, padding
        return shown_series(path if len(names) == 1 else names, None, self.rescale)
