"""DICOM: one frame without decoding the rest, series in their order in space, spacing and orientation."""

from __future__ import annotations

import logging
import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data import ImageReader
from numpy.typing import NDArray

from ..utils import UserError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

__all__ = ["DicomReader", "Header", "header", "is_dicom", "read_frame", "read_series", "split_frame"]

_SAME = 1e-3  # mm; positions that differ by less are one
_GAP = 1.5  # of the usual distance between slices; more is a gap
_VIEWS = {  # DICOM PS3.16, CID 4014: SNOMED CT codes and their older forms
    "399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO", "399260004": "ML", "R-10224": "ML",
    "399352003": "LM", "R-10228": "LM", "399099002": "LMO", "R-10230": "LMO",
}  # fmt: skip
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_VALUES = (0x00289145, 0x00289132)  # the macros Pixel Value Transformation and Frame VOI LUT
_PIECE = 1 << 17  # pixels that are checked while they are in the processor's cache
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")  # besides the group 0028

Array = NDArray[Any]
_log = logging.getLogger("medtl_monai")


@dataclass(frozen=True)
class Header:
    """What a file says about its image.

    Attributes:
        path: the file.
        modality: such as ``CT`` or ``MG``; empty where it is not given, as all texts here.
        sop_class: name of the kind of object, such as ``Breast Tomosynthesis Image Storage``.
        transfer_syntax: name of the encoding.
        photometric: ``MONOCHROME2``, ``RGB`` and so on, as stored.
        shape: rows and columns.
        frames: how many.
        channels: 1, or 3 for colour.
        bits_stored: of a sample.
        spacing: mm between rows and between columns; ``None`` where it is not known.
        spacing_from: the tag that tells it. At the patient: Pixel Spacing where it is calibrated or the modality is
            cross-sectional; else Imager Pixel Spacing, divided by the Estimated Radiographic Magnification Factor where
            that is given (else it is measured at the detector); else Nominal Scanned Pixel Spacing.
        slice_spacing: mm between the centres of slices: by their positions, else Spacing Between Slices, else Slice
            Thickness; ``None`` where nothing tells it.
        affine: from ``(column, row, slice)``, the order of MONAI's and nibabel's axes, to mm in RAS+ (to the patient's
            right, front and head), ``(4, 4)``; ``None`` without a position and an orientation.
        laterality: ``L``, ``R``, ``B`` or ``U``.
        view: of a breast, such as ``CC`` or ``MLO``, or as the file names it.
        patient, study, series: their identifiers.
    """

    path: str
    modality: str
    sop_class: str
    transfer_syntax: str
    photometric: str
    shape: tuple[int, int]
    frames: int
    channels: int
    bits_stored: int
    spacing: tuple[float, float] | None
    spacing_from: str
    slice_spacing: float | None
    affine: NDArray[np.float64] | None
    laterality: str
    view: str
    patient: str
    study: str
    series: str


def split_frame(path: str | Path) -> tuple[str, int | None]:
    """A path and the frame that it names after a ``#``, counted from 0; ``None`` where it names none.

    Example:
        >>> split_frame("views/lcc.dcm#12")
        ('views/lcc.dcm', 12)
    """
    found = re.fullmatch(r"(.+)#(\d+)", str(path))
    return (found[1], int(found[2])) if found and not Path(path).exists() else (str(path), None)


def is_dicom(path: str | Path) -> bool:
    """Whether the file is DICOM by its preamble, or by its name."""
    file = Path(split_frame(path)[0])
    if not file.is_file():
        return False
    with file.open("rb") as content:
        return content.read(132)[128:] == b"DICM" or file.suffix.lower() in (".dcm", ".dicom")


