"""NIfTI, compressed or not whatever its name says, inflated in one go."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from monai.data import NibabelReader
from monai.data.utils import correct_nifti_header_if_necessary
from numpy.typing import NDArray

from ...utils import UserError
from .kinds import GZIP
from .limits import check_size
from .place import Place

__all__ = ["NiftiReader", "nifti_place", "read_nifti"]

_HEADER = 540  # bytes of the longer one
_BEGINNING = 1 << 16  # bytes that hold it, compressed or not
_MORE = 1 << 20  # bytes that may follow the pixels


class NiftiReader(NibabelReader):
    """MONAI's reader of NIfTI, quicker for compressed files; arrays and metadata are the same.

    nibabel inflates a file in small steps, and believes its name. Here it is done at once, by ISA-L where the extra
    ``fast`` is installed, where the file begins as compressed ones do.
    """

    def read(self, data: Sequence[PathLike | str] | PathLike | str, **kwargs: Any) -> Any:
        """The nibabel image; the pixels of a compressed one are in memory."""
        names = [data] if isinstance(data, (str, PathLike)) else list(data)
        if len(names) != 1 or kwargs or self.kwargs:
            return super().read(data, **kwargs)
        self.filenames = names
        return correct_nifti_header_if_necessary(_open(str(names[0])))


def read_nifti(path: str) -> tuple[NDArray[Any], dict[str, Any]]:
    """The array ``(X, Y, Z)``, or with times, in the axes of the file, and MONAI's metadata.

    Besides, ``located`` says whether anything tells where the image lies, ``tells_spacing`` whether its voxels have a
    size.

    Raises:
        UserError: its voxels are colours or complex numbers, or it holds more than it says.
    """
    reader, image = NiftiReader(), _open(path)
    _refuse_pairs(path, image.get_data_dtype())
    place = nifti_place(path)  # before the header is corrected
    reader.filenames = [path]
    array, meta = reader.get_data(correct_nifti_header_if_necessary(image))
    return array, {**meta, "located": place.affine is not None, "tells_spacing": place.spacing is not None}


def _refuse_pairs(path: str, kind: np.dtype[Any]) -> None:
    """Stop at voxels of more than one number, of which one would be taken, or none."""
    if kind.kind == "c":
        raise UserError(f"{path} holds complex numbers: expected one value a voxel; write their magnitude.")
    if kind.names:
        raise UserError(
            f"{path} holds colours ({''.join(kind.names)}): expected one value a voxel; convert it to grey."
        )


def nifti_place(path: str) -> Place:
    """Where the image of a file lies, by its header alone."""
    with open(path, "rb") as file:
        head = _head(file.read(_BEGINNING))
    return _place(_header(head))


def _place(header: Any) -> Place:
    """No affine where the header gives none, or one that contradicts its own size of voxels.

    The header must be as the file has it: nibabel makes sizes of 0 to 1.
    """
    sides = header.get_data_shape()
    shape = (*sides, 1, 1)[:3]
    zooms = (*map(abs, header.get_zooms()), 1.0, 1.0)[:3]
    affine = np.array(header.get_best_affine())
    told = bool(header["sform_code"] or header["qform_code"])
    fits = np.allclose(np.linalg.norm(affine[:3, :3], axis=0), zooms)
    spacing = tuple(map(float, zooms)) if all(0 < step < np.inf for step in zooms[: len(sides)]) else None
    return Place(shape, affine if told and fits and spacing else None, spacing)


def _head(beginning: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(beginning, _HEADER) if beginning[:2] == GZIP else beginning


def _header(head: bytes) -> Any:
    kind = _kind(head).header_class
    return kind(head[: kind.sizeof_hdr], check=False)


def _open(path: str) -> Any:
    import nibabel as nib

    with open(path, "rb") as file:
        content = file.read(_BEGINNING)
        packed = content[:2] == GZIP
        if not packed and path.lower().endswith((".nii", ".hdr", ".img")):
            return _checked(nib.load(path), path)  # its pixels are read when they are wanted
        content += file.read()
    if not packed:
        return _checked(_kind(content).from_bytes(content), path)
    head = _head(content[:_BEGINNING])
    header = _header(head)
    shape = header.get_data_shape()
    check_size(path, *shape)
    size = int(header["bitpix"]) * int(np.prod(shape, dtype=np.int64)) // 8
    return _kind(head).from_bytes(_inflate(content, path, int(header["vox_offset"]) + size + _MORE))


def _checked(image: Any, path: str) -> Any:
    check_size(path, *image.shape)
    return image


def _kind(content: bytes) -> Any:
    import nibabel as nib

    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(content):
            return kind
    raise ValueError("its content is no NIfTI image")


def _inflate(content: bytes, path: str, most: int) -> bytes:
    try:
        from isal import igzip, isal_zlib
    except ImportError:
        return gzip.decompress(content)
    stream = isal_zlib.decompressobj(wbits=31)
    raw = stream.decompress(content, most)
    if len(raw) >= most:
        raise UserError(f"{path} holds more than its header says: repair it, or leave it out.")
    whole = stream.eof and not stream.unused_data
    return raw if whole else igzip.decompress(content)  # slower, for several members; and refuses half a file
