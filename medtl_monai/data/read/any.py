"""One reader for every format that the bundles take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.data import ImageReader, ITKReader, PILReader
from numpy.typing import NDArray

from .arrays import ArrayReader
from .dicom import DicomReader
from .nifti import NiftiReader

__all__ = ["AnyReader"]


class AnyReader(ImageReader):
    """MONAI's reader interface for every format that the bundles take, for ``LoadImaged``'s ``reader``.

    Ours for arrays, DICOM and NIfTI, MONAI's for pictures, ITK for everything else. A reader that knows the name is
    tried before the others: MONAI itself tries a list of readers one after the other, and failures take time.
    """

    def __init__(self) -> None:
        self.readers = (ArrayReader(), DicomReader(), PILReader(), NiftiReader())
        self.other = ITKReader()

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:  # type: ignore[override]
        """Always: what no other reader takes is ITK's."""
        return True

    def read(  # type: ignore[override]
        self, data: Sequence[str | Path] | str | Path, **_: Any
    ) -> tuple[ImageReader, Any]:
        """The reader that could, and what it read.

        Raises:
            Exception: the first reader's, if none can.
        """
        errors: list[Exception] = []
        for reader in (*sorted(self.readers, key=lambda reader: not reader.verify_suffix(data)), self.other):
            try:
                return reader, reader.read(data)
            except Exception as error:  # every reader has its own kinds
                errors.append(error)
        raise errors[0]

    def get_data(self, img: tuple[ImageReader, Any]) -> tuple[NDArray[Any], dict[str, Any]]:
        """The array and its metadata."""
        reader, content = img
        return reader.get_data(content)
