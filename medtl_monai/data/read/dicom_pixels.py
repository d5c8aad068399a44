"""Pixels of DICOM files: a frame without decoding the others, in the file's units, as a viewer shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...utils import UserError
from .dicom_header import FRAME_GROUPS, flat_tags, frames_of, reason_of, split_frame, tags_of
from .limits import UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

__all__ = ["as_shown", "darkened", "each_frame", "padding_of", "read_frame", "shown_frame"]

Array = NDArray[Any]

_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_VALUES = (0x00289145, 0x00289132)  # the macros Pixel Value Transformation and Frame VOI LUT
_PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
_JP2 = b"\0\0\0\x0cjP  "  # the head of the first box
_PIECE = 1 << 17  # pixels that are checked while they are in the processor's cache


def read_frame(path: str | Path, index: int | None = None, *, rescale: bool = True, window: bool = False) -> Array:
    """One frame as a viewer shows it, without decoding the others.

    Args:
        path: the file, or ``file#index``.
        index: of the frame, from 0; not needed where there is one frame only.
        rescale: to the file's units (HU in CT) by the Rescale Slope and Intercept, the frame's own where it has them,
            or the Modality LUT; otherwise the stored values.
        window: apply the first VOI LUT or window. The result spans the range that the stored values can have, in
            the file's units.

    Returns:
        ``(H, W)``, or ``(H, W, 3)`` in RGB. MONOCHROME1 is turned round within the range that its Bits Stored allow (12
        bits, unsigned: 4095 - value), never by the values that happen to be there, so that images stay comparable.
        Where the file says that pixels are padding, they have the least of the other values, unless stored values are
        wanted. The stored type where no arithmetic is needed, else float32.

    Raises:
        UserError: no such file or frame, or pixels that cannot be decoded.
    """
    path, named = split_frame(path)
    array, padding = shown_frame(path, named if index is None else index, rescale, window)
    return array if padding is None else darkened(array, padding)[0]


def shown_frame(path: str, index: int | None, rescale: bool, window: bool) -> tuple[Array, Array | None]:
    """The frame ``(H, W)``, and which of its pixels are padding: ``None`` for none."""
    pixels, tags = decode(path, index)
    frame = flat_tags(tags, index or 0, _VALUES)
    return as_shown(pixels, frame, rescale, window), padding_of(pixels, frame) if rescale or window else None


def padding_of(pixels: Array, frame: Dataset) -> Array | None:
    """Which stored values, of any shape, stand for no measurement, ``None`` for none (DICOM PS3.3, C.7.5.1.1.2)."""
    names = [name for name in _PADDING if frame.get(name) is not None]
    grey = pixels.ndim == 2 and pixels.dtype.kind in "iu" and frame.get("PhotometricInterpretation") != "PALETTE COLOR"
    if _PADDING[0] not in names or not grey:
        return None
    stored = int(frame.BitsStored)
    ends = [_as_stored(frame[name].value, stored, pixels.dtype.kind == "i") for name in names]
    found = (pixels >= min(ends)) & (pixels <= max(ends))
    return found if found.any() and not found.all() else None


def _as_stored(value: Any, bits: int, signed: bool) -> int:
    """A tag that may have the other sign than the pixels, or no type at all, as pydicom gives these."""
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
    number &= 2**bits - 1
    return number - 2**bits if signed and number >= 2 ** (bits - 1) else number


def darkened(array: Array, padding: Array, below: bool = False) -> tuple[Array, float]:
    """The array, of any shape, with its padding at the dark end: the least other value or, in float32, ``below`` it."""
    least = array[~padding].min()
    dark = float(least) - max(1.0, 1e-6 * abs(float(least))) if below else least
    array = array.astype(np.float32) if below else array.copy()
    array[padding] = dark
    return array, float(dark)


def decode(path: str, index: int | None, *, every: bool = False) -> tuple[Array, Dataset]:
    """Stored values ``(H, W)`` of a frame, or of ``every`` frame, and the tags that explain them."""
    if not every and (plain := _plain(path)):
        _check_index(path, index, frames_of(plain.tags))
        if (pixels := plain.frame(index or 0)) is not None:
            return pixels, plain.tags
    frame = None if every else index or 0
    _check_boxes(path)
    try:
        array, tags = _quickly(path, frame)
    except Exception:  # no such frame, deflated, without a preamble: look at all of it
        tags = tags_of(path)
        if not every:
            _check_index(path, index, frames_of(tags))
        array, tags = _thoroughly(path, frame, tags)
    if not every:
        _check_index(path, index, frames_of(tags))
    return array.astype(array.dtype.newbyteorder("="), copy=False), tags


def _check_boxes(path: str) -> None:
    """Refuse JPEG 2000 with a box that says that it is shorter than its own head: pydicom would read it for ever."""
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        start = data.find(_JP2)
        while start >= 0:
            at = start + len(_JP2) + 4
            while at + 8 <= len(data) and data[at + 4 : at + 8] != b"jp2c":
                length = int.from_bytes(data[at : at + 4], "big")
                if length < 8:
                    raise UnreadableError(path, f"a box of its JPEG 2000 pixels is {length} bytes long")
                at += length
            start = data.find(_JP2, at)


def _quickly(path: str, frame: int | None) -> tuple[Array, Dataset]:
    """The pixels of a file with a preamble and a transfer syntax; of its tags the group 0028 alone."""
    import pydicom
    from pydicom.pixels import pixel_array
    from pydicom.tag import Tag

    tags = pydicom.Dataset()
    known: dict[str, Any] = {"ds_out": tags, "specific_tags": [Tag(tag) for tag in FRAME_GROUPS], "index": frame}
    return pixel_array(path, decoding_plugin=_plugin(path), **known), tags


def _thoroughly(path: str, frame: int | None, tags: Dataset) -> tuple[Array, Dataset]:
    """The pixels of any file; its transfer syntax is guessed where it has none."""
    import pydicom
    from pydicom.pixels import pixel_array

    try:
        tags = pydicom.dcmread(path, force=True)
        tags.ensure_file_meta()
        tags.file_meta.TransferSyntaxUID = tags.file_meta.get("TransferSyntaxUID") or _guessed_syntax(tags)
        return pixel_array(tags, index=frame), tags
    except Exception as error:  # every decoder has its own kinds
        raise UserError(_undecodable(path, tags, error)) from error


@dataclass(frozen=True)
class _Plain:
    """Uncompressed grey pixels of a file, read straight from it: as pydicom gives them, but without its two copies.

    Attributes:
        path: the file.
        tags: all of it but the pixels.
        start: where the first frame begins, in bytes.
        shape: rows and columns.
        dtype: as stored.
        limits: of the values that Bits Stored allow; ``None`` where all bits are in use.
    """

    path: str
    tags: Dataset
    start: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    limits: tuple[int, int] | None

    def frame(self, index: int) -> Array | None:
        """A frame; ``None`` where the file is cut off or bits beyond Bits Stored are in use."""
        pixels = np.empty(self.shape, self.dtype)
        flat = pixels.reshape(-1)
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.start + index * pixels.nbytes)
            for at in range(0, flat.size, _PIECE):
                piece = flat[at : at + _PIECE]
                if file.readinto(piece.view(np.uint8).data) != piece.nbytes:
                    return None
                if self.limits and not self.limits[0] <= piece.min() <= piece.max() <= self.limits[1]:
                    return None
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _plain(path: str) -> _Plain | None:
    """``None`` for a file of other pixels, or where something is wrong: pydicom reads it, or says why it cannot."""
    import pydicom

    try:
        with open(path, "rb") as file:
            tags = pydicom.dcmread(file, stop_before_pixels=True)
            if not _is_plain(tags):
                return None
            begin = file.read(
                12 if not tags.file_meta.TransferSyntaxUID.is_implicit_VR else 8
            )  # tag, perhaps VR, length
            bits, stored, signed = tags.BitsAllocated, tags.BitsStored, tags.PixelRepresentation
            shape = (tags.Rows, tags.Columns)
            size = frames_of(tags) * shape[0] * shape[1] * bits // 8
            if begin[:4] != b"\xe0\x7f\x10\x00" or not 0 < size <= int.from_bytes(begin[-4:], "little") < 2**32 - 1:
                return None
            high = 2 ** (stored - 1) if signed else 2**stored
            limits = (-high if signed else 0, high - 1) if stored < bits else None
            return _Plain(path, tags, file.tell(), shape, np.dtype(f"<{'ui'[signed]}{bits // 8}"), limits)
    except Exception:  # no preamble, tags missing
        return None


def _is_plain(tags: Dataset) -> bool:
    """Whether the pixels are grey, of one or two bytes each, and neither compressed nor turned round."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    grey = tags.SamplesPerPixel == 1 and tags.PhotometricInterpretation in _GREY
    known = tags.file_meta.TransferSyntaxUID in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    return grey and known and tags.BitsAllocated in (8, 16) and 1 <= tags.BitsStored <= tags.BitsAllocated


