"""Metrics of classes that exclude each other.

Everywhere ``N`` is the number of images, ``C`` of classes and ``R`` of resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import CalibrationErrorMetric, compute_average_precision, compute_roc_auc
from monai.metrics.confusion_matrix import compute_confusion_matrix_metric
from numpy.typing import ArrayLike, NDArray

from ..utils import UserError
from .bootstrap import add_intervals, patient_bootstrap

__all__ = [
    "CALIBRATION_BINS",
    "CLASSIFICATION_METRICS",
    "calibration_error",
    "check_predictions",
    "classification_metrics",
    "part_metrics",
    "ranked_counts",
]

Array = NDArray[Any]

CALIBRATION_BINS = 15  # as in Guo et al. 2017
CONFUSION_METRICS = ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1")
CLASSIFICATION_METRICS = (*CONFUSION_METRICS, "auc", "average_precision", "ece")


def check_finite(probabilities: Array) -> None:
    """That the network has not diverged: probabilities ``(N, C)`` are numbers.

    Raises:
        UserError: some are not finite.
    """
    broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if broken:
        raise UserError(
            f"Expected probabilities, but the network gave values that are not finite for {broken} of "
            f"{len(probabilities)} images: it has diverged; lower the learning rate or switch mixed precision off."
        )


def check_predictions(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> tuple[Array, Array]:
    """Probabilities ``(N, C)`` as float64 and labels ``(N,)`` as int64, once they are known to fit each other.

    Raises:
        ValueError: shapes, label range or row sums are wrong.
        UserError: a probability is not a finite number, which is what a diverged network gives.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"Expected at least two classes with different names, got {list(classes)}.")
    if probabilities.ndim != 2 or probabilities.shape[1] != len(classes) or len(probabilities) == 0:
        raise ValueError(f"Expected probabilities of shape (N, {len(classes)}), N > 0, got {probabilities.shape}.")
    _check_labels(labels, len(probabilities), len(classes))
    check_finite(probabilities)
    if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > 0.01:  # room for half precision
        raise ValueError("Expected probabilities from 0 to 1 whose rows sum to 1; were they passed through softmax?")
    return probabilities, labels.astype(np.int64)


def _check_labels(labels: Array, images: int, classes: int) -> None:
    if labels.shape != (images,) or labels.dtype.kind not in "iu":
        raise ValueError(f"Expected {images} integer labels, got {labels.dtype} {labels.shape}.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"Expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}.")