def header(path: str | Path) -> Header:
    """The header of a file, without its pixels.

    Raises:
        UserError: no such file, no DICOM, or no image.
    """
    path, _ = split_frame(path)
    return _header(_tags(path), path)


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
        The stored type where no arithmetic is needed, else float32.

    Raises:
        UserError: no such file or frame, or pixels that cannot be decoded.
    """
    path, named = split_frame(path)
    index = named if index is None else index
    pixels, tags = _decode(path, index)
    return _shown(pixels, _flat(tags, index or 0, _VALUES), rescale, window)


def read_series(
    source: str | Path | Sequence[str | Path], *, series: str | None = None, rescale: bool = True
) -> tuple[Array, Header]:
    """The slices of one series, or the frames of one file, in their order along the slice normal.

    Neither file names nor instance numbers count. Frames that have no position stay in the order of the file. Slices at
    one position (the first by instance number is kept) and gaps are logged as warnings.

    Args:
        source: a folder, which is searched with all below it; a file; or files.
        series: Series Instance UID, where there are several.
        rescale: as in :func:`read_frame`.

    Returns:
        ``(slices, H, W)``, or ``(slices, H, W, 3)`` in RGB, and the header of the first slice with the affine and
        the slice spacing of all of them.

    Raises:
        UserError: no image, several series, slices of several sizes or orientations or without a position.
    """
    files = _files(source)
    tags = _one_series({file: _tags(file) for file in files}, series)
    for found in tags.values():
        for name in _GROUPS:  # parsed at once, since every frame's item is needed
            found.get(name)
    slices = sorted(
        (_Slice(file, index, int(found.get("InstanceNumber") or 0), _flat(found, index))
         for file, found in tags.items() for index in range(_frames(found))),
        key=lambda item: (item.number, item.index),
    )  # fmt: skip
    about = _header(tags[slices[0].path], slices[0].path)
    if len({(item.tags.Rows, item.tags.Columns) for item in slices}) > 1:
        raise UserError(f"the slices in {_name(source)} differ in size: expected one size; read them one by one.")
    if any(item.position is None for item in slices):
        if len(tags) > 1:
            raise UserError(f"slices in {_name(source)} have no position in space: read them one by one.")
    else:
        slices, step = _in_space(slices, _name(source))
        about = replace(about, slice_spacing=step or about.slice_spacing)
        about = replace(about, affine=_affine(slices[0].tags, about.spacing, about.slice_spacing))
    places = {(item.path, item.index): number for number, item in enumerate(slices)}
    volume: Array = np.empty(0)
    for path in dict.fromkeys(item.path for item in slices):
        for index, pixels in enumerate(_each_frame(path, _frames(tags[path]))):
            if (path, index) not in places:
                continue
            number = places[path, index]
            shown = _shown(pixels, slices[number].tags, rescale, window=False)
            if not volume.size:
                volume = np.empty((len(slices), *shown.shape), dtype=np.float32 if rescale else shown.dtype)
            volume[number] = shown
    return volume, replace(about, frames=len(slices))


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
        """The paths, if they are DICOM; decoding is left to :meth:`get_data`."""
        names = [data] if isinstance(data, (str, Path)) else list(data)
        if not self.verify_suffix(names):
            raise UserError(f"{_name(names)} is no DICOM file.")
        return [str(name) for name in names]

    def get_data(self, img: list[str]) -> tuple[Array, dict[str, Any]]:
        """The array and its metadata."""
        path, index = split_frame(img[0])
        single = len(img) == 1 and not Path(path).is_dir()
        about = header(path) if single else None
        if about is not None and (index is not None or about.frames == 1):
            array = read_frame(path, index, rescale=self.rescale, window=self.window)
            spatial = 2
        else:
            array, about = read_series(path if len(img) == 1 else img, rescale=self.rescale)
            spatial = 3
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
        }


class _Slice:
    """One slice of a series: where it is stored, and where it lies."""

    def __init__(self, path: str, index: int, number: int, tags: Dataset) -> None:
        self.path, self.index, self.number, self.tags = path, index, number, tags
        known = tags.get("ImagePositionPatient") and tags.get("ImageOrientationPatient")
        self.normal = _normal(tags) if known else np.zeros(3)
        self.position = float(np.dot(self.normal, tags.ImagePositionPatient)) if known else None  # mm along the normal

    @property
    def place(self) -> float:
        """The position of a slice that has one."""
        assert self.position is not None
        return self.position


def _tags(path: str) -> Dataset:
    """All of a file but its pixels."""
    import pydicom

    if not Path(path).is_file():
        raise UserError(f"there is no file {path}: check the path.")
    try:
        tags = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        usable = "Rows" in tags and "Columns" in tags and _frames(tags) > 0
    except Exception as error:  # pydicom raises many kinds on files that are none
        raise UserError(f"{path} cannot be read as DICOM ({_reason(error)}): repair or remove it.") from error
    if not usable:
        kind = str(tags.get("Modality") or "no modality")
        raise UserError(f"{path} holds no image ({kind}): expected a DICOM image; leave it out.")
    return tags


def _decode(path: str, index: int | None, *, every: bool = False) -> tuple[Array, Dataset]:
    """Stored values of a frame, or of ``every`` frame, and the tags that explain them."""
    import pydicom
    from pydicom.pixels import pixel_array
    from pydicom.tag import Tag

    if not every and (plain := _plain(path)):
        _check_index(path, index, _frames(plain.tags))
        if (pixels := plain.frame(index or 0)) is not None:
            return pixels, plain.tags
    tags = pydicom.Dataset()
    frame = None if every else index or 0
    try:
        known: dict[str, Any] = {"ds_out": tags, "specific_tags": [Tag(tag) for tag in _GROUPS], "index": frame}
        array = pixel_array(path, decoding_plugin=_plugin(path), **known)
    except Exception:  # no such frame, deflated, without a preamble: look at all of it
        tags = _tags(path)
        if not every:
            _check_index(path, index, _frames(tags))
        try:
            tags = pydicom.dcmread(path, force=True)
            tags.ensure_file_meta()
            tags.file_meta.TransferSyntaxUID = tags.file_meta.get("TransferSyntaxUID") or _guessed_syntax(tags)
            array = pixel_array(tags, index=frame)
        except Exception as error:  # every decoder has its own kinds
            raise UserError(_undecodable(path, tags, error)) from error
    if not every:
        _check_index(path, index, _frames(tags))
    return array.astype(array.dtype.newbyteorder("="), copy=False), tags


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
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        with open(path, "rb") as file:
            tags = pydicom.dcmread(file, stop_before_pixels=True)
            syntax, bits, stored = tags.file_meta.TransferSyntaxUID, tags.BitsAllocated, tags.BitsStored
            grey = tags.SamplesPerPixel == 1 and tags.PhotometricInterpretation in _GREY
            known = syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian) and bits in (8, 16)
            if not (grey and known and 1 <= stored <= bits):
                return None
            begin = file.read(12 if syntax == ExplicitVRLittleEndian else 8)  # tag, VR and length, or tag and length
            shape, signed = (tags.Rows, tags.Columns), tags.PixelRepresentation
            size = _frames(tags) * shape[0] * shape[1] * bits // 8
            if begin[:4] != b"\xe0\x7f\x10\x00" or not 0 < size <= int.from_bytes(begin[-4:], "little") < 2**32 - 1:
                return None
            high = 2 ** (stored - 1) if signed else 2**stored
            limits = (-high if signed else 0, high - 1) if stored < bits else None
            return _Plain(path, tags, file.tell(), shape, np.dtype(f"<{'ui'[signed]}{bits // 8}"), limits)
    except Exception:  # no preamble, tags missing
        return None


def _each_frame(path: str, frames: int) -> Iterator[Array]:
    """Stored values of each frame in the file's order; where the encoding allows it only one is in memory."""
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
    except Exception:  # the reasons of _decode, which names what it cannot read
        rest, _ = _decode(path, None, every=frames > 1)
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
    return f"{path}: unable to decode its pixels ({about}: {_reason(error)}): {hint}, or leave it out."


