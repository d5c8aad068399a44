"""What a set of images holds, and what in it looks wrong: every file is read once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .cases import Cases
from .leakage import audit, perceptual_hash

__all__ = ["check_cases", "render_check"]

Array = NDArray[Any]

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".pgm")
_HDF5 = (".h5", ".hdf5", ".mat")
_OUTLIER = 2.0  # a side this many times longer or shorter than usual
_FLAT = 3.0  # a volume this many times longer than thick hardly has cubic voxels
_SHOWN = 5  # examples and kinds that are listed


@dataclass(frozen=True)
class _Read:
    """What one file told: its axes as stored, without colour."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None  # mm
    depth: str
    low: float
    high: float
    digest: bytes
    hash: int


def check_cases(cases: Cases, *, progress: bool = True) -> dict[str, Any]:
    """Read all images and masks.

    Args:
        cases: from :func:`medtl_monai.data.load_cases`.
        progress: show a bar, if the error output is a terminal.

    Returns:
        For JSON: ``folder``, ``layout``, ``task``, ``cases``, ``patients``; ``classes``, ``split`` and ``domains`` with
        their numbers of images and patients (for masks: those that hold the structure); ``sizes``, ``spacings`` (mm)
        and ``depths`` with their numbers of images, the most frequent first; ``intensities``, the least and the largest
        value; ``suspicious``, a list of kinds with their number, text and examples; ``leakage`` between the parts of
        the data's own split, or ``None``.
    """
    read: dict[int, _Read] = {}
    values: dict[int, set[int]] = {}
    doubts: dict[str, list[str]] = defaultdict(list)
    for i, item in enumerate(tqdm(cases.items, desc="reading", disable=None if progress else True, leave=False)):
        name = _name(item, cases.root)
        try:
            read[i] = _read(item)
            if cases.task == "segmentation":
                values[i] = _mask(item, read[i], name, doubts)
        except Exception as error:  # every reader has its own kinds
            reason = str(error).partition("\n")[0].strip(" .:")[:80] or type(error).__name__
            doubts["cannot be read"].append(f"{name} ({reason})")
            read.pop(i, None)
    _doubt_images(cases, read, doubts)
    present = _present(cases, values, doubts)
    parts = [item.get("split") for item in cases.items]
    known = list(read.values())
    return {
        "folder": str(cases.root),
        "layout": cases.layout,
        "task": cases.task,
        "cases": len(cases.items),
        "patients": len({item["patient"] for item in cases.items}),
        "classes": {name: _counts(cases, [k in found for found in present]) for k, name in enumerate(cases.classes)},
        "split": _groups(cases, parts),
        "domains": _groups(cases, [item.get("domain") for item in cases.items]),
        "sizes": _frequent(_sides(one.shape) for one in known),
        "spacings": _frequent(
            " x ".join(f"{step:.3g}" for step in one.spacing) if one.spacing else "unknown" for one in known
        ),
        "depths": _frequent(one.depth for one in known),
        "intensities": [min(one.low for one in known), max(one.high for one in known)] if known else None,
        "suspicious": [
            {"what": what, "count": len(names), "examples": names[:_SHOWN]} for what, names in doubts.items()
        ],
        "leakage": _leakage(cases, parts, read),
    }


def render_check(report: Mapping[str, Any]) -> str:
    """The report of :func:`check_cases` as text."""
    lines = [f"{key:<10}{report[key]}" for key in ("folder", "layout", "task")]
    lines += [f"{'cases':<10}{report['cases']} of {report['patients']} patients"]
    heads = {"classes": "class", "split": "part", "domains": "domain"}
    for key, head in heads.items():
        if report[key]:
            rows = [(name, *counts.values()) for name, counts in report[key].items()]
            lines += ["", *_table((head, *next(iter(report[key].values()))), rows)]
        else:
            lines += ["", f"{key:<10}none in the data"]
    lines.append("")
    for key in ("sizes", "spacings", "depths"):
        shown = [f"{name} ({count})" for name, count in list(report[key].items())[:_SHOWN]]
        more = f" and {len(report[key]) - _SHOWN} more" if len(report[key]) > _SHOWN else ""
        lines.append(f"{key:<10}{', '.join(shown)}{more}")
    if report["intensities"]:
        lines.append(f"{'values':<10}{' to '.join(f'{value:g}' for value in report['intensities'])}")
    lines.append("")
    for doubt in report["suspicious"]:
        lines.append(f"warning: {doubt['count']} {doubt['what']}")
        lines += [f"  {name}" for name in doubt["examples"]] + ["  ..."] * (doubt["count"] > len(doubt["examples"]))
    lines.append(f"leakage: {report['leakage']['verdict']}" if report["leakage"] else "leakage: no split to look at.")
    return "\n".join(lines)


