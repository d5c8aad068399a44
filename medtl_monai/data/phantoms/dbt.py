"""A synthetic cohort of breast tomosynthesis in the files, tables and columns of Duke's BCS-DBT set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils import with_bar
from .cohort import cached_cohort, make_cohort, write_table
from .draw import smooth, step

__all__ = ["BOXES", "LABELS", "PATHS", "VIEWS", "dbt_cohort", "draw_breast", "make_dbt_cohort", "write_tomosynthesis"]

LABELS, BOXES, PATHS = (f"BCS-DBT {name}-train-v2.csv" for name in ("labels", "boxes", "file-paths"))
VIEWS = ("lcc", "rcc", "lmlo", "rmlo")
_STATES = ("Normal", "Benign", "Normal", "Cancer", "Normal", "Benign", "Normal", "Cancer", "Normal", "Actionable")
_COLUMNS = {
    LABELS: ("PatientID", "StudyUID", "View", "Normal", "Actionable", "Benign", "Cancer"),
    BOXES: (
        "PatientID", "StudyUID", "View", "Subject", "Slice", "X", "Y", "Width", "Height", "Class", "AD", "VolumeSlices",
    ),
    PATHS: ("PatientID", "StudyUID", "View", "descriptive_path", "classic_path"),
}  # fmt: skip
_VERSION = 1  # of the pictures: a cached cohort of another version is not used
_HEIGHT = 209.0  # mm, of the detector
_SCALE = 40_000  # stored value of brightness 1
_TYPE = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}

Array = NDArray[np.floating]


def dbt_cohort() -> str:
    """Folder of the default cohort, made on first use in the user's cache folder."""
    return cached_cohort(f"dbt-v{_VERSION}", make_dbt_cohort)