def _plugin(path: str) -> str:
    """CharLS for JPEG-LS, where it is installed; pydicom's first choice, GDCM, is slower and takes twice the memory."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGLSTransferSyntaxes

    syntax = read_file_meta_info(path).TransferSyntaxUID
    fits = syntax in JPEGLSTransferSyntaxes and "pyjpegls" in get_decoder(syntax).available_plugins
    return "pyjpegls" if fits else ""


def _shown(pixels: Array, frame: Dataset, rescale: bool, window: bool) -> Array:
    """Stored values of one frame as :func:`read_frame` gives them."""
    if frame.get("PhotometricInterpretation") == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        return apply_color_lut(pixels, frame)[..., :3]
    return pixels if pixels.ndim == 3 else _in_units(pixels, frame, rescale, window)


def _in_units(pixels: Array, frame: Dataset, rescale: bool, window: bool) -> Array:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    bits = int(frame.get("BitsStored") or 8 * pixels.itemsize)
    limits = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if pixels.dtype.kind == "i" else [0, 2**bits - 1])
    line = (frame.get("RescaleSlope"), frame.get("RescaleIntercept"))
    table = frame.get("ModalityLUTSequence")
    if (rescale or window) and (table or (None not in line and line != (1, 0))):
        pixels = apply_modality_lut(pixels, frame)
        limits = (
            np.array([0, 2 ** table[0].LUTDescriptor[2] - 1]) if table else limits * float(line[0]) + float(line[1])
        )
    if window:
        if frame.get("VOILUTSequence"):
            limits = _table_limits(frame.VOILUTSequence)
        pixels = apply_voi_lut(pixels, frame)
    if frame.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = limits.sum() - pixels.astype(np.float64)
    return pixels.astype(np.float32) if pixels.dtype == np.float64 else pixels


def _table_limits(tables: Sequence[Dataset]) -> Array:
    return np.array([0, 2 ** tables[0].LUTDescriptor[2] - 1])


def _header(tags: Dataset, path: str) -> Header:
    frame = _flat(tags, 0)
    spacing, source = _spacing(frame)
    slice_spacing = _slice_spacing(tags)
    known = frame.get("ImagePositionPatient") and frame.get("ImageOrientationPatient") and spacing
    meta = getattr(tags, "file_meta", {})
    codes = [code.get("CodeValue", "") for code in frame.get("ViewCodeSequence") or []]
    view = str(frame.get("ViewPosition") or "") or next((_VIEWS[code] for code in codes if code in _VIEWS), "")
    names = ("FrameLaterality", "ImageLaterality", "Laterality")
    return Header(
        path=path,
        modality=str(frame.get("Modality") or ""),
        sop_class=frame.SOPClassUID.name if "SOPClassUID" in frame else "",
        transfer_syntax=meta["TransferSyntaxUID"].value.name if "TransferSyntaxUID" in meta else "",
        photometric=str(frame.get("PhotometricInterpretation") or ""),
        shape=(int(frame.Rows), int(frame.Columns)),
        frames=_frames(tags),
        channels=3
        if frame.get("SamplesPerPixel") == 3 or frame.get("PhotometricInterpretation") == "PALETTE COLOR"
        else 1,
        bits_stored=int(frame.get("BitsStored") or frame.get("BitsAllocated") or 0),
        spacing=spacing,
        spacing_from=source,
        slice_spacing=slice_spacing,
        affine=_affine(frame, spacing, slice_spacing) if known else None,
        laterality=next((str(frame[name].value) for name in names if frame.get(name)), ""),
        view=view,
        patient=str(frame.get("PatientID") or ""),
        study=str(frame.get("StudyInstanceUID") or ""),
        series=str(frame.get("SeriesInstanceUID") or ""),
    )


def _flat(tags: Dataset, index: int, macros: Sequence[int] | None = None) -> Dataset:
    """The tags of one frame: what its functional groups and the shared ones hold, laid over the file's own.

    DICOM PS3.3, C.7.6.16: an attribute stands in one of the two, in the item of its macro. Only these ``macros`` are
    looked at where they are given.
    """
    from pydicom import Dataset

    flat = Dataset(dict(tags.items()))  # much quicker than update()
    meta: Any = getattr(tags, "file_meta", None)
    flat.file_meta = meta
    for groups in [*_groups(tags, _GROUPS[0], 0), *_groups(tags, _GROUPS[1], index)]:
        for tag in groups.keys() if macros is None else groups.keys() & macros:  # type: ignore[operator]
            macro = groups[tag]
            if macro.VR == "SQ" and macro.value:
                flat.update(macro.value[0])
    return flat


def _groups(tags: Dataset, name: str, index: int) -> Sequence[Dataset]:
    """An item of a sequence of functional groups, if there is one; where items give their lengths the others are not
    parsed, which would take longer than reading the pixels."""
    from pydicom.dataelem import RawDataElement
    from pydicom.filereader import read_dataset

    raw = tags.get_item(name) if name in tags else None
    if isinstance(raw, RawDataElement) and raw.value and raw.is_little_endian:
        at, item, content = 0, 0, raw.value
        while at + 8 <= len(content):
            tag, length = struct.unpack_from("<LL", content, at)
            if tag != 0xE000FFFE or length == 2**32 - 1:
                break
            if item == index:
                own = BytesIO(content[at + 8 : at + 8 + length])
                return [read_dataset(own, raw.is_implicit_VR, True, at_top_level=False)]
            at, item = at + 8 + length, item + 1
    return (tags.get(name) or [])[index : index + 1]


def _frames(tags: Dataset) -> int:
    return int(tags.get("NumberOfFrames") or 1)


def _spacing(frame: Dataset) -> tuple[tuple[float, float] | None, str]:
    """DICOM PS3.3, 10.7.1: equal Pixel and Imager Pixel Spacing mean that nothing was calibrated."""
    pixel, imager = frame.get("PixelSpacing"), frame.get("ImagerPixelSpacing")
    if pixel and not (imager and list(pixel) == list(imager) and "PixelSpacingCalibrationType" not in frame):
        return (float(pixel[0]), float(pixel[1])), "PixelSpacing"
    if imager:
        factor = float(frame.get("EstimatedRadiographicMagnificationFactor") or 1)
        return (float(imager[0]) / factor, float(imager[1]) / factor), "ImagerPixelSpacing"
    nominal = frame.get("NominalScannedPixelSpacing")
    return ((float(nominal[0]), float(nominal[1])), "NominalScannedPixelSpacing") if nominal else (None, "")


def _slice_spacing(tags: Dataset) -> float | None:
    first, last = (_Slice("", index, 0, _flat(tags, index)).position for index in (0, _frames(tags) - 1))
    if first is not None and last is not None and first != last:
        return abs(last - first) / (_frames(tags) - 1)
    frame = _flat(tags, 0)
    value = frame.get("SpacingBetweenSlices") or frame.get("SliceThickness")
    return abs(float(value)) if value else None


def _normal(frame: Dataset) -> NDArray[np.float64]:
    row, column = np.array(frame.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return np.cross(row, column)


def _affine(
    frame: Dataset, spacing: tuple[float, float] | None, slice_spacing: float | None
) -> NDArray[np.float64] | None:
    """DICOM PS3.3, C.7.6.2.1.1, with the first two axes turned round: DICOM's point to the patient's left and back."""
    if spacing is None:
        return None
    along_row, along_column = np.array(frame.ImageOrientationPatient, dtype=float).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0] = along_row * spacing[1]
    affine[:3, 1] = along_column * spacing[0]
    affine[:3, 2] = _normal(frame) * (slice_spacing or 1.0)
    affine[:3, 3] = np.array(frame.ImagePositionPatient, dtype=float)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _files(source: str | Path | Sequence[str | Path]) -> list[str]:
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        found = sorted(str(path) for path in Path(source).rglob("*") if path.name != "DICOMDIR" and is_dicom(path))
    else:
        found = [str(source)] if isinstance(source, (str, Path)) else [str(path) for path in source]
    if not found:
        raise UserError(f"there is no DICOM file in {_name(source)}: check the path.")
    return found


def _one_series(tags: dict[str, Dataset], series: str | None) -> dict[str, Dataset]:
    groups: dict[str, dict[str, Dataset]] = defaultdict(dict)
    for file, found in tags.items():
        groups[str(found.get("SeriesInstanceUID") or "")][file] = found
    if series is None and len(groups) == 1:
        return tags
    if series not in groups:
        listed = "; ".join(
            f"{uid} ({next(iter(group.values())).get('SeriesDescription') or 'no description'}, {len(group)} files)"
            for uid, group in groups.items()
        )
        raise UserError(f"expected one series, found {len(groups)}: give series one of {listed}.")
    return groups[series]


def _in_space(slices: list[_Slice], name: str) -> tuple[list[_Slice], float | None]:
    """Slices in their order along the normal, and the usual distance between them in mm."""
    if any(np.abs(item.normal - slices[0].normal).max() > 1e-2 for item in slices):
        raise UserError(f"the slices in {name} differ in orientation: expected parallel slices; read them one by one.")
    ordered = sorted(slices, key=lambda item: item.place)  # a stable sort: by instance number among equals
    kept = [item for i, item in enumerate(ordered) if not i or item.place - ordered[i - 1].place > _SAME]
    if len(kept) < len(ordered):
        _log.warning(f"{name}: {len(ordered) - len(kept)} slices lie where another lies and are left out.")
    gaps = np.diff([item.place for item in kept])
    step = float(np.median(gaps)) if len(gaps) else None
    wide = gaps[gaps > _GAP * step] if step is not None else gaps
    if len(wide):
        missing = int(np.round(wide / step).sum()) - len(wide)
        _log.warning(
            f"{name}: about {missing} slices are missing ({len(wide)} gaps up to {wide.max():g} mm, usual {step:g} mm)."
        )
    return kept, step


def _guessed_syntax(tags: Dataset) -> UID:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = tags.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _name(source: str | Path | Sequence[str | Path]) -> str:
    return str(source if isinstance(source, (str, Path)) else source[0])


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip(" .:\t")[:120]
