"""Classification from a few examples on frozen features: prototypes, neighbours, episodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .utils import UserError

__all__ = ["class_prototypes", "episodes", "nearest_neighbours", "prototype_probabilities"]

Array = NDArray[Any]


def class_prototypes(features: ArrayLike, labels: ArrayLike, classes: int) -> Array:
    """Mean feature vector of each class, ``(classes, F)``.

    Prototypes of another data set's features classify without any example of the new one (zero-shot).

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``, integers.
        classes: how many.

    Raises:
        UserError: a class without an example.

    References:
        Snell, Swersky, Zemel. Prototypical networks for few-shot learning. NeurIPS 2017.
    """
    x, y = np.asarray(features, dtype=float), np.asarray(labels)
    missing = sorted(set(range(classes)) - set(y.tolist()))
    if missing:
        raise UserError(f"a prototype needs an example of each class, there is none of {missing}.")
    return np.stack([x[y == k].mean(0) for k in range(classes)])


def prototype_probabilities(features: ArrayLike, prototypes: ArrayLike, *, temperature: float = 1.0) -> Array:
    """Softmax of the negative squared distances to the prototypes over ``temperature``, ``(N, classes)``.

    Example:
        >>> prototype_probabilities([[0.0], [1.0]], [[0.0], [2.0]]).round(3).tolist()
        [[0.982, 0.018], [0.5, 0.5]]
    """
    x, p = np.asarray(features, dtype=float), np.asarray(prototypes, dtype=float)
    logits = -((x[:, None] - p[None]) ** 2).sum(-1) / temperature
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def nearest_neighbours(
    features: ArrayLike, examples: ArrayLike, labels: ArrayLike, classes: int, *, k: int = 5, temperature: float = 0.1
) -> Array:
    """Probabilities ``(N, classes)`` by the ``k`` most similar examples (cosine), weighted by ``exp(similarity / t)``.

    References:
        Wu, Xiong, Yu, Lin. Unsupervised feature learning via non-parametric instance discrimination. CVPR 2018.
    """
    x, e = (_unit(np.asarray(v, dtype=float)) for v in (features, examples))
    if not 1 <= k <= len(e):
        raise UserError(f"k must be from 1 to the number of examples ({len(e)}), got {k}.")
    similar = x @ e.T
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    weights = np.exp((np.take_along_axis(similar, nearest, 1) - 1) / temperature)
    votes = np.eye(classes)[np.asarray(labels)[nearest]]
    scores = (weights[:, :, None] * votes).sum(1)
    return scores / scores.sum(1, keepdims=True)


def episodes(
    labels: ArrayLike, patients: ArrayLike, *, shots: int, count: int, seed: int = 0
) -> Iterator[tuple[Array, Array]]:
    """Indices of support and query images of random n-shot tasks; no patient stands on both sides.

    Each class's support is ``shots`` images of as many patients; the query is all images of patients not in it.

    Args:
        labels: ``(N,)``, integers.
        patients: ``(N,)``.
        shots: images of each class in the support.
        count: number of tasks.
        seed: of the choice.

    Raises:
        UserError: a class with too few patients.
    """
    y, who = np.asarray(labels), np.asarray([str(patient) for patient in np.asarray(patients)])
    rng = np.random.default_rng(seed)
    for _ in range(count):
        support: list[int] = []
        for k in np.unique(y):
            used = set(who[support])
            candidates = sorted(set(who[y == k]) - used)
            if len(candidates) <= shots:
                raise UserError(
                    f"{shots}-shot tasks need more than {shots} patients of each class; class {k}: {len(candidates)}."
                )
            for patient in rng.choice(candidates, shots, replace=False):
                support.append(int(rng.choice(np.flatnonzero((y == k) & (who == patient)))))
        query = np.flatnonzero(~np.isin(who, who[support]))
        yield np.array(support), query


def _unit(x: Array) -> Array:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
