"""How well a pretrained network may transfer, from its features of labelled images: scores, and controls beside them.

No score reliably tells which network will do best on medical images (Chaves et al. 2023): read each with its
uncertainty and with the controls, a linear probe and nearest neighbours, tested on patients they have not seen.

Everywhere ``N`` is the number of images, ``F`` of features, ``C`` of classes and ``Z`` of the source's classes. Higher
scores promise more, and compare networks on the same images only.

References:
    Chaves, Bissoto, Valle, Avila. The performance of transferability metrics does not translate to medical tasks.
    DART, MICCAI workshop 2023. arXiv:2308.07444.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from .fewshot import linear_probe, nearest_neighbours
from .metrics import part_metrics
from .solvers import gaussian_mixture, ledoit_wolf
from .utils import UserError

__all__ = [
    "assess",
    "control_probabilities",
    "gbc",
    "h_score",
    "leep",
    "logme",
    "nleep",
    "patient_halves",
    "shuffle_labels",
]

Array = NDArray[Any]

_COMPONENTS = 5  # Gaussians of NLEEP for each class (Li et al. 2021)
_ENERGY = 0.8  # share of the variance that NLEEP keeps (Li et al. 2021)
_DIMENSIONS = 64  # principal components that GBC keeps (Pandy et al. 2022)
_NEIGHBOURS, _HALVES, _SHUFFLES = 5, 30, 5


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    r"""LogME: largest log evidence of a Bayesian linear model from the features to the classes, in nats an image.

    .. math:: \frac{1}{NC} \sum_c \max_{\alpha, \beta} \log \int
        p(y_c | F w, \beta^{-1} I) \, p(w | \alpha^{-1} I) \, dw

    with :math:`y_c` 1 for the images of class c and 0 for the others. For a given ratio of :math:`\alpha` to
    :math:`\beta` the best :math:`\beta` is known, so that only the ratio is searched for.

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``, integers.

    Returns:
        Any number; that of features which say nothing depends on the classes' shares.

    Raises:
        UserError: features that are not finite, or fewer than two images in one of two or more classes.

    References:
        You, Liu, Wang, Long. LogME: practical assessment of pre-trained models for transfer learning. ICML 2021.
    """
    x, y = _checked(features, labels)
    eigenvalues, left = _spectrum(x)
    return float(np.mean([_evidence(eigenvalues, left, y == k) for k in np.unique(y)]))


def _evidence(eigenvalues: Array, left: Array, truth: Array) -> float:
    n, squares = len(truth), (left.T @ truth) ** 2
    outside = max(truth.sum() - squares.sum(), 0.0)  # what no weights can explain

    def negative(log_ratio: ArrayLike) -> Array:
        gains = eigenvalues / np.exp(np.asarray(log_ratio))[..., None]
        error = (squares / (1 + gains)).sum(-1) + outside
        return (np.log(2 * np.pi * error / n) + 1 + np.log1p(gains).sum(-1) / n) / 2

    grid = np.log(eigenvalues.max()) + np.linspace(-25, 15, 81)
    best = int(np.argmin(negative(grid)))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return -float(minimize_scalar(negative, bounds=around, method="bounded").fun)


def leep(probabilities: ArrayLike, labels: ArrayLike) -> float:
    r"""LEEP: mean log probability of each image's class, as the source's classes predict it, in nats.

    .. math:: \frac{1}{N} \sum_i \log \sum_z P(y_i | z) \, \theta_z(x_i), \quad
        P(y | z) = \frac{\sum_{i: y_i = y} \theta_z(x_i)}{\sum_i \theta_z(x_i)}

    Args:
        probabilities: ``(N, Z)``, :math:`\theta`: of the source's own classes, rows summing to 1.
        labels: ``(N,)``, integers.

    Returns:
        At most 0; at least about the negative entropy of the labels, where the source's classes say nothing.

    Raises:
        UserError: the rows do not sum to 1, or are not as many as labels.

    Example:
        >>> round(leep([[1.0, 0.0], [0.5, 0.5]], [0, 1]), 4)  # P(0|z) is 2/3 and 0: (log 2/3 + log 2/3) / 2
        -0.4055

    References:
        Nguyen, Hassner, Seeger, Archambeau. LEEP: a new measure to evaluate transferability of learned representations.
        ICML 2020.
    """
    theta, y = np.asarray(probabilities, dtype=float), np.unique(np.asarray(labels), return_inverse=True)[1]
    if theta.ndim != 2 or len(theta) != len(y) or theta.min() < 0 or np.abs(theta.sum(1) - 1).max() > 1e-3:
        raise UserError("leep needs one row of probabilities, which sum to 1, for each image: apply a softmax.")
    joint = np.eye(y.max() + 1)[y].T @ theta
    given = joint / np.maximum(theta.sum(0), np.finfo(float).tiny)
    return float(np.log((theta * given[y]).sum(1)).mean())


def nleep(features: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> float:
    """NLEEP: :func:`leep` with the parts of a Gaussian mixture of the features for the source's classes, in nats.

    The mixture has five parts a class, on the principal components that hold 80% of the variance. Its covariances are
    diagonal, as full ones have more entries than a few hundred images can tell.

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``, integers.
        seed: of the mixture's start.

    Returns:
        At most 0, as of :func:`leep`.

    Raises:
        UserError: as of :func:`logme`.

    References:
        Li, Jia, Sang, Zhu, Green, Wang, Gong. Ranking neural checkpoints. CVPR 2021.
    """
    x, y = _checked(features, labels)
    eigenvalues, left = _spectrum(x - x.mean(0))
    count = int(np.searchsorted(np.cumsum(eigenvalues), _ENERGY * eigenvalues.sum())) + 1
    coordinates = left[:, :count] * np.sqrt(eigenvalues[:count])
    return leep(gaussian_mixture(coordinates, min(_COMPONENTS * len(np.unique(y)), len(y)), seed), y)


def h_score(features: ArrayLike, labels: ArrayLike, *, shrinkage: bool = False) -> float:
    r"""H-score: how much of the features' variance lies between the classes, relative to all of it.

    .. math:: \operatorname{tr}(\operatorname{cov}(f)^{+} \operatorname{cov}(E[f | y]))

    With at least as many features as images it is C - 1 whatever they say. ``shrinkage`` puts that right in part:
    :math:`\operatorname{cov}(f)` gives way to the estimate of Ledoit and Wolf, :math:`(1 - a) \operatorname{cov}(f) +
    a \mu I`, and the class means' part is scaled by 1 - a. Compare with :func:`shuffle_labels`.

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``, integers.
        shrinkage: for fewer than some ten images a feature.

    Returns:
        From 0 (the classes have the same mean) to C - 1.

    Raises:
        UserError: as of :func:`logme`.

    References:
        Bao et al. An information-theoretic approach to transferability in task transfer learning. ICIP 2019. Ibrahim,
        Ponomareva, Mazumder. Newer is not always better: rethinking transferability metrics, their peculiarities,
        stability and performance. ECML PKDD 2022. Ledoit, Wolf. A well-conditioned estimator for large-dimensional
        covariance matrices. Journal of Multivariate Analysis 88(2), 2004.
    """
    x, y = _checked(features, labels)
    x = x - x.mean(0)
    eigenvalues, left = _spectrum(x)
    truth = np.eye(y.max() + 1)[y]
    between = ((left.T @ truth) ** 2 / truth.sum(0)).sum(1)  # along each principal axis, in units of its variance
    a, mean = ledoit_wolf(x, eigenvalues) if shrinkage else (0.0, 0.0)
    return float((between * (1 - a) * eigenvalues / ((1 - a) * eigenvalues + a * mean * len(x))).sum())


def gbc(features: ArrayLike, labels: ArrayLike) -> float:
    r"""GBC: how much the classes overlap, each taken for a Gaussian, negative.

    .. math:: -\sum_{i \ne j} e^{-D_{ij}}, \quad D_{ij} = \frac{|\mu_i - \mu_j|^2}{8 s_{ij}} +
        \frac{d}{2} \log \frac{s_{ij}}{\sqrt{s_i s_j}}, \quad s_{ij} = \frac{s_i + s_j}{2}

    with the mean :math:`\mu_c` and the variance :math:`s_c`, the same in all directions, of class c in the first
    d = 64 principal components.

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``, integers.

    Returns:
        From -C (C - 1), where the classes are alike, to 0, where they are apart.

    Raises:
        UserError: as of :func:`logme`.

    Example:
        >>> round(gbc([[-1.0], [1.0], [3.0], [5.0]], [0, 0, 1, 1]), 4)  # variances 1, means 4 apart: -2 exp(-16 / 8)
        -0.2707

    References:
        Pandy, Agostinelli, Uijlings, Ferrari, Mensink. Transferability estimation using Bhattacharyya class
        separability. CVPR 2022.
    """
    x, y = _checked(features, labels)
    eigenvalues, left = _spectrum(x - x.mean(0))
    coordinates = left[:, :_DIMENSIONS] * np.sqrt(eigenvalues[:_DIMENSIONS])
    count, least = coordinates.shape[1], 1e-9 * coordinates.var(0).mean()
    groups = [coordinates[y == k] for k in np.unique(y)]
    means = np.stack([group.mean(0) for group in groups])
    variances = np.array([group.var(0).mean() + least for group in groups])
    both = (variances[:, None] + variances) / 2
    apart = ((means[:, None] - means) ** 2).sum(-1) / (8 * both)
    distances = apart + count / 2 * np.log(both / np.sqrt(variances[:, None] * variances))
    return float(len(groups) - np.exp(-distances).sum())


def control_probabilities(features: ArrayLike, labels: ArrayLike, folds: ArrayLike, classes: int) -> dict[str, Array]:
    """Probabilities ``(N, classes)`` of each image by a ``linear_probe`` and by ``knn``, learnt from the other folds.

    Args:
        features: ``(N, F)``; for the probe they are standardized by the other folds.
        labels: ``(N,)``, integers.
        folds: ``(N,)``, the fold of each image, as :func:`medtl_monai.data.fold_patients` gives them.
        classes: how many.
    """
    x, y, where = np.asarray(features, dtype=float), np.asarray(labels), np.asarray(folds)
    found = {name: np.empty((len(y), classes)) for name in ("linear_probe", "knn")}
    for fold in np.unique(where):
        held, rest = where == fold, where != fold
        mean, std = x[rest].mean(0), np.maximum(x[rest].std(0), 1e-9)
        weights, offsets = linear_probe((x[rest] - mean) / std, y[rest], classes)
        found["linear_probe"][held] = softmax((x[held] - mean) / std @ weights.T + offsets, axis=1)
        k = min(_NEIGHBOURS, int(rest.sum()))
        found["knn"][held] = nearest_neighbours(x[held], x[rest], y[rest], classes, k=k)
    return found


def patient_halves(
    statistic: Callable[[Array], float], labels: ArrayLike, patients: ArrayLike, *, n: int = _HALVES, seed: int = 0
) -> float:
    """Standard error of a statistic, from its values on random halves of the patients with all their images.

    The spread over halves without replacement estimates the error of the whole (the jackknife that leaves out half).
    A bootstrap would not do: it draws patients twice, and to a score copies are images that agree perfectly, so that
    its resamples score too high.

    Args:
        statistic: of the indices of the drawn images.
        labels: ``(N,)``, integers; halves with fewer than two images of a class are left out.
        patients: ``(N,)``.
        n: number of halves.
        seed: of the draw.

    Returns:
        NaN if more than half of the draws were left out.

    References:
        Shao, Wu. A general theory for jackknife variance estimation. Annals of Statistics 17(3), 1989.
    """
    ids, who = np.unique(np.asarray(patients), return_inverse=True)
    y, rng = np.unique(np.asarray(labels), return_inverse=True)[1], np.random.default_rng(seed)
    draws = (np.flatnonzero(np.isin(who, rng.permutation(len(ids))[: len(ids) // 2])) for _ in range(n))
    values = [statistic(i) for i in draws if np.bincount(y[i], minlength=y.max() + 1).min() >= 2]
    return float(np.std(values)) if len(values) > n / 2 else float("nan")


def shuffle_labels(labels: ArrayLike, patients: ArrayLike, *, seed: int = 0) -> Array:
    """The same labels, ``(N,)``, given to other patients: a score of these is what features give that say nothing.

    The images of a patient stay together: that they resemble each other must not count for the network.

    Args:
        labels: ``(N,)``.
        patients: ``(N,)``.
        seed: of the order.

    Example:
        >>> shuffle_labels([0, 0, 1, 1, 2, 2], ["a", "a", "b", "b", "c", "c"], seed=2).tolist()
        [0, 0, 2, 2, 1, 1]
    """
    y, rng = np.asarray(labels), np.random.default_rng(seed)
    ids, who = np.unique(np.asarray(patients), return_inverse=True)
    given, taken = (np.argsort(rng.permutation(len(ids))[who], kind="stable") for _ in range(2))
    shuffled = np.empty_like(y)
    shuffled[taken] = y[given]
    return shuffled


def assess(
    features: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    folds: ArrayLike,
    classes: Sequence[str],
    *,
    source_probabilities: ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All scores of one network, each with its uncertainty, and the controls, ready for JSON.

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``, from 0 to C - 1.
        patients: ``(N,)``.
        folds: ``(N,)``, as :func:`medtl_monai.data.fold_patients` gives them.
        classes: the C names.
        source_probabilities: ``(N, Z)``, for :func:`leep`.
        seed: of all draws.

    Returns:
        ``controls``: ``linear_probe_auc``, ``linear_probe_balanced_accuracy`` and ``knn_accuracy`` with 95% intervals
        by a bootstrap of the patients; ``scores``: each with the 95% ``interval`` that :func:`patient_halves` gives,
        and the mean of the scores of ``shuffled`` labels. What is undefined is None with the ``reason``.

    Raises:
        UserError: as of :func:`logme`.
    """
    x, y = _checked(features, labels)[0], np.asarray(labels)
    controls = {
        name: part_metrics(p, y, patients, classes, seed=seed)["metrics"]
        for name, p in control_probabilities(x, y, folds, len(classes)).items()
    }
    functions: dict[str, tuple[Callable[..., float], Any, Mapping[str, Any]]] = {
        "logme": (logme, x, {}),
        "nleep": (nleep, x, {"seed": seed}),
        "h_score": (h_score, x, {"shrinkage": True}),
        "gbc": (gbc, x, {}),
    }
    if source_probabilities is not None:
        functions["leep"] = (leep, np.asarray(source_probabilities, dtype=float), {})
    scores = {name: _score(*functions[name], y, patients, seed) for name in functions}
    if source_probabilities is None:
        scores["leep"] = {
            "value": None,
            "interval": None,
            "shuffled": None,
            "reason": "the source has no classes of its own",
        }
    return {
        "controls": {
            "linear_probe_auc": controls["linear_probe"]["auc"],
            "linear_probe_balanced_accuracy": controls["linear_probe"]["balanced_accuracy"],
            "knn_accuracy": controls["knn"]["accuracy"],
        },
        "scores": scores,
    }


