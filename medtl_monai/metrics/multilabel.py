"""Metrics of findings that may stand together: each is a yes or no of its own, and may be unknown.

Everywhere ``N`` is the number of images, ``C`` of findings and ``R`` of resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bootstrap import add_intervals, patient_bootstrap
from .classification import CLASSIFICATION_METRICS, binary_values, check_finite, undefined_because

__all__ = ["check_findings", "finding_metrics", "part_findings"]

Array = NDArray[Any]


def check_findings(probabilities: ArrayLike, labels: ArrayLike, findings: Sequence[str]) -> tuple[Array, Array]:
    """Probabilities ``(N, C)`` and labels ``(N, C)`` as float64, once they are known to fit each other.

    Args:
        probabilities: of each finding, on its own, from 0 to 1.
        labels: 1 present, 0 absent, NaN unknown.
        findings: the C names.

    Raises:
        ValueError: shapes or values are wrong.
        UserError: a probability is not a finite number, which is what a diverged network gives.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    expected = (len(probabilities), len(findings))
    if probabilities.shape != expected or labels.shape != expected or not expected[0]:
        raise ValueError(
            f"Expected probabilities and labels of shape (N, {len(findings)}), N > 0, got {probabilities.shape} and "
            f"{labels.shape}."
        )
    if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        raise ValueError("Expected labels of 0, 1 or NaN (unknown).")
    check_finite(probabilities)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError("Expected probabilities from 0 to 1; were they passed through a sigmoid?")
    return probabilities, labels


def _values(probabilities: Array, labels: Array, weights: Array) -> Array:
    """All metrics of each finding, ``(R, C, 9)``, for images that count ``weights`` ``(R, N)`` times."""
    columns = []
    for p, y in zip(probabilities.T, labels.T, strict=True):
        known = ~np.isnan(y)
        unknown = np.full((len(weights), len(CLASSIFICATION_METRICS)), np.nan)
        columns.append(binary_values(p[known], y[known] == 1, weights[:, known]) if known.any() else unknown)
    return np.stack(columns, axis=1)


def finding_metrics(probabilities: ArrayLike, labels: ArrayLike, findings: Sequence[str]) -> dict[str, Any]:
    """Every metric of every finding on the images where it is known, and their means over the findings.

    A finding is predicted where its probability is above 0.5. The names are those of
    :func:`~medtl_monai.metrics.classification_metrics`. A metric that is undefined for a finding (none of its images
    shows it, say) is None with the reason; the mean is over the findings that have it, and ``left_out`` names the
    others.

    Args:
        probabilities: ``(N, C)``, each from 0 to 1.
        labels: ``(N, C)``, 1, 0 or NaN for unknown.
        findings: the C names.

    Returns:
        ``metrics``, ``per_class`` and ``confusion_matrix`` ``{finding: [[TN, FP], [FN, TP]]}``.

    Example:
        >>> found = finding_metrics([[0.9, 0.2], [0.1, 0.4]], [[1, 0], [0, float("nan")]], ["mass", "effusion"])
        >>> found["metrics"]["auc"]
        {'value': 1.0, 'left_out': ['effusion']}
        >>> found["per_class"]["effusion"]["auc"]
        {'value': None, 'reason': "no image of class 'effusion'"}
    """
    probabilities, labels = check_findings(probabilities, labels, findings)
    values = _values(probabilities, labels, np.ones((1, len(labels))))[0]
    per_class, matrices = {}, {}
    for name, row, p, y in zip(findings, values, probabilities.T, labels.T, strict=True):
        per_class[name] = _entries(name, row, present=int((y == 1).sum()))
        matrices[name] = [[int(((y == truth) & ((p > 0.5) == said)).sum()) for said in (0, 1)] for truth in (0, 1)]
    overall: dict[str, dict[str, Any]] = {}
    for metric, column in zip(CLASSIFICATION_METRICS, values.T, strict=True):
        left_out = [name for name, value in zip(findings, column, strict=True) if np.isnan(value)]
        if len(left_out) == len(findings):
            overall[metric] = {"value": None, "reason": "undefined for every finding"}
        else:
            overall[metric] = {"value": float(np.nanmean(column)), **({"left_out": left_out} if left_out else {})}
    return {"metrics": overall, "per_class": per_class, "confusion_matrix": matrices}


def _entries(name: str, values: Array, *, present: int) -> dict[str, dict[str, Any]]:
    """The metrics of one finding, which ``present`` images show, with a reason where one is undefined."""
    return {
        metric: {"value": None, "reason": undefined_because(metric, name, present)}
        if np.isnan(value)
        else {"value": float(value)}
        for metric, value in zip(CLASSIFICATION_METRICS, values, strict=True)
    }


def part_findings(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    findings: Sequence[str],
    *,
    seed: int,
    n_bootstrap: int = 1000,
) -> dict[str, Any]:
    """What ``metrics.json`` says of one part: :func:`finding_metrics` with patient-level intervals, ready for JSON.

    The counterpart of :func:`~medtl_monai.metrics.part_metrics`.

    Args:
        probabilities: ``(N, C)``, each from 0 to 1.
        labels: ``(N, C)``, 1, 0 or NaN for unknown.
        patients: ``(N,)``.
        findings: the C names.
        seed: of the resamples.
        n_bootstrap: how many.
    """
    probabilities, labels = check_findings(probabilities, labels, findings)
    found = finding_metrics(probabilities, labels, findings)
    defined = np.array([[entry["value"] is not None for entry in row.values()] for row in found["per_class"].values()])

    def statistic(weights: Array) -> Array:
        each = _values(probabilities, labels, weights)
        total = np.where(defined, each, 0).sum(axis=1, keepdims=True)
        return np.concatenate([total / np.where(defined.any(axis=0), defined.sum(axis=0), np.nan), each], axis=1)

    bootstrap = patient_bootstrap(statistic, patients, n=n_bootstrap, seed=seed)
    count = len(set(patients))
    rows = [found["metrics"], *found["per_class"].values()]
    add_intervals(rows, bootstrap, patients=count, resamples=n_bootstrap)
    return {"images": len(labels), "patients": count, "seed": seed, "resamples": n_bootstrap, **found}
