"""Segmentation metrics per structure, per slice and per patient, with patient-level confidence intervals.

The metrics are MONAI's, or equal to them in less time. What stands here is what becomes of structures that are absent,
the averages over patients, and volumes. Everywhere ``N`` is the number of masks (slices, or whole cases), ``K`` of
structures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.metrics import MAEMetric, MSEMetric, compute_dice, compute_iou
from monai.networks import one_hot
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from .bootstrap import patient_bootstrap

__all__ = [
    "SEGMENTATION_METRICS",
    "ejection_fractions",
    "hausdorff_95",
    "measure",
    "summarize",
    "surface_distances",
    "volumes_ml",
]

Array = NDArray[Any]

SEGMENTATION_METRICS = ("dice", "iou", "hd95", "surface_distance", "volume_error_ml", "mae", "mse", "false_positives")


def measure(
    prediction: Tensor,
    label: Tensor,
    probabilities: Tensor,
    *,
    spacing: Sequence[float] | None = None,
    thickness: float = 1.0,
) -> Array:
    """All :data:`SEGMENTATION_METRICS` of each mask and structure, NaN where one is undefined.

    ``dice`` and ``iou`` (0 to 1) of a structure that is absent are 0 if it is predicted (a false positive) and
    undefined if it is not: empty slices neither raise nor lower the mean. ``hd95`` (95th percentile of the Hausdorff
    distance) and ``surface_distance`` (mean, symmetric), in mm, or pixels without a spacing, need the structure in
    both masks. ``volume_error_ml`` is the absolute difference of volumes and needs a spacing. ``mae`` and ``mse`` are
    the mean absolute and squared difference of probability and truth over all pixels. ``false_positives`` is 1 where
    an absent structure is predicted, 0 where it is not, and undefined where it is present: its mean is the share of
    masks without the structure that show it.

    Args:
        prediction: classes, ``(N, *spatial)``, whole numbers.
        label: the truth, likewise.
        probabilities: ``(N, 1 + K, *spatial)``, the background first.
        spacing: of the pixels or voxels in mm, one number an axis.
        thickness: of two-dimensional masks in mm, for their volume.

    Returns:
        ``(N, K, 8)``.

    Example:
        >>> truth, found = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 0, 0]]])
        >>> certain = one_hot(found[:, None], 2)
        >>> round(measure(found, truth, certain)[0, 0, SEGMENTATION_METRICS.index("dice")].item(), 3)  # 2 * 1 / (1 + 2)
        0.667
    """
    classes = probabilities.shape[1]
    pred, true = (one_hot(masks[:, None].float(), classes)[:, 1:] for masks in (prediction, label))
    flat = probabilities[:, 1:].float().flatten(0, 1)[:, None], true.flatten(0, 1)[:, None]
    shape = pred.shape[:2]
    inside, wanted = (masks.flatten(2).any(-1) for masks in (pred, true))
    absent = ~(inside | wanted)
    hd95, surface = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    masks = [found.bool().cpu().numpy() for found in (pred, true)]
    for n, k in (inside & wanted).nonzero().tolist():
        distances = surface_distances(masks[0][n, k], masks[1][n, k], spacing)
        hd95[n, k] = hausdorff_95(*distances)
        surface[n, k] = torch.cat(distances).mean()
    difference = (pred.flatten(2).sum(-1) - true.flatten(2).sum(-1)).abs()
    columns = [
        compute_dice(pred, true, ignore_empty=False).masked_fill(absent, torch.nan),
        compute_iou(pred, true, ignore_empty=False).masked_fill(absent, torch.nan),
        hd95,
        surface,
        difference * (float(np.prod(spacing)) * thickness / 1000 if spacing else torch.nan),
        cast("Tensor", MAEMetric()(*flat)).reshape(shape),
        cast("Tensor", MSEMetric()(*flat)).reshape(shape),
        inside.float().masked_fill(wanted, torch.nan),
    ]
    return torch.stack(columns, -1).double().numpy()


def surface_distances(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Distance from every surface point of each mask to the other's nearest one; both masks must hold something.

    A mask's surface are its points with a neighbour along an axis outside of it. The values are those behind MONAI's
    ``compute_hausdorff_distance`` and ``compute_average_surface_distance``; only points that the surfaces do not share
    are searched for.

    Args:
        prediction: ``(*spatial)``.
        truth: likewise.
        spacing: in mm along each axis; ``None``: 1.

    Returns:
        From the prediction's surface to the truth's, and back, float32, each mask's points in any order.

    Example:
        >>> one, two = np.zeros((2, 1, 9), dtype=bool)
        >>> one[0, 2], two[0, [2, 6]] = True, True
        >>> [found.tolist() for found in surface_distances(one, two, [1.0, 0.5])]
        [[0.0], [0.0, 2.0]]
    """
    box = _bounding_box(prediction | truth)
    edges = [_surface(mask[box]) for mask in (prediction, truth)]
    shared = edges[0] & edges[1]
    scale = np.ones(truth.ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    found = []
    for edge, other in zip(edges, reversed(edges), strict=True):
        away = _distances(np.argwhere(edge & ~shared), other, scale)
        found.append(torch.from_numpy(np.concatenate([np.zeros(int(shared.sum())), away]).astype(np.float32)))
    return found[0], found[1]


def _distances(points: NDArray[np.int64], edge: NDArray[np.bool_], scale: Array) -> Array:
    """From each of ``points`` ``(n, dims)``, none of which is on ``edge``, to its nearest point.

    Prediction and truth lie close together: of a volume's many points the neighbours are looked at in the order of
    their distance first, and those that have none among the nearest hundred are left to a search tree.
    """
    found, left = np.full(len(points), np.nan), np.arange(len(points))
    if len(points) > 1000:
        sides = (6 * scale.min() / scale).astype(int)
        around = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in sides), indexing="ij"), -1)
        offsets = around.reshape(-1, len(sides))
        distances = np.sqrt(((offsets * scale) ** 2).sum(1))
        order = np.argsort(distances, kind="stable")[: min(101, np.count_nonzero(distances <= 6 * scale.min()))]
        padded = np.pad(edge, [(n, n) for n in sides])
        strides = np.array(padded.strides)  # of one byte each
        is_edge, steps, places = padded.ravel(), offsets @ strides, (points + sides) @ strides
        for k in order[1:]:
            hit = is_edge[places + steps[k]]
            found[left[hit]] = distances[k]
            left, places = left[~hit], places[~hit]
    if len(left):
        tree = KDTree(
            np.argwhere(edge) * scale, leafsize=32, balanced_tree=False, compact_nodes=False
        )  # quick to build
        found[left] = tree.query(points[left] * scale)[0]
    return found