def _score(
    function: Callable[..., float],
    values: Array,
    options: Mapping[str, Any],
    labels: Array,
    patients: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    value = function(values, labels, **options)
    error = patient_halves(lambda i: function(values[i], labels[i], **options), labels, patients, seed=seed)
    others = (shuffle_labels(labels, patients, seed=seed + i) for i in range(_SHUFFLES))
    found = {"value": value, "shuffled": float(np.mean([function(values, other, **options) for other in others]))}
    if np.isnan(error):
        return {**found, "interval": None, "reason": "no interval: halves of the patients lack a class"}
    return {**found, "interval": [value - 1.96 * error, value + 1.96 * error]}


def _checked(features: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """Features ``(N, F)`` as float64 and labels from 0 on, once they are known to fit each other."""
    x, y = np.asarray(features, dtype=float), np.asarray(labels)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise UserError(f"expected features (N, F) and a label for each image, got {x.shape} and {y.shape}.")
    if not np.isfinite(x).all() or not np.ptp(x, axis=0).any():
        raise UserError("expected features that are finite and differ between images: choose other weights.")
    names, y, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(names) < 2 or counts.min() < 2:
        raise UserError(f"expected two or more classes of two or more images each, got {counts.tolist()} images.")
    return x, y


def _spectrum(x: Array) -> tuple[Array, Array]:
    """Eigenvalues ``(R,)`` above 0 of ``x x^T``, the largest first, and their vectors ``(N, R)``."""
    wide = x.shape[0] <= x.shape[1]
    eigenvalues, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = np.flatnonzero(eigenvalues > 1e-11 * eigenvalues[-1])[::-1]
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    return eigenvalues, vectors if wide else x @ vectors / np.sqrt(eigenvalues)
