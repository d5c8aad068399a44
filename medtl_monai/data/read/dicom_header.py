"""What a DICOM file says of its image: where it lies, how large its pixels are, whose it is."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...utils import UserError
from .limits import check_size

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = [
    "FRAME_GROUPS",
    "Header",
    "affine_of",
    "flat_tags",
    "frames_of",
    "header",
    "header_of",
    "is_dicom",
    "normal_of",
    "position_of",
    "reason_of",
    "split_frame",
    "tags_of",
]

_DEFLATED = 1032  # times that zlib makes a file smaller at most

FRAME_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""What a file of several frames says of them, besides the group 0028."""

_VIEWS = {  # DICOM PS3.16, CID 4014: SNOMED CT codes and their older forms
    "399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO", "399260004": "ML", "R-10224": "ML",
    "399352003": "LM", "R-10228": "LM", "399099002": "LMO", "R-10230": "LMO",
}  # fmt: skip


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
    return header_of(tags_of(path), path)


def tags_of(path: str) -> Dataset:
    """All of a file but its pixels.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    import pydicom

    if not Path(path).is_file():
        raise UserError(f"there is no file {path}: check the path.")
    try:
        tags = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        usable = "Rows" in tags and "Columns" in tags and frames_of(tags) > 0
        most = Path(path).stat().st_size  # frames take bytes each, unless all of the file is compressed
        damaged = usable and frames_of(tags) > (_DEFLATED * most if _is_deflated(tags) else most)
    except Exception as error:  # pydicom raises many kinds on files that are none
        raise UserError(f"{path} cannot be read as DICOM ({reason_of(error)}): repair or remove it.") from error
    if not usable:
        kind = str(tags.get("Modality") or "no modality")
        raise UserError(f"{path} holds no image ({kind}): expected a DICOM image; leave it out.")
    if damaged:
        raise UserError(
            f"{path} says that it has {frames_of(tags)} frames, more than its size allows: repair or remove it."
        )
    check_size(path, tags.Rows, tags.Columns)
    return tags


def _is_deflated(tags: Dataset) -> bool:
    syntax = getattr(tags, "file_meta", {}).get("TransferSyntaxUID")
    return getattr(syntax, "is_deflated", False)


def header_of(tags: Dataset, path: str) -> Header:
    """The header that a file's tags make."""
    frame = flat_tags(tags, 0)
    spacing, source = _spacing(frame)
    slice_spacing = _slice_spacing(tags)
    known = frame.get("ImagePositionPatient") and frame.get("ImageOrientationPatient") and spacing
    meta = getattr(tags, "file_meta", {})
    photometric = _text(frame, "PhotometricInterpretation")
    return Header(
        path=path,
        modality=_text(frame, "Modality"),
        sop_class=frame.SOPClassUID.name if "SOPClassUID" in frame else "",
        transfer_syntax=meta["TransferSyntaxUID"].value.name if "TransferSyntaxUID" in meta else "",
        photometric=photometric,
        shape=(int(frame.Rows), int(frame.Columns)),
        frames=frames_of(tags),
        channels=3 if frame.get("SamplesPerPixel") == 3 or photometric == "PALETTE COLOR" else 1,
        bits_stored=int(frame.get("BitsStored") or frame.get("BitsAllocated") or 0),
        spacing=spacing,
        spacing_from=source,
        slice_spacing=slice_spacing,
        affine=affine_of(frame, spacing, slice_spacing) if known else None,
        laterality=_text(frame, "FrameLaterality", "ImageLaterality", "Laterality"),
        view=_view(frame),
        patient=_text(frame, "PatientID"),
        study=_text(frame, "StudyInstanceUID"),
        series=_text(frame, "SeriesInstanceUID"),
    )


def _text(frame: Dataset, *names: str) -> str:
    """The first of these tags that says something."""
    return next((str(frame[name].value) for name in names if frame.get(name)), "")


def _view(frame: Dataset) -> str:
    codes = [code.get("CodeValue", "") for code in frame.get("ViewCodeSequence") or []]
    return _text(frame, "ViewPosition") or next((_VIEWS[code] for code in codes if code in _VIEWS), "")


def flat_tags(tags: Dataset, index: int, macros: Sequence[int] | None = None) -> Dataset:
    """The tags of one frame: what its functional groups and the shared ones hold, laid over the file's own.

    DICOM PS3.3, C.7.6.16: an attribute stands in one of the two, in the item of its macro. Only these ``macros`` are
    looked at where they are given.
    """
    from pydicom import Dataset

    flat = Dataset(dict(tags.items()))  # much quicker than update()
    meta: Any = getattr(tags, "file_meta", None)
    flat.file_meta = meta
    for groups in [*_groups(tags, FRAME_GROUPS[0], 0), *_groups(tags, FRAME_GROUPS[1], index)]:
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


def frames_of(tags: Dataset) -> int:
    """How many frames a file has."""
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
    first, last = (position_of(flat_tags(tags, index)) for index in (0, frames_of(tags) - 1))
    if first is not None and last is not None and first != last:
        return abs(last - first) / (frames_of(tags) - 1)
    frame = flat_tags(tags, 0)
    value = frame.get("SpacingBetweenSlices") or frame.get("SliceThickness")
    return abs(float(value)) if value else None


def position_of(frame: Dataset) -> float | None:
    """Where a slice lies along its normal, in mm; ``None`` where its place in space is not told."""
    known = frame.get("ImagePositionPatient") and frame.get("ImageOrientationPatient")
    return float(np.dot(normal_of(frame), frame.ImagePositionPatient)) if known else None


def normal_of(frame: Dataset) -> NDArray[np.float64]:
    """The direction in which slices follow each other, in DICOM's axes: ``(3,)``, of length 1."""
    row, column = np.array(frame.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return np.cross(row, column)


def affine_of(
    frame: Dataset, spacing: tuple[float, float] | None, slice_spacing: float | None
) -> NDArray[np.float64] | None:
    """``(4, 4)`` by DICOM PS3.3, C.7.6.2.1.1, two axes turned round: DICOM's point to the patient's left and back."""
    if spacing is None:
        return None
    along_row, along_column = np.array(frame.ImageOrientationPatient, dtype=float).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0] = along_row * spacing[1]
    affine[:3, 1] = along_column * spacing[0]
    affine[:3, 2] = normal_of(frame) * (slice_spacing or 1.0)
    affine[:3, 3] = np.array(frame.ImagePositionPatient, dtype=float)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def reason_of(error: Exception) -> str:
    """What a decoder says, in one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip(" .:\t")[:120]
