"""Several models as one: averages of weights, and combinations of predictions.

Weights can be averaged where the models share one start and architecture; predictions of any models can be combined.
Averages over one training are torch's (``torch.optim.swa_utils.AveragedModel``), means and votes of predictions MONAI's
(``MeanEnsemble``, ``VoteEnsemble``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .solvers import minimize
from .utils import UserError

__all__ = ["Stacking", "greedy_soup", "soup", "wise_ft"]

State = Mapping[str, Tensor]
Array = NDArray[Any]


def soup(states: Sequence[State], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """Average of the weights of models that were fine-tuned from the same start.

    Whole numbers, such as counters, are taken from the first. Batch-norm statistics of the average are not those of any
    model: measure them anew with :func:`medtl_monai.variants.adapt_batch_norm`.

    Args:
        states: ``state_dict`` of each model: tensors of any shape.
        weights: of each model, at least 0, scaled to a sum of 1; default: equal.

    Raises:
        UserError: no model, other names or shapes, or weights that do not fit.

    References:
        Wortsman, Ilharco, Gadre et al. Model soups. ICML 2022.

    Example:
        >>> soup([{"w": torch.tensor([1.0])}, {"w": torch.tensor([4.0])}], [2, 1])["w"]
        tensor([2.])
    """
    shares = _shares(len(states), weights)
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise UserError("a soup needs models of one architecture: names or shapes of their weights differ.")
    return {name: _mean([state[name] for state in states], shares) for name in states[0]}


def _shares(models: int, weights: Sequence[float] | None) -> Array:
    """What each model has in a soup; the sum is 1."""
    shares = np.ones(models) if weights is None else np.asarray(weights, dtype=float)
    if not models or len(shares) != models or shares.min() < 0 or shares.sum() <= 0:
        raise UserError(f"a soup needs models and a weight of 0 or more for each, got {models} and {weights}.")
    return shares / shares.sum()


def _mean(values: Sequence[Tensor], shares: Array) -> Tensor:
    """Of numbers; of whole ones the first."""
    first = values[0]
    if not first.is_floating_point():
        return first.clone()
    return torch.stack([s * v.double() for s, v in zip(shares, values, strict=True)]).sum(0).to(first.dtype)


def greedy_soup(
    states: Sequence[State], score: Callable[[dict[str, Tensor]], float]
) -> tuple[dict[str, Tensor], list[int]]:
    """Add models to a soup, the best first, as long as its score on the validation patients does not fall.

    Args:
        states: ``state_dict`` of each model: tensors of any shape.
        score: of a ``state_dict``; higher is better.

    Returns:
        The soup, and which models are in it.

    Raises:
        UserError: as of :func:`soup`.

    References:
        Wortsman, Ilharco, Gadre et al. Model soups. ICML 2022.
    """
    alone = [score(dict(state)) for state in states]
    order = sorted(range(len(states)), key=lambda i: (-alone[i], i))
    chosen, best = [order[0]], alone[order[0]]
    for i in order[1:]:
        value = score(soup([states[k] for k in [*chosen, i]]))
        if value >= best:
            chosen, best = [*chosen, i], value
    return soup([states[k] for k in chosen]), chosen


def wise_ft(pretrained: State, tuned: State, alpha: float = 0.5) -> dict[str, Tensor]:
    """Between the pretrained (``alpha`` 0) and the fine-tuned weights (1): less is forgotten, shift is borne better.

    Both are a ``state_dict``, with tensors of any shape.

    Raises:
        UserError: ``alpha`` is not from 0 to 1, or the two do not fit.

    References:
        Wortsman, Ilharco, Kim et al. Robust fine-tuning of zero-shot models. CVPR 2022.
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"wise_ft: alpha must lie between 0 and 1, got {alpha}.")
    return soup([pretrained, tuned], [1 - alpha, alpha])


class Stacking:
    """A logistic regression on the models' log-probabilities, fitted on validation patients.

    Args:
        l2: strength of the pull towards the plain mean of the logs; larger for fewer patients.

    References:
        Wolpert. Stacked generalization. Neural Networks 5(2), 1992.
    """

    def __init__(self, l2: float = 0.1) -> None:
        self.l2 = l2
        self.weights: Array | None = None

    def fit(self, probabilities: ArrayLike, labels: ArrayLike) -> Stacking:
        """Fit one weight a model and one offset a class.

        Args:
            probabilities: of each model, ``(M, N, C)``.
            labels: ``(N,)``, integers.
        """
        logs = torch.as_tensor(np.asarray(probabilities), dtype=torch.float64).clamp_min(1e-9).log()
        truth = torch.as_tensor(np.asarray(labels)).long()
        mean = torch.full((len(logs),), 1 / len(logs), dtype=torch.float64)
        weights = mean.clone().requires_grad_()
        offset = torch.zeros(logs.shape[2], dtype=torch.float64, requires_grad=True)

        def loss() -> Tensor:
            logits = torch.einsum("m,mnc->nc", weights, logs) + offset
            pull = self.l2 * ((weights - mean).square().sum() + offset.square().sum())
            return torch.nn.functional.cross_entropy(logits, truth) + pull

        minimize([weights, offset], loss, steps=200)
        self.weights, self.offset = weights.detach().numpy(), offset.detach().numpy()
        return self

    def predict(self, probabilities: ArrayLike) -> Array:
        """Class probabilities ``(N, C)`` of models' ``(M, N, C)``.

        Raises:
            UserError: it was not fitted.
        """
        if self.weights is None:
            raise UserError("stacking predicts after fit.")
        logits = np.tensordot(self.weights, np.log(np.maximum(probabilities, 1e-9)), 1) + self.offset
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)
