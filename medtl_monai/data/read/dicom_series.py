"""Slices of a DICOM series in their order in space, whatever their files are called."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...utils import UserError
from .dicom_header import (
    FRAME_GROUPS,
    Header,
    affine_of,
    flat_tags,
    frames_of,
    header_of,
    is_dicom,
    normal_of,
    position_of,
    tags_of,
)
from .dicom_pixels import as_shown, darkened, each_frame, padding_of
from .limits import check_size

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["name_of", "read_series", "shown_series"]

Array = NDArray[Any]

_SAME = 1e-3  # mm; positions that differ by less are one
_GAP = 1.5  # of the usual distance between slices; more is a gap

_log = logging.getLogger("medtl_monai")


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
    volume, about, padding = shown_series(source, series, rescale)
    return (volume if padding is None else darkened(volume, padding)[0]), about


def shown_series(
    source: str | Path | Sequence[str | Path], series: str | None, rescale: bool
) -> tuple[Array, Header, Array | None]:
    """The volume ``(Z, H, W)``, its header, and which of its voxels are padding: ``None`` for none.

    Raises:
        UserError: as :func:`read_series`.
    """
    tags = _one_series({file: tags_of(file) for file in _files(source)}, series)
    slices = _slices(tags)
    about = header_of(tags[slices[0].path], slices[0].path)
    if len({(item.tags.Rows, item.tags.Columns) for item in slices}) > 1:
        raise UserError(f"the slices in {name_of(source)} differ in size: expected one size; read them one by one.")
    check_size(name_of(source), len(slices), *about.shape)
    if all(item.position is not None for item in slices):
        slices, step = _in_space(slices, name_of(source))
        about = replace(about, slice_spacing=step or about.slice_spacing)
        about = replace(about, affine=affine_of(slices[0].tags, about.spacing, about.slice_spacing))
    elif len(tags) > 1:
        raise UserError(f"slices in {name_of(source)} have no position in space: read them one by one.")
    volume, padding = _fill(slices, {path: frames_of(found) for path, found in tags.items()}, rescale)
    return volume, replace(about, frames=len(slices)), padding


def _slices(tags: dict[str, Dataset]) -> list[_Slice]:
    """All slices of the files, by instance number."""
    for found in tags.values():
        for name in FRAME_GROUPS:  # parsed at once, since every frame's item is needed
            found.get(name)
    slices = (
        _Slice(file, index, int(found.get("InstanceNumber") or 0), flat_tags(found, index))
        for file, found in tags.items()
        for index in range(frames_of(found))
    )
    return sorted(slices, key=lambda item: (item.number, item.index))


def _fill(slices: list[_Slice], frames: dict[str, int], rescale: bool) -> tuple[Array, Array | None]:
    """The slices in their order as one array, each file read once, and which voxels are padding."""
    places = {(item.path, item.index): number for number, item in enumerate(slices)}
    volume: Array = np.empty(0)
    padded: dict[int, Array] = {}
    for path in dict.fromkeys(item.path for item in slices):
        for number, pixels in ((places.get((path, k)), one) for k, one in enumerate(each_frame(path, frames[path]))):
            if number is None:
                continue
            shown = as_shown(pixels, slices[number].tags, rescale, window=False)
            if not volume.size:
                volume = np.empty((len(slices), *shown.shape), dtype=np.float32 if rescale else shown.dtype)
            volume[number] = shown
            found = padding_of(pixels, slices[number].tags) if rescale else None
            if found is not None:
                padded[number] = found
    none = np.zeros(volume.shape[1:], bool)
    return volume, np.stack([padded.get(number, none) for number in range(len(slices))]) if padded else None


class _Slice:
    """One slice of a series: where it is stored, and where it lies."""

    def __init__(self, path: str, index: int, number: int, tags: Dataset) -> None:
        self.path, self.index, self.number, self.tags = path, index, number, tags
        self.position = position_of(tags)  # mm along the normal

    @property
    def place(self) -> float:
        """The position of a slice that has one."""
        assert self.position is not None
        return self.position


def _files(source: str | Path | Sequence[str | Path]) -> list[str]:
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        found = sorted(str(path) for path in Path(source).rglob("*") if path.name != "DICOMDIR" and is_dicom(path))
    else:
        found = [str(source)] if isinstance(source, (str, Path)) else [str(path) for path in source]
    if not found:
        raise UserError(f"there is no DICOM file in {name_of(source)}: check the path.")
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
    normals = np.array([normal_of(item.tags) for item in slices])
    if np.abs(normals - normals[0]).max() > 1e-2:
        raise UserError(f"the slices in {name} differ in orientation: expected parallel slices; read them one by one.")
    ordered = sorted(slices, key=lambda item: item.place)  # a stable sort: by instance number among equals
    kept = [item for i, item in enumerate(ordered) if not i or item.place - ordered[i - 1].place > _SAME]
    if len(kept) < len(ordered):
        _log.warning(f"{name}: {len(ordered) - len(kept)} slices lie where another lies and are left out.")
    gaps = np.diff([item.place for item in kept])
    if not len(gaps):
        return kept, None
    step = float(np.median(gaps))
    wide = gaps[gaps > _GAP * step]
    if len(wide):
        missing = int(np.round(wide / step).sum()) - len(wide)
        _log.warning(
            f"{name}: about {missing} slices are missing ({len(wide)} gaps up to {wide.max():g} mm, usual {step:g} mm)."
        )
    return kept, step


def name_of(source: str | Path | Sequence[str | Path]) -> str:
    """What to call a source in a message: its first file."""
    return str(source if isinstance(source, (str, Path)) else source[0])
