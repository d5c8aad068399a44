"""Sunnybrook Cardiac Data (Radau et al., The MIDAS Journal, 2009) as published: DICOM slices, and contours as text."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from ...utils import UserError
from ..cases import Cases
from ..find import glob
from ..read.contours import INNER, OUTER
from .common import found, read_table

__all__ = ["ABOUT", "matches", "read"]

ABOUT = ("*contour-manual.txt", "scd_patientdata.csv")

_PATIENT = re.compile(r"SC-(HF-I|HF-NI|HYP|N)-0*(\d+)")
_CONTOUR = re.compile(rf"IM-\d+-(\d+){re.escape(INNER)}")
_SLICE = re.compile(r"IM-(\d+)-(\d+)\.dcm")
_TABLE, _COLUMNS = "scd_patientdata.csv", ("PatientID", "OriginalID")
_CLASSES = {"inner": ["left ventricle"], "both": ["left ventricle", "myocardium"]}


def matches(root: Path) -> bool:
    """Whether folders such as ``SC-HF-I-01/contours-manual`` hold files ``IM-0001-0048-icontour-manual.txt``."""
    return any(_contours(folder) for folder in _folders(root))


def read(root: Path, *, contours: str = "inner") -> Cases:
    """One item a contoured slice; patient and ``group`` (HF-I, HF-NI, HYP, N) from the folder of the contours.

    The slice has the contour's number and lies below a folder named as that of the contours (``SC-HF-I-1``), or by its
    ``PatientID`` in ``scd_patientdata.csv`` (``SCD0000101``). Of several series there the one is taken that holds most
    of the contoured numbers, among those whose Series Description says SAX, if any does.

    Args:
        root: the folder.
        contours: ``inner``: the left ventricle's cavity, in all contoured slices; ``both``: cavity and myocardium, in
            those that have an outer contour too.

    Raises:
        UserError: a contour without its slice, no table for the images' folders, or two series that fit alike.
    """
    if contours not in _CLASSES:
        raise UserError(f"contours must be one of {', '.join(_CLASSES)}, got {contours!r}.")
    images = _image_folders(root)
    items: list[dict[str, Any]] = []
    for folder in _folders(root):
        patient, group = _patient(folder.name)
        drawn = _contours(folder)
        slices = _slices(images[patient], set(drawn)) if drawn else {}
        _refuse_missing(patient, drawn, slices)
        for number, path in drawn.items():
            outer = path.with_name(path.name.removesuffix(INNER) + OUTER)
            label = path if contours == "inner" else outer
            if label.is_file():
                items.append({"image": slices.get(number), "label": label, "patient": patient, "group": group})
    return found(root, "sunnybrook_contours", items, _CLASSES[contours], "segmentation")


def _refuse_missing(patient: str, drawn: dict[int, Path], slices: dict[int, Path]) -> None:
    missing = [path for number, path in drawn.items() if slices and number not in slices]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(drawn)} contours of {patient} have no slice, such as {missing[0].name}: "
            f"expected the DICOM file of that number in {next(iter(slices.values())).parent}; copy it there, or "
            "remove the contour."
        )


def _folders(root: Path) -> list[Path]:
    """Those named as a patient, at the top or up to two folders below."""
    paths = (path for pattern in ("SC-*", "*/SC-*", "*/*/SC-*") for path in root.glob(pattern))
    return sorted(path for path in paths if _PATIENT.fullmatch(path.name))


def _patient(name: str) -> tuple[str, str]:
    """The patient, with two digits as most folders have them, and his group."""
    group, number = _PATIENT.fullmatch(name).groups()  # type: ignore[union-attr]
    return f"SC-{group}-{int(number):02d}", group


def _contours(folder: Path) -> dict[int, Path]:
    """The inner contours by the number of their slice."""
    files = glob(folder / "contours-manual", f"*{INNER}", deep=True)
    return {int(name[1]): path for path in files if (name := _CONTOUR.fullmatch(path.name))}


def _image_folders(root: Path) -> dict[str, list[Path]]:
    """The folders that may hold a patient's slices."""
    folders: dict[str, list[Path]] = defaultdict(list)
    for path in _folders(root):
        folders[_patient(path.name)[0]].append(path)
    renamed = sorted(path for pattern in ("SCD0*", "*/SCD0*", "*/*/SCD0*") for path in root.glob(pattern))
    originals = _originals(root, renamed)
    for path in renamed:
        if _PATIENT.fullmatch(originals.get(path.name, "")):
            folders[_patient(originals[path.name])[0]].append(path)
    return folders


def _originals(root: Path, renamed: list[Path]) -> dict[str, str]:
    """What the folders of a later edition were called in the first one."""
    table = next((path for pattern in (_TABLE, f"*/{_TABLE}") for path in root.glob(pattern)), None)
    if renamed and table is None:
        raise UserError(
            f"{root} has images in folders such as {renamed[0].name}, but no {_TABLE}, which tells whose they are: "
            "copy it there from the set's page."
        )
    return {row["PatientID"]: row["OriginalID"] for row in read_table(table, _COLUMNS)} if table else {}


def _slices(folders: list[Path], numbers: set[int]) -> dict[int, Path]:
    """The slices of the series to which contours of these numbers belong, by number; none if there is no image."""
    fitting = _series(folders)
    if len(fitting) > 1:
        fitting = [slices for slices in fitting if _short_axis(next(iter(slices.values())))] or fitting
    most = max((len(numbers & slices.keys()) for slices in fitting), default=0)
    best = [slices for slices in fitting if len(numbers & slices.keys()) == most]
    if most and len(best) > 1:
        firsts = " and ".join(str(next(iter(slices.values()))) for slices in best[:2])
        raise UserError(
            f"the series of {firsts} hold as many contoured slices of one patient: expected one series of short-axis "
            "slices; leave the other out."
        )
    return best[0] if best else {}


def _series(folders: list[Path]) -> list[dict[int, Path]]:
    """The slices of each series in these folders, by number."""
    series: dict[tuple[Path, str], dict[int, Path]] = defaultdict(dict)
    for path in sorted(path for folder in folders for path in glob(folder, "IM-*.dcm", deep=True)):
        if name := _SLICE.fullmatch(path.name):
            series[path.parent, name[1]][int(name[2])] = path
    return list(series.values())


def _short_axis(path: Path) -> bool:
    from pydicom import dcmread

    return "SAX" in str(dcmread(path, specific_tags=["SeriesDescription"]).get("SeriesDescription", "")).upper()