def make_dbt_cohort(
    folder: str | Path,
    *,
    patients: int = 40,
    frames: int = 24,
    size: tuple[int, int] = (192, 160),
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Draw a cohort and write it as 16-bit DICOM (Breast Tomosynthesis Image Storage) with the three tables of BCS-DBT.

    Every patient has four views. Half of the patients are normal; a fifth has a benign mass, a fifth a cancer and a
    tenth an actionable asymmetry, seen in both views of one breast; the other views are labelled normal. Boxes are
    given for benign and cancer, in pixels and in the slice (from 0) where the lesion is sharpest.

    Args:
        folder: made whole or not at all; kept if it holds this very cohort, replaced if it holds another.
        patients: number of patients.
        frames: slices of a view.
        size: rows and columns.
        seed: the same seed gives the same files.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds something else than a cohort.
    """
    about = {"version": _VERSION, "patients": patients, "frames": frames, "size": list(size), "seed": seed}

    def draw(part: Path) -> None:
        rows: dict[str, list[Sequence[Any]]] = {name: [] for name in _COLUMNS}
        for number in with_bar(range(patients), "drawing phantoms", progress):
            for name, row in _patient(part, number, (frames, *size), np.random.default_rng([seed, number])):
                rows[name].append(row)
        for name, columns in _COLUMNS.items():
            write_table(part / name, columns, rows[name])

    return make_cohort(folder, about, draw)


@dataclass(frozen=True)
class Lesion:
    """A finding in one view.

    Attributes:
        state: ``Benign``, ``Cancer`` or ``Actionable``.
        frame: where it is sharp, from 0.
        centre: row and column as fractions of the picture.
        radius: as a fraction of the picture's height.
        seed: of its shape.
    """

    state: str
    frame: int
    centre: tuple[float, float]
    radius: float
    seed: int

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """X, Y, width and height in pixels."""
        reach = self.radius * size[0] * (1.5 if self.state == "Cancer" else 1.1)
        top, left = (max(0, round(c * n - reach)) for c, n in zip(self.centre, size, strict=True))
        bottom, right = (min(n, round(c * n + reach)) for c, n in zip(self.centre, size, strict=True))
        return left, top, right - left, bottom - top


def draw_breast(
    shape: tuple[int, int, int], view: str, lesion: Lesion | None, rng: np.random.Generator, *, density: float = 0.5
) -> NDArray[np.uint16]:
    """A reconstructed view, ``(frames, H, W)``.

    Tissue follows a Gaussian random field with a power spectrum :math:`1/f^\\beta`, :math:`\\beta = 3` in a slice, as
    measured in mammograms. The outline is half an ellipse with a bright skin line; oblique views show the pectoral
    muscle. A mass is bright and round, a cancer has spicules; both are sharp in their slice, and blurred and faint
    away from it, as limited-angle tomography shows them.

    Args:
        shape: frames, rows, columns.
        view: one of :data:`VIEWS`; the chest wall of a left breast is at the left edge.
        lesion: what it shows, if anything.
        rng: of tissue and noise.
        density: share of fibroglandular tissue, in ``[0, 1]``.

    References:
        Burgess, Jacobson, Judy. Human observer detection experiments with mammograms and power-law noise. Medical
        Physics 28(4), 2001.
    """
    frames, height, width = shape
    x, y = _grid((height, width), (0.5, 0.0))
    length, half = 0.68 * width / height * rng.uniform(0.9, 1.1), 0.42 * rng.uniform(0.9, 1.05)
    low = 0.04 if view.endswith("mlo") else 0.0
    field = _tissue(shape, rng)
    shade = smooth(rng.normal(size=(height, width)), height / 6)
    shade = 1 + 0.08 * shade / shade.std()
    muscle = step(0.6 * length - x - 0.7 * (y + 0.5), 0.015) if view.endswith("mlo") else np.float32(0)
    finding = None if lesion is None else _finding(lesion, (height, width))
    volume = np.empty(shape, dtype=np.uint16)
    for z in range(frames):
        depth = 2 * (z + 0.5) / frames - 1
        edge = np.sqrt(1 - 0.25 * depth**2)
        inside = 1 - np.hypot(x / (length * edge), (y - low) / (half * edge))  # 0 at the skin
        gland = step(field[z] + 1.5 * (density - 0.5) + 1.2 * (inside - 0.45), 0.6) * step(inside - 0.06, 0.03)
        picture = (0.26 + 0.22 * gland + 0.035 * field[z]) * shade
        if lesion is not None and finding is not None:
            away = abs(z - lesion.frame) / frames
            picture = picture + smooth(finding, 4 * away * lesion.radius * height) / (1 + 6 * away)
        picture = picture + 0.18 * step(0.02 - inside, 0.008)
        picture = (picture * (1 - muscle) + (0.55 + 0.02 * field[z]) * muscle) * step(inside, 0.006)
        picture = picture + 0.012 * rng.standard_normal(picture.shape, dtype=np.float32) + 0.02
        volume[z] = np.clip(np.round(_SCALE * picture), 0, 65535)
    return volume if view.startswith("l") else volume[:, :, ::-1]


def write_tomosynthesis(
    path: str | Path,
    volume: NDArray[np.uint16],
    *,
    view: str = "lcc",
    patient: str = "DBT-P00000",
    study: str = "DBT-S00000",
    compress: bool = False,
) -> tuple[str, str]:
    """Write ``(frames, H, W)`` as a Breast Tomosynthesis Image Storage object with its functional groups.

    Args:
        path: of the file.
        volume: unsigned, 16 bits.
        view: one of :data:`VIEWS`.
        patient: identifier.
        study: identifier; the object's UIDs follow from it and the view.
        compress: as JPEG-LS, lossless; needs the extra ``dicom``.

    Returns:
        The Study and Series Instance UID.
    """
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import BreastTomosynthesisImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

    frames, rows, columns = volume.shape
    side, kind = view[0].upper(), view[1:].upper()
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = BreastTomosynthesisImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid(entropy_srcs=[study, view, "image"])
    file.StudyInstanceUID = generate_uid(entropy_srcs=[study])
    file.SeriesInstanceUID = generate_uid(entropy_srcs=[study, view])
    file.PatientID, file.PatientName, file.StudyID = patient, patient, study
    file.Modality, file.BodyPartExamined, file.StudyDate = "MG", "BREAST", "20000101"
    file.SeriesNumber = file.InstanceNumber = 1
    file.ViewCodeSequence = [_code(*_TYPE[kind])]
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit = 15
    file.NumberOfFrames, file.Rows, file.Columns = frames, rows, columns
    spacing = _HEIGHT / rows
    across, down = _directions(side, kind)
    file.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[_item(PixelSpacing=[spacing, spacing], SliceThickness=1.0)],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[*across, *down])],
            FrameAnatomySequence=[_item(FrameLaterality=side, AnatomicRegionSequence=[_code("76752008", "Breast")])],
            PixelValueTransformationSequence=[_item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")],
            FrameVOILUTSequence=[_item(WindowCenter=_SCALE / 2, WindowWidth=_SCALE)],
        )
    ]
    normal = np.cross(across, down)
    file.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=z + 1)],
            PlanePositionSequence=[_item(ImagePositionPatient=[round(float(v), 6) for v in z * normal])],
        )
        for z in range(frames)
    ]
    if compress:
        file.compress(JPEGLSLossless, volume)
    else:
        file.PixelData = np.ascontiguousarray(volume, dtype="<u2").tobytes()
    file.save_as(path, enforce_file_format=True)
    return file.StudyInstanceUID, file.SeriesInstanceUID


def _patient(
    folder: Path, number: int, shape: tuple[int, int, int], rng: np.random.Generator
) -> Iterable[tuple[str, Sequence[Any]]]:
    """Write one patient's files; yields rows with the table they belong to."""
    patient, study = f"DBT-P{number + 1:05d}", f"DBT-S{number + 1:05d}"
    state, side = _STATES[number % len(_STATES)], "lr"[int(rng.integers(2))]
    density, radius = rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.09)
    shape_seed = int(rng.integers(2**31))
    exam = f"Breast-Cancer-Screening-DBT/{patient}/01-01-2000-{study}-MAMMO screening digital bilateral-{number:05d}"
    for i, view in enumerate(VIEWS):
        finding = state if view[0] == side else "Normal"
        lesion = None if finding == "Normal" else _lesion(finding, view, radius, shape_seed, shape, rng)
        path = f"{exam}/{i + 1}.000000-NA-{number:05d}/1-1.dcm"
        (folder / path).parent.mkdir(parents=True)
        volume = draw_breast(shape, view, lesion, rng, density=density)
        uids = write_tomosynthesis(folder / path, volume, view=view, patient=patient, study=study)
        key = (patient, study, view)
        yield LABELS, (*key, *(int(finding == name) for name in _COLUMNS[LABELS][3:]))
        yield PATHS, (*key, path, f"Breast-Cancer-Screening-DBT/{patient}/{uids[0]}/{uids[1]}/1-1.dcm")
        if lesion is not None and finding in ("Benign", "Cancer"):
            yield BOXES, (*key, 0, lesion.frame, *_box(lesion, view, shape), finding.lower(), 0, shape[0])


