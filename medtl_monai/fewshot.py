"""Classification from a few examples: prototypes, neighbours and probes on frozen features, episodes, meta-learning."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .solvers import minimize
from .utils import UserError, write_json

__all__ = [
    "Task",
    "class_prototypes",
    "episodes",
    "linear_probe",
    "load_prototypes",
    "meta_train",
    "nearest_neighbours",
    "prototype_probabilities",
    "save_prototypes",
]

Array = NDArray[Any]
Task = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support images and labels, query images and labels."""


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


def save_prototypes(path: str | Path, prototypes: ArrayLike, classes: Sequence[str], *, network: str) -> None:
    """Write prototypes ``(classes, F)`` as JSON, with the names of the classes and of the network that saw them."""
    rows = np.asarray(prototypes, dtype=float).tolist()
    write_json(path, {"network": network, "classes": list(classes), "prototypes": rows})


def load_prototypes(path: str | Path, *, network: str) -> tuple[Array, list[str]]:
    """Prototypes ``(classes, F)`` and names of the classes from a file of :func:`save_prototypes`.

    Raises:
        UserError: no such file, or the prototypes are another network's.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        prototypes, classes, its = np.array(content["prototypes"]), content["classes"], content["network"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no prototypes ({error}): write them with save_prototypes.") from error
    if its != network:
        raise UserError(f"the prototypes in {path} are of {its}, not of {network}: features of the two do not compare.")
    return prototypes, classes


def linear_probe(features: ArrayLike, labels: ArrayLike, classes: int, *, l2: float = 1.0) -> tuple[Array, Array]:
    """Weights ``(classes, F)`` and offsets ``(classes,)`` of a logistic regression on frozen features.

    The least of the summed cross-entropies plus half of ``l2`` times the sum of the squared weights.

    Args:
        features: ``(N, F)``; standardize them.
        labels: ``(N,)``, integers.
        classes: how many.
        l2: 0 or more; larger for fewer examples.
    """
    x, y = torch.as_tensor(np.asarray(features, dtype=float)), torch.as_tensor(np.asarray(labels)).long()
    layer = nn.utils.skip_init(nn.Linear, x.shape[1], classes, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

    def loss() -> Tensor:
        return cross_entropy(layer(x), y, reduction="sum") + l2 / 2 * layer.weight.square().sum()

    minimize(layer.parameters(), loss, steps=500, least=1e-12)
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def nearest_neighbours(
    features: ArrayLike, examples: ArrayLike, labels: ArrayLike, classes: int, *, k: int = 5, temperature: float = 0.1
) -> Array:
    """Probabilities ``(N, classes)`` by the ``k`` most similar examples (cosine), weighted by ``exp(similarity / t)``.

    Args:
        features: ``(N, F)``.
        examples: ``(M, F)``.
        labels: ``(M,)``, integers, of the examples.
        classes: how many.
        k: from 1 to M.
        temperature: t, above 0; smaller: the most similar count more.

    Raises:
        UserError: ``k`` is out of range.

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


def meta_train(
    network: nn.Module,
    tasks: Iterable[Task],
    *,
    method: str = "reptile",
    steps: int = 5,
    inner_lr: float = 0.01,
    outer_lr: float = 0.1,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> nn.Module:
    r"""Weights from which a few steps of gradient descent learn a new task; ``network`` itself is changed.

    .. math:: w' = \text{SGD}(w; support), \quad reptile: w \leftarrow w + \epsilon (w' - w), \quad
        fomaml: w \leftarrow w - \epsilon \nabla L_{query}(w')

    Args:
        network: from images ``(B, C, *spatial)`` to logits ``(B, classes)``; its mode is left as it is.
        tasks: one after the other; see :func:`episodes` for their indices.
        method: ``reptile``, which learns from the support alone, or ``fomaml``, first-order MAML.
        steps: of gradient descent within a task, 1 or more (one step of reptile is plain training).
        inner_lr: their rate.
        outer_lr: epsilon; of reptile in (0, 1].
        loss: of logits and labels.

    Raises:
        UserError: an unknown method, or settings out of range.

    References:
        Nichol, Achiam, Schulman. On first-order meta-learning algorithms. 2018. Finn, Abbeel, Levine. Model-agnostic
        meta-learning for fast adaptation of deep networks. ICML 2017.
    """
    if method not in ("reptile", "fomaml"):
        raise UserError(f"meta_train: method must be reptile or fomaml, got {method!r}.")
    if steps < 1 or inner_lr <= 0 or outer_lr <= 0:
        raise UserError(f"meta_train: steps 1 or more, rates above 0; got {steps}, {inner_lr}, {outer_lr}.")
    weights = _trained(network)
    for support, support_labels, query, query_labels in tasks:
        learner = copy.deepcopy(network)
        learnt = _trained(learner)
        descent = torch.optim.SGD(learnt, lr=inner_lr)
        for _ in range(steps):
            descent.zero_grad()
            loss(learner(support), support_labels).backward()
            descent.step()
        if method == "reptile":
            moves: Sequence[Tensor | None] = [w - p for p, w in zip(learnt, weights, strict=True)]
        else:
            moves = torch.autograd.grad(loss(learner(query), query_labels), learnt, allow_unused=True)
        _move(weights, moves, outer_lr)
        for own, its in zip(network.buffers(), learner.buffers(), strict=True):
            own.copy_(its)
    return network


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


@torch.no_grad()
def _move(weights: Sequence[Tensor], moves: Sequence[Tensor | None], rate: float) -> None:
    """Weights less ``rate`` times their moves; those without one stay."""
    for weight, move in zip(weights, moves, strict=True):
        if move is not None:
            weight.sub_(rate * move)


def _unit(x: Array) -> Array:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