def ranked_counts(scores: Array, truth: Array, weights: Array) -> tuple[Array, Array]:
    """True and false positives at every threshold, from the highest score to the lowest.

    They are the unscaled ROC curve. Equal scores share one threshold.

    Args:
        scores: ``(N,)``, higher for the positive class.
        truth: ``(N,)``, boolean.
        weights: ``(R, N)``, how often each image counts.

    Returns:
        Two arrays ``(R, T)``, ``T`` being the number of different scores.

    Example:
        >>> tp, fp = ranked_counts(np.array([0.9, 0.4, 0.4]), np.array([True, True, False]), np.ones((1, 3)))
        >>> tp.tolist(), fp.tolist()
        ([[1.0, 2.0]], [[0.0, 1.0]])
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    ranked = weights[:, order]
    true_positives = np.cumsum(ranked * truth[order], axis=1)[:, last_of_tie]
    return true_positives, np.cumsum(ranked, axis=1)[:, last_of_tie] - true_positives


def _ranking(scores: Array, truth: Array, weights: Array) -> tuple[Array, Array]:
    """AUC (trapezoids) and average precision (steps) under each row of ``weights``; NaN without both classes."""
    tp, fp = ranked_counts(scores, truth, weights)
    new_tp, new_fp = np.diff(tp, axis=1, prepend=0), np.diff(fp, axis=1, prepend=0)
    positives, negatives = tp[:, -1], fp[:, -1]
    undefined = np.where((positives > 0) & (negatives > 0), 0.0, np.nan)
    area = (new_fp * (tp - new_tp / 2)).sum(axis=1) / np.maximum(positives * negatives, 1)
    precision = tp / np.maximum(tp + fp, 1)
    return area + undefined, (new_tp * precision).sum(axis=1) / np.maximum(positives, 1) + undefined


def _calibration(confidence: Array, correct: Array, weights: Array) -> Array:
    """The twin of `calibration_error` for each row of ``weights``; its bins are MONAI's, rounding included."""
    edges = torch.linspace(0.0, 1.0 + torch.finfo(torch.float32).eps, CALIBRATION_BINS + 1)
    bins = torch.bucketize(torch.from_numpy(confidence).float(), edges[1:]).clamp(max=CALIBRATION_BINS - 1).numpy()
    gaps = np.eye(CALIBRATION_BINS)[bins] * (confidence - correct)[:, None]
    return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def calibration_error(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over 15 equal bins, weighted by images.

    ``ECE = sum_b n_b / N * |accuracy_b - confidence_b|``, from 0 (calibrated) to 1. MONAI computes it, in float32.
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Args:
        confidence: ``(N,)``, from 0 to 1.
        correct: ``(N,)``, whether the event that had this probability came true.

    Example:
        >>> round(calibration_error([0.9, 0.9, 0.6, 0.6], [True, True, True, False]), 6)  # (0.1 + 0.1) / 2
        0.1
    """
    metric = CalibrationErrorMetric(num_bins=CALIBRATION_BINS)
    pair = [torch.as_tensor(np.asarray(values, dtype=np.float64))[None, None] for values in (confidence, correct)]
    # the value of this call: aggregate() would wait for the other processes of a distributed training
    return float(metric(y_pred=pair[0], y=pair[1]))  # type: ignore[arg-type]


def _confusion(predicted: Array, labels: Array, classes: int, weights: Array) -> Array:
    """Confusion matrices ``(R, C, C)``, rows being the truth, under each row of ``weights``."""
    cells = np.eye(classes * classes)[labels * classes + predicted]
    return (weights @ cells).reshape(-1, classes, classes)


def _confusion_metrics(confusion: Array) -> Array:
    """`CONFUSION_METRICS` of matrices ``(R, C, C)`` as ``(R, 1 + C, 6)``: all classes first, then each one."""
    hits, total = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=(1, 2))
    wrongly, missed = confusion.sum(axis=1) - hits, confusion.sum(axis=2) - hits
    counts = torch.from_numpy(np.stack([hits, wrongly, total[:, None] - hits - wrongly - missed, missed], axis=-1))
    columns = [compute_confusion_matrix_metric(name.replace("f1", "f1 score"), counts) for name in CONFUSION_METRICS]
    per_class = torch.stack(columns, dim=-1).numpy()
    overall = per_class.mean(axis=1, keepdims=True)
    overall[:, 0, 0] = hits.sum(axis=1) / total
    overall[:, 0, 1] = overall[:, 0, CONFUSION_METRICS.index("recall")]
    return np.concatenate([overall, per_class], axis=1)


def _assemble(from_confusion: Array, auc: Sequence[Any], ap: Sequence[Any], ece: Sequence[Any]) -> Array:
    """All metrics as ``(R, 1 + C, 9)``; ``auc`` and ``ap`` have a value per class, ``ece`` the overall one first."""
    rest = [[np.mean(auc, axis=0), *auc], [np.mean(ap, axis=0), *ap], ece]
    columns = [np.stack(values, axis=-1).reshape(*from_confusion.shape[:2], 1) for values in rest]
    return np.concatenate([from_confusion, *columns], axis=-1)


def _values(probabilities: Array, labels: Array) -> Array:
    """All `CLASSIFICATION_METRICS`, ``(1 + C, 9)``, computed by MONAI; NaN where undefined."""
    classes = probabilities.shape[1]
    predicted, truths = probabilities.argmax(axis=1), [labels == k for k in range(classes)]
    confusion = _confusion(predicted, labels, classes, np.ones((1, len(labels))))

    def ranked(function: Callable[..., Any], k: int) -> float:
        if truths[k].all() or not truths[k].any():  # MONAI would warn
            return np.nan
        return float(function(torch.from_numpy(probabilities[:, k]), torch.from_numpy(truths[k]).long()))

    ece = [calibration_error(probabilities.max(axis=1), predicted == labels)]
    ece += [calibration_error(probabilities[:, k], truths[k]) for k in range(classes)]
    auc = [ranked(compute_roc_auc, k) for k in range(classes)]
    ap = [ranked(compute_average_precision, k) for k in range(classes)]
    return _assemble(_confusion_metrics(confusion), auc, ap, ece)[0]


def _resampled_values(probabilities: Array, labels: Array, weights: Array) -> Array:
    """The vectorised twin of `_values`, ``(R, 1 + C, 9)``, for images that count ``weights`` ``(R, N)`` times."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    auc, ap = zip(*(_ranking(probabilities[:, k], labels == k, weights) for k in range(classes)), strict=True)
    ece = [_calibration(probabilities.max(axis=1), predicted == labels, weights)]
    ece += [_calibration(probabilities[:, k], labels == k, weights) for k in range(classes)]
    return _assemble(_confusion_metrics(_confusion(predicted, labels, classes, weights)), auc, ap, ece)


def binary_values(probabilities: Array, truth: Array, weights: Array) -> Array:
    """All metrics of one yes or no, ``(R, 9)``: ``probabilities`` ``(N,)`` of yes, ``truth`` ``(N,)`` boolean."""
    confusion = _confusion((probabilities > 0.5).astype(int), truth.astype(int), 2, weights)
    with np.errstate(invalid="ignore"):  # a resample without any of these images: undefined
        ece = _calibration(probabilities, truth, weights)
    ranked = np.stack([*_ranking(probabilities, truth, weights), ece], axis=-1)
    return np.concatenate([_confusion_metrics(confusion)[:, 2], ranked], axis=-1)


def undefined_because(metric: str, name: str, count: int) -> str:
    """Why ``metric`` is undefined for the class ``name``, of which there are ``count`` images."""
    if metric == "precision":
        return f"no image was predicted as '{name}'"
    if metric == "f1":
        return f"no image is of class '{name}' or was predicted as it"
    return f"every image is of class '{name}'" if count else f"no image of class '{name}'"


def classification_metrics(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """Every metric of a classifier whose classes exclude each other, over all classes and per class.

    The prediction is the most probable class (of equals the first). Overall: ``accuracy`` is the share of correct
    images; ``balanced_accuracy`` the mean recall; ``precision``, ``recall``, ``specificity``, ``f1``, ``auc`` and
    ``average_precision`` are unweighted means of the one-against-the-rest values, so with two classes the mean recall,
    specificity and balanced accuracy agree: the usual sensitivity and specificity of a test are the positive class's;
    ``ece`` is the calibration of the most probable class (see `calibration_error`). Per class everything is
    one-against-the-rest, ``f1`` being ``2 TP / (2 TP + FP + FN)``.

    A metric whose denominator is 0 is undefined: recall of a class without images, precision of a class never
    predicted, AUC and average precision without both a positive and a negative. Its value is None and ``reason`` says
    why. A mean over classes of which one is undefined is undefined too.

    Args:
        probabilities: ``(N, C)``, rows summing to 1.
        labels: ``(N,)``, integers from 0 to C - 1.
        classes: the C names.

    Returns:
        ``metrics`` ``{name: {"value", "reason"?}}``, ``per_class`` ``{class: {name: ...}}``, and ``confusion_matrix``
        ``C x C`` counts with the truth in rows.

    Example:
        >>> found = classification_metrics([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7]], [0, 0, 1], ["benign", "cancer"])
        >>> found["metrics"]["balanced_accuracy"], found["per_class"]["cancer"]["precision"]
        ({'value': 0.75}, {'value': 0.5})
        >>> found["confusion_matrix"]
        [[1, 1], [0, 1]]
    """
    probabilities, labels = check_predictions(probabilities, labels, classes)
    overall, *per_class = _values(probabilities, labels)
    confusion = _confusion(probabilities.argmax(axis=1), labels, len(classes), np.ones((1, len(labels))))[0].astype(int)

    def entries(values: Array, names: Sequence[str]) -> dict[str, Any]:
        return {
            metric: entry(metric, value, names) for metric, value in zip(CLASSIFICATION_METRICS, values, strict=True)
        }

    def entry(metric: str, value: float, names: Sequence[str]) -> dict[str, Any]:
        if not np.isnan(value):
            return {"value": float(value)}
        if len(names) > 1:  # a mean: collect the reasons of its classes
            source = CLASSIFICATION_METRICS.index("recall" if metric == "balanced_accuracy" else metric)
            names = [name for name, row in zip(classes, per_class, strict=True) if np.isnan(row[source])]
            metric = CLASSIFICATION_METRICS[source]
        reasons = [undefined_because(metric, name, confusion[classes.index(name)].sum()) for name in names]
        return {"value": None, "reason": "; ".join(reasons)}

    return {
        "metrics": entries(overall, classes),
        "per_class": {name: entries(values, [name]) for name, values in zip(classes, per_class, strict=True)},
        "confusion_matrix": confusion.tolist(),
    }


def part_metrics(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    classes: Sequence[str],
    *,
    seed: int,
    n_bootstrap: int = 1000,
) -> dict[str, Any]:
    """What ``metrics.json`` says of one part ("train", "val", "test"), ready for JSON.

    `classification_metrics`, each entry with its 95% ``interval`` ``[low, high]`` from `patient_bootstrap` (None and a
    ``reason`` if there is none) and ``undefined_resamples``; besides ``images``, ``patients``, ``seed`` and
    ``resamples``.

    Args:
        probabilities: ``(N, C)``, rows summing to 1.
        labels: ``(N,)``, integers from 0 to C - 1.
        patients: ``(N,)``.
        classes: the C names.
        seed: of the resamples.
        n_bootstrap: how many.

    Raises:
        ValueError: the arguments do not fit each other.
        UserError: a probability is not a finite number.
    """
    probabilities, labels = check_predictions(probabilities, labels, classes)
    if len(patients) != len(labels):
        raise ValueError(f"Expected one patient for each of the {len(labels)} images, got {len(patients)}.")
    found = classification_metrics(probabilities, labels, classes)
    bootstrap = patient_bootstrap(
        lambda weights: _resampled_values(probabilities, labels, weights), patients, n=n_bootstrap, seed=seed
    )
    count = len(set(patients))
    rows = [found["metrics"], *found["per_class"].values()]
    add_intervals(rows, bootstrap, patients=count, resamples=n_bootstrap)
    return {"images": len(labels), "patients": count, "seed": seed, "resamples": n_bootstrap, **found}