def each_frame(path: str, frames: int) -> Iterator[Array]:
    """Stored values ``(H, W)`` of each frame in the file's order; where the encoding allows it one is in memory."""
    from pydicom.pixels import iter_pixels

    done, plain = 0, _plain(path)
    while plain and done < frames and (pixels := plain.frame(done)) is not None:
        yield pixels
        done += 1
    if done == frames:
        return
    try:
        for index, pixels in enumerate(iter_pixels(path, decoding_plugin=_plugin(path))):
            if index == done:
                yield pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
                done += 1
    except Exception:  # the reasons of decode, which names what it cannot read
        rest, _ = decode(path, None, every=frames > 1)
        yield from (rest if frames > 1 else rest[None])[done:]


def _check_index(path: str, index: int | None, frames: int) -> None:
    if not 0 <= (index or 0) < frames or (index is None and frames > 1):
        wanted = "none is named" if index is None else f"there is no frame {index}"
        raise UserError(f"{path} has {frames} frames, and {wanted}: give one from 0, as in {Path(path).name}#0.")


def _undecodable(path: str, tags: Dataset, error: Exception) -> str:
    from pydicom.pixels import get_decoder

    syntax = tags.file_meta.get("TransferSyntaxUID")
    try:
        missing = not get_decoder(syntax).is_available
    except NotImplementedError:
        missing = False
    hint = (
        "install the decoders with pip install 'medtl_monai[dicom]'"
        if missing
        else "convert it to an uncompressed file"
    )
    about = f"{getattr(syntax, 'name', 'no transfer syntax')}, {tags.get('BitsStored', '?')} bits"
    return f"{path}: unable to decode its pixels ({about}: {reason_of(error)}): {hint}, or leave it out."