def _read(item: Mapping[str, Any]) -> _Read:
    files = [item["image"]] if isinstance(item["image"], str) else item["image"]
    arrays = [_load(file, item, "image") for file in files]
    array, spacing, depth = arrays[0]
    whole = [np.asarray(one[0]) for one in arrays]
    low, high = min(float(one.min()) for one in whole), max(float(one.max()) for one in whole)
    if not math.isfinite(low + high):
        raise ValueError("it holds values that are not finite")
    digest = hashlib.blake2b(b"".join(np.ascontiguousarray(one).tobytes() for one in whole), digest_size=16).digest()
    while array.ndim > 2:  # the middle slice
        array = array.take(min(array.shape) // 2, axis=int(np.argmin(array.shape)))
    return _Read(arrays[0][0].shape, spacing, depth, low, high, digest, perceptual_hash(array))


def _load(file: str, item: Mapping[str, Any], key: str) -> tuple[Array, tuple[float, ...] | None, str]:
    """The array as it is stored, grey, its spacing in mm where the file tells it, and the type of its values."""
    name = file.lower()
    spacing: tuple[float, ...] | None = None
    if name.endswith(".npz"):
        array = _npz(file, item[f"{key}_key"])
        array = array[item["image_index"]] if "image_index" in item else array
    elif name.endswith(_HDF5):
        import h5py

        with h5py.File(file) as content:
            array = content[item.get(f"{key}_key") or key][()]
    elif name.endswith(_PICTURES):
        from PIL import Image

        with Image.open(file) as picture:
            array = np.asarray(picture if picture.mode[0] in "IF" else picture.convert("L"))
    elif name.endswith((".nii", ".nii.gz")):
        import nibabel

        image = nibabel.load(file)
        array, spacing = np.asanyarray(image.dataobj), tuple(map(float, image.header.get_zooms()))
    elif name.endswith((".nrrd", ".mha")):
        from monai.transforms import LoadImage

        image = LoadImage("ITKReader", image_only=True)(file)
        array, spacing = image.numpy(), tuple(map(float, image.pixdim))
    else:
        return _dicom(file)
    if "frame" in item:
        array = array[..., item["frame"]]
    if spacing is not None:
        spacing = spacing[: array.ndim]
    return array, spacing, str(array.dtype)


def _dicom(file: str) -> tuple[Array, tuple[float, ...] | None, str]:
    """A file's size and spacing, and the values of its middle frame."""
    import pydicom
    from pydicom.pixels import pixel_array

    tags = pydicom.dcmread(file, stop_before_pixels=True)
    frames = int(tags.get("NumberOfFrames") or 1)
    array = pixel_array(file, index=frames // 2)
    array = array.mean(axis=-1) if array.ndim == 3 else array
    spacing = tags.get("PixelSpacing") or tags.get("ImagerPixelSpacing")
    return array, tuple(map(float, spacing)) if spacing else None, f"{tags.BitsStored} bits"


@lru_cache(maxsize=1)
def _npz(file: str, key: str) -> Array:
    with np.load(file) as arrays:
        return arrays[key]


def _mask(item: Mapping[str, Any], image: _Read, name: str, doubts: dict[str, list[str]]) -> set[int]:
    mask, *_ = _load(item["label"], item, "label")
    if mask.shape != image.shape:
        doubts["masks of another size than their image"].append(
            f"{name} ({_sides(mask.shape)}, not {_sides(image.shape)})"
        )
    return {int(value) for value in np.unique(mask)} - {0}


def _doubt_images(cases: Cases, read: Mapping[int, _Read], doubts: dict[str, list[str]]) -> None:
    twins: dict[bytes, list[int]] = defaultdict(list)
    sides: dict[int, Array] = {}
    for dimensions in {len(one.shape) for one in read.values()}:
        shapes = [one.shape for one in read.values() if len(one.shape) == dimensions]
        sides[dimensions] = np.median(shapes, axis=0)
    for i, one in read.items():
        name = _name(cases.items[i], cases.root)
        usual = sides[len(one.shape)]
        if one.low == one.high:
            doubts["constant images"].append(name)
        else:
            twins[one.digest].append(i)
        if max((one.shape / usual).max(), (usual / one.shape).max()) > _OUTLIER:
            doubts["images of an unusual size"].append(f"{name} ({_sides(one.shape)})")
        cubic = one.spacing is not None and len(one.shape) == 3 and np.allclose(one.spacing, 1.0)
        if cubic and max(one.shape) >= _FLAT * min(one.shape):
            doubts["volumes whose spacing of 1.0 mm along all axes looks made up"].append(name)
    for group in twins.values():
        if len(group) > 1:
            items = [cases.items[i] for i in group]
            differ = [key for key in ("patient", "label", "split") if len({str(item.get(key)) for item in items}) > 1]
            note = f" (different {' and '.join(differ)})" if differ and cases.task != "segmentation" else ""
            doubts["groups of identical images"].append(
                " = ".join(_name(item, cases.root) for item in items[:3]) + note
            )


def _present(cases: Cases, values: Mapping[int, set[int]], doubts: dict[str, list[str]]) -> list[set[int]]:
    """The classes of each item."""
    if cases.task == "classification":
        present = [{item["label"]} for item in cases.items]
    elif cases.task == "multilabel":
        present = [{k for k, value in enumerate(item["label"]) if value == 1} for item in cases.items]
    else:
        present = []
        single = len(cases.classes) == 1 and len({value for found in values.values() for value in found}) == 1
        for i, item in enumerate(cases.items):
            found = values.get(i, set())
            named = {k for k, value in enumerate(cases.label_values) if value in found}
            present.append({0} if single and found else named)
            unnamed = [] if single else sorted(found - set(cases.label_values))
            if unnamed:
                shown = ", ".join(map(str, unnamed[:_SHOWN]))
                doubts["masks with values without a name"].append(f"{_name(item, cases.root)} ({shown})")
            if i in values and not found:
                doubts["empty masks"].append(_name(item, cases.root))
    for k, name in enumerate(cases.classes):
        if not any(k in found for found in present):
            doubts["classes without images"].append(name)
    return present


def _leakage(cases: Cases, parts: Sequence[str | None], read: Mapping[int, _Read]) -> dict[str, Any] | None:
    named = [i for i, part in enumerate(parts) if part and i in read]
    where = [str(parts[i]) for i in named]
    if len(set(where)) < 2:
        return None
    items = [{**cases.items[i], "image": _first(cases.items[i]), "label": str(cases.items[i]["label"])} for i in named]
    hashes = {item["image"]: read[i].hash for item, i in zip(items, named, strict=True)}
    if len({(item["image"], part) for item, part in zip(items, where, strict=True)}) > len(hashes):
        # one file of several parts: images have no paths, by which the audit tells them
        patients, copies = defaultdict(set), defaultdict(set)
        for item, i, part in zip(items, named, where, strict=True):
            patients[item["patient"]].add(part)
            copies[read[i].digest].add(part)
        shared = sorted(patient for patient, found in patients.items() if len(found) > 1)
        count = sum(len(found) > 1 for found in copies.values())
        verdict = f"{len(shared) or 'no'} patients and {count or 'no'} identical images are shared by the parts."
        return {"shared_patients": shared, "verdict": verdict}
    return asdict(audit(items, where, hashes))


def _groups(cases: Cases, names: Sequence[str | None]) -> dict[str, dict[str, int]] | None:
    found = dict.fromkeys(name for name in names if name)
    return {name: _counts(cases, [one == name for one in names]) for name in found} or None


def _counts(cases: Cases, chosen: Sequence[bool]) -> dict[str, int]:
    patients = [item["patient"] for item, take in zip(cases.items, chosen, strict=True) if take]
    return {"images": len(patients), "patients": len(set(patients))}


def _frequent(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _name(item: Mapping[str, Any], root: Path) -> str:
    name = _first(item).removeprefix(f"{root}/")
    return f"{name} {item['image_key']} {item['image_index']}" if "image_index" in item else name


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _first(item: Mapping[str, Any]) -> str:
    return item["image"] if isinstance(item["image"], str) else item["image"][0]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[k]) for row in texts) for k in range(len(head))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in texts
    ]