def hausdorff_95(*distances: Tensor) -> float:
    """95th percentile of the Hausdorff distance: the larger of both directions', from :func:`surface_distances`."""
    return max(float(torch.quantile(found, 0.95)) for found in distances)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(filled[0], filled[-1] + 1))
    return tuple(box)


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without its erosion by the cross of direct neighbours; outside the array there is nothing."""
    inner = np.pad(mask[tuple(slice(1, -1) for _ in mask.shape)], 1)[tuple(map(slice, mask.shape))]
    for axis in range(mask.ndim):
        along = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        along[1][1:] &= along[0][:-1]
        along[1][:-1] &= along[0][1:]
    return mask & ~inner


def volumes_ml(mask: Tensor, structures: int, spacing: Sequence[float]) -> list[float]:
    """Volume of each structure (1 to ``structures``) of a label map ``(H, W, D)``, in ml; ``spacing`` in mm.

    Example:
        >>> volumes_ml(torch.tensor([[[1, 1], [0, 2]]]), 2, [10.0, 10.0, 10.0])
        [2.0, 1.0]
    """
    voxel = float(np.prod(spacing)) / 1000
    return [round(float((mask == k).sum()) * voxel, 6) for k in range(1, structures + 1)]


def ejection_fractions(volumes: Mapping[tuple[str, str], float]) -> dict[str, float]:
    r"""Share of the blood that each patient's ventricle pumps out, :math:`(V_{ED} - V_{ES}) / V_{ED}`.

    Args:
        volumes: by patient and frame (``ED`` or ``ES``, in any case), in ml.

    Returns:
        By patient, for those who have both frames and a volume above 0 in diastole.

    Example:
        >>> ejection_fractions({("p1", "ED"): 120.0, ("p1", "ES"): 50.0, ("p2", "ED"): 90.0})
        {'p1': 0.5833333333333334}
    """
    known = {(patient, frame.upper()): volume for (patient, frame), volume in volumes.items()}
    ends = {patient: volume for (patient, frame), volume in known.items() if frame == "ED" and volume > 0}
    return {p: (v - known[p, "ES"]) / v for p, v in ends.items() if (p, "ES") in known}


def summarize(
    values: Array,
    patients: Sequence[str],
    structures: Sequence[str],
    *,
    by_patient: bool = False,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> dict[str, Any]:
    """Means of the metrics per structure and over the structures, with 95% intervals that resample patients.

    Undefined values are left out of a mean. A metric without any value is None, with the reason; so is a mean over
    structures of which one is None.

    Args:
        values: ``(N, K, 8)`` from :func:`measure`.
        patients: of each mask.
        structures: K names.
        by_patient: average each patient's masks first, so that every patient counts the same.
        seed: of the bootstrap.
        n_bootstrap: number of resamples.

    Returns:
        ``metrics`` ``{name: {"value", "interval", "undefined_resamples", "reason"?}}`` and ``per_structure``
        ``{structure: {name: ...}}``.
    """
    if by_patient:
        names, of = np.unique(np.asarray(patients), return_inverse=True)
        values, patients = _weighted(values, np.eye(len(names))[of].T), names.tolist()

    def means(weights: Array) -> Array:
        each = _weighted(values, weights)
        return np.concatenate([each.mean(1, keepdims=True), each], axis=1)

    found = means(np.ones((1, len(values))))[0]
    low, high, undefined = patient_bootstrap(means, patients, n=n_bootstrap, seed=seed)
    few = len(set(patients)) < 2

    def entry(row: int, column: int) -> dict[str, Any]:
        value, missing = found[row, column], int(undefined[row, column])
        interval = None if np.isnan(low[row, column]) else [float(low[row, column]), float(high[row, column])]
        result: dict[str, Any] = {"value": float(value), "interval": interval, "undefined_resamples": missing}
        if np.isnan(value):
            which = [row - 1] if row else np.flatnonzero(np.isnan(found[1:, column])).tolist()
            reasons = [_reason(SEGMENTATION_METRICS[column], structures[k]) for k in which]
            result |= {"value": None, "interval": None, "reason": "; ".join(dict.fromkeys(reasons))}
        elif interval is None:
            why = "fewer than two patients" if few else f"undefined in {missing} of {n_bootstrap} resamples"
            result["reason"] = f"no interval: {why}"
        return result

    tables = [
        {name: entry(row, i) for i, name in enumerate(SEGMENTATION_METRICS)} for row in range(len(structures) + 1)
    ]
    return {"metrics": tables[0], "per_structure": dict(zip(structures, tables[1:], strict=True))}


def _weighted(values: Array, weights: Array) -> Array:
    """Means ``(R, K, M)`` of what is defined, under weights ``(R, N)``."""
    defined = ~np.isnan(values)
    flat = np.where(defined, values, 0.0).reshape(len(values), -1)
    counts = weights @ defined.reshape(len(values), -1)
    sums = np.where(counts > 0, weights @ flat, np.nan) / np.maximum(counts, 1e-12)
    return sums.reshape(len(weights), *values.shape[1:])


def _reason(metric: str, structure: str) -> str:
    if metric == "volume_error_ml":
        return "the spacing is not known"
    if metric == "false_positives":
        return "no mask is without the structure"
    where = "both label and prediction" if metric in ("hd95", "surface_distance") else "label or prediction"
    return f"no mask has the {structure} in {where}"
