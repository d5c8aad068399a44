"""Leakage audit: patients and images that stand in more than one part of a split."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..utils import UserError, write_json
from .cases import present_classes
from .read.arrays import stored_in

__all__ = ["LeakageReport", "audit", "perceptual_hash", "raise_on_shared_patients"]

_SIDE, _LOW = 32, 8
_LISTED = 100  # pairs written to the report; all are counted


@dataclass(frozen=True)
class LeakageReport:
    """What the parts of a split share.

    Attributes:
        parts: numbers of images, patients and classes of each part.
        shared_patients: patients in more than one part.
        near_duplicates: pairs of images in different parts whose hashes differ in at most ``max_distance`` bits: the
            two paths, their parts, the distance, and whether the files are the same; the nearest first, at most 100.
        near_duplicate_count: how many there are.
        max_distance: in bits, of 64.
        verdict: the result in one sentence.
    """

    parts: dict[str, dict[str, int]]
    shared_patients: list[str]
    near_duplicates: list[dict[str, Any]]
    near_duplicate_count: int
    max_distance: int
    verdict: str

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))


def perceptual_hash(image: ArrayLike) -> int:
    """64 bits that hardly change when an image is compressed, rescaled or made brighter.

    The image ``(H, W)`` is averaged down to 32 x 32; the 8 x 8 lowest frequencies of its cosine transform (type II)
    are compared with their median (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010).

    Example:
        >>> x = np.random.default_rng(0).random((64, 64))
        >>> perceptual_hash(x) == perceptual_hash(3 * x + 7)
        True
    """
    small = _shrink(np.asarray(image, dtype=np.float64))
    low = _DCT[:_LOW] @ small @ _DCT[:_LOW].T
    low[0, 0] = 0.0  # the mean brightness says nothing
    bits = (low > np.median(low)).ravel()
    return int(np.packbits(bits).view(">u8")[0])


def audit(
    items: Sequence[Mapping[str, Any]], parts: Sequence[str], hashes: Mapping[str, int], *, max_distance: int = 4
) -> LeakageReport:
    """Look for patients and near-duplicate images in more than one part.

    Slices of one patient often differ by more than ``max_distance``, so that the absence of near-duplicates proves
    nothing; their presence tells of copies. With 4 bits, validation splits of 960 real brain slices by blocks of
    patients show no pair, and splits by slice 7 to 13; with 6 bits, different patients begin to look alike (11 to 14).
    Chest radiographs are more alike: 12 pairs with 4 bits between different patients in 1,500 images, none with 2.

    Args:
        items: with ``image``, ``patient`` and ``label``.
        parts: the part of each.
        hashes: by image path, from :func:`medtl_monai.data.check_readable`.
        max_distance: bits in which hashes of near-duplicates differ at most.
    """
    where: dict[str, set[str]] = defaultdict(set)
    chosen: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for item, part in zip(items, parts, strict=True):
        where[str(item["patient"])].add(part)
        chosen[part].append(item)
    shared = sorted(patient for patient, names in where.items() if len(names) > 1)
    pairs, count = _near_pairs(items, parts, hashes, max_distance)
    counts = {name: _counts(of) for name, of in chosen.items()}
    if len(counts) < 2:
        verdict = "a single part: nothing to compare."
    else:
        verdict = (
            f"{len(shared) or 'no'} patients and {count or 'no'} near-duplicate images (hashes within "
            f"{max_distance} of 64 bits) are shared by {' and '.join(counts)}."
        )
        copies = sum(pair["same_file"] for pair in pairs)
        if copies:
            verdict += f" {copies} of the {len(pairs)} pairs listed are copies of one file."
    return LeakageReport(counts, shared, pairs, count, max_distance, verdict)


def _counts(items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "images": len(items),
        "patients": len({str(item["patient"]) for item in items}),
        "classes": len({k for item in items for k in present_classes(item["label"])}),
    }


def raise_on_shared_patients(report: LeakageReport) -> None:
    """Stop where a patient stands in two parts.

    Raises:
        UserError: naming some.
    """
    if report.shared_patients:
        names = ", ".join(report.shared_patients[:3]) + " ..." * (len(report.shared_patients) > 3)
        raise UserError(
            f"{len(report.shared_patients)} patients stand in more than one part ({names}), so that scores would be "
            "too good: correct the split column, or give --allow_shared_patients true."
        )


def _near_pairs(
    items: Sequence[Mapping[str, Any]], parts: Sequence[str], hashes: Mapping[str, int], most: int
) -> tuple[list[dict[str, Any]], int]:
    """The nearest pairs, and how many there are."""
    codes = np.array([hashes[str(item["image"])] for item in items], dtype=np.uint64)
    names = sorted(set(parts))
    part = np.array([names.index(name) for name in parts])
    nearest: list[tuple[int, int, int]] = []
    count = 0
    for i in range(len(items)):  # row by row, and no more pairs kept than listed, so that memory stays small
        distance = np.bitwise_count(codes[i] ^ codes[i + 1 :])
        found = np.flatnonzero((distance <= most) & (part[i + 1 :] != part[i]))
        if len(found):
            count += len(found)
            found = found[np.argsort(distance[found], kind="stable")][:_LISTED]
            nearest = sorted(nearest + [(int(distance[j]), i, i + 1 + int(j)) for j in found])[:_LISTED]
    return [_pair(items[i]["image"], items[j]["image"], parts[i], parts[j], d) for d, i, j in nearest], count


def _pair(one: str, other: str, part: str, other_part: str, distance: int) -> dict[str, Any]:
    files = [str(stored_in(name)) for name in (one, other)]
    within = [name.removeprefix(file) for name, file in zip((one, other), files, strict=True)]
    same = distance == 0 and within[0] == within[1] and filecmp.cmp(files[0], files[1], shallow=False)
    return {"images": [one, other], "parts": [part, other_part], "distance": distance, "same_file": same}


def _shrink(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Averages over a 32 x 32 grid; the image is repeated first where it has fewer pixels."""
    for axis in (0, 1):
        n = image.shape[axis]
        if n < _SIDE:
            image = np.repeat(image, -(-_SIDE // n), axis)
            n = image.shape[axis]
        edges = np.arange(_SIDE) * n // _SIDE
        widths = np.diff(np.append(edges, n)).reshape((-1, 1) if axis == 0 else (1, -1))
        image = np.add.reduceat(image, edges, axis) / widths
    return image


def _dct_matrix() -> NDArray[np.float64]:
    k, n = np.arange(_SIDE)[:, None], np.arange(_SIDE)[None]
    return np.cos(np.pi * k * (2 * n + 1) / (2 * _SIDE))


_DCT = _dct_matrix()