def _lesion(
    state: str, view: str, radius: float, seed: int, shape: tuple[int, int, int], rng: np.random.Generator
) -> Lesion:
    frame = int(rng.integers(shape[0] // 4, shape[0] - shape[0] // 4))
    width = shape[2] / shape[1]
    row, column = 0.5 + rng.uniform(-0.16, 0.2), rng.uniform(0.18, 0.36) * width
    return Lesion(state, frame, (row, column / width), radius * rng.uniform(0.9, 1.1), seed)


def _box(lesion: Lesion, view: str, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
    left, top, width, height = lesion.box((shape[1], shape[2]))
    return (left if view[0] == "l" else shape[2] - left - width), top, width, height


def _finding(lesion: Lesion, size: tuple[int, int]) -> Array:
    """What the lesion adds to its own slice."""
    rng = np.random.default_rng(lesion.seed)
    x, y = _grid(size, lesion.centre)
    reach, angle = np.hypot(x, y) / lesion.radius, np.arctan2(y, x)
    uneven = sum(np.sin(k * angle + rng.uniform(0, 2 * np.pi)) / k for k in (2, 3, 5))
    if lesion.state == "Benign":
        return 0.17 * step(1 - reach * (1 + 0.08 * uneven), 0.10)
    if lesion.state == "Actionable":
        return 0.10 * np.exp(-(reach**2))
    picture = 0.22 * step(0.7 - reach * (1 + 0.25 * uneven), 0.15)
    for _ in range(14):
        turn, long = rng.uniform(-np.pi, np.pi), rng.uniform(1.1, 1.6)
        along, across = reach * np.cos(angle - turn), reach * np.sin(angle - turn)
        picture += 0.13 * step(0.06 - np.abs(across), 0.03) * step(long - along, 0.1) * step(along, 0.1)
    return picture


def _grid(size: tuple[int, int], centre: tuple[float, float]) -> tuple[Array, Array]:
    """x ``(1, W)`` and y ``(H, 1)`` from ``centre`` (row and column as fractions), in heights of the picture."""
    x = (np.arange(size[1], dtype=np.float32) + 0.5) / size[0] - centre[1] * size[1] / size[0]
    y = (np.arange(size[0], dtype=np.float32) + 0.5) / size[0] - centre[0]
    return x[None, :], y[:, None]


def _tissue(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """A field of zero mean and unit variance; the in-plane power spectrum falls with the third power of the frequency.

    Neighbouring slices share most of their structure: slices are a moving mixture of a few fields.
    """
    frames, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    count = max(2, frames // 6)
    fields = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.5, (height, width))
              for _ in range(count)]  # fmt: skip
    fields = [((field - field.mean()) / field.std()).astype(np.float32) for field in fields]
    places = np.linspace(0, count - 1, frames)
    result = np.empty(shape, dtype=np.float32)
    for z, place in enumerate(places):
        low = min(int(place), count - 2)
        share = (place - low) * np.pi / 2
        result[z] = np.cos(share) * fields[low] + np.sin(share) * fields[low + 1]
    return result


def _directions(side: str, kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where rows and columns run in the patient (LPS): columns away from the chest wall, rows from the outer or the
    upper side downwards."""
    out = 1.0 if side == "L" else -1.0
    tilt = np.sqrt(0.5)
    across = np.array([0.0, -out, 0.0])
    down = np.array([-out, 0.0, 0.0]) if kind == "CC" else np.array([-out * tilt, 0.0, -tilt])
    return across, down


def _item(**values: Any) -> Any:
    from pydicom import Dataset

    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, meaning: str) -> Any:
    return _item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)