def _plugin(path: str) -> str:
    """CharLS for JPEG-LS, where it is installed; pydicom's first choice, GDCM, is slower and takes twice the memory."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGLSTransferSyntaxes

    syntax = read_file_meta_info(path).TransferSyntaxUID
    fits = syntax in JPEGLSTransferSyntaxes and "pyjpegls" in get_decoder(syntax).available_plugins
    return "pyjpegls" if fits else ""


def _guessed_syntax(tags: Dataset) -> UID:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = tags.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def as_shown(pixels: Array, frame: Dataset, rescale: bool, window: bool) -> Array:
    """Stored values ``(H, W)`` of one frame as :func:`read_frame` gives them."""
    if frame.get("PhotometricInterpretation") == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        return apply_color_lut(pixels, frame)[..., :3]
    return pixels if pixels.ndim == 3 else _in_units(pixels, frame, rescale, window)


def _in_units(pixels: Array, frame: Dataset, rescale: bool, window: bool) -> Array:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    bits = int(frame.get("BitsStored") or 8 * pixels.itemsize)
    limits = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if pixels.dtype.kind == "i" else [0, 2**bits - 1])
    if (rescale or window) and _has_units(frame):
        pixels, limits = apply_modality_lut(pixels, frame), _limits_in_units(limits, frame)
    if window:
        if frame.get("VOILUTSequence"):
            limits = _table_limits(frame.VOILUTSequence)
        pixels = apply_voi_lut(pixels, frame)
    if frame.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = limits.sum() - pixels.astype(np.float64)
    return pixels.astype(np.float32) if pixels.dtype == np.float64 else pixels


def _has_units(frame: Dataset) -> bool:
    """Whether the stored values are others than those in the file's units."""
    line = (frame.get("RescaleSlope"), frame.get("RescaleIntercept"))
    return bool(frame.get("ModalityLUTSequence")) or (None not in line and line != (1, 0))


def _limits_in_units(limits: Array, frame: Dataset) -> Array:
    if frame.get("ModalityLUTSequence"):
        return _table_limits(frame.ModalityLUTSequence)
    return limits * float(frame.RescaleSlope) + float(frame.RescaleIntercept)


def _table_limits(tables: Sequence[Dataset]) -> Array:
    return np.array([0, 2 ** tables[0].LUTDescriptor[2] - 1])
