"""How much more likely images are in a target than in the training set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ..solvers import minimize

__all__ = ["METHODS", "discriminator_weights", "kernel_mean_matching", "kliep", "principal_components"]

Array = NDArray[np.float64]


def principal_components(source: ArrayLike, target: ArrayLike, count: int = 16) -> tuple[Array, Array]:
    """Coordinates ``(n, count)`` and ``(m, count)`` of both sets of features on the axes of their largest variance.

    Ratios of densities cannot be estimated from a few hundred images in a thousand dimensions.
    """
    both = np.concatenate([np.asarray(source, dtype=float), np.asarray(target, dtype=float)])
    both = both - both.mean(0)
    axes = np.linalg.svd(both, full_matrices=False)[2][:count]
    return both[: len(np.asarray(source))] @ axes.T, both[len(np.asarray(source)) :] @ axes.T


def _kernel(x: Array, y: Array, width: float) -> Array:
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.exp(-np.maximum(squared, 0) / (2 * width**2))


def _width(x: Array) -> float:
    """Median distance of the rows."""
    squared = (x**2).sum(1)[:, None] + (x**2).sum(1)[None] - 2 * x @ x.T
    return float(np.sqrt(np.median(np.maximum(squared[np.triu_indices(len(x), 1)], 0)))) or 1.0


def kernel_mean_matching(source: ArrayLike, target: ArrayLike, *, bound: float = 10.0) -> Array:
    """Weights of the source's features ``(n, F)`` under which their mean in a kernel's space is the target's ``(m,
    F)``.

    A quadratic program with weights from 0 to ``bound``, solved by projected gradients; scaled to a mean of 1.

    References:
        Huang, Gretton, Borgwardt, Schoelkopf, Smola. Correcting sample selection bias by unlabeled data. NeurIPS 2006.
    """
    from scipy.optimize import minimize

    x, y = np.asarray(source, dtype=float), np.asarray(target, dtype=float)
    width, n = _width(x), len(x)
    k, kappa = _kernel(x, x, width), _kernel(x, y, width).sum(1) * n / len(y)
    k[np.diag_indices(n)] += 1e-6

    def objective(w: Array) -> tuple[float, Array]:
        gradient = k @ w
        return float(w @ gradient / 2 - kappa @ w) / n, (gradient - kappa) / n

    found = minimize(objective, np.ones(n), jac=True, bounds=[(0, bound)] * n, method="L-BFGS-B")
    return found.x / found.x.mean()


def kliep(source: ArrayLike, target: ArrayLike, *, centres: int = 100, steps: int = 2000, seed: int = 0) -> Array:
    """Weights ``(n,)`` of the source's features ``(n, F)`` that maximize the likelihood of the target's ``(m, F)``.

    A mixture of kernels on the target, scaled to a mean of 1 over the source.

    References:
        Sugiyama, Nakajima, Kashima, von Buenau, Kawanabe. Direct importance estimation with model selection and its
        application to covariate shift adaptation. NeurIPS 2007.
    """
    x, y = np.asarray(source, dtype=float), np.asarray(target, dtype=float)
    chosen = np.random.default_rng(seed).permutation(len(y))[:centres]
    width = _width(y)
    on_target, mean = _kernel(y, y[chosen], width), _kernel(x, y[chosen], width).mean(0)
    alpha = np.ones(len(chosen)) / mean.sum()
    rate = 0.1
    for _ in range(steps):  # projected ascent of a concave function
        gradient = on_target.T @ (1 / np.maximum(on_target @ alpha, 1e-12)) / len(y)
        step = np.maximum(alpha + rate * (gradient - mean * (gradient @ mean) / (mean @ mean)), 0)
        alpha = step / max(step @ mean, 1e-12)
    weights = _kernel(x, y[chosen], width) @ alpha
    return weights / weights.mean()


def discriminator_weights(source: ArrayLike, target: ArrayLike, *, bound: float = 10.0) -> Array:
    """Weights ``(n,)`` of the source's features ``(n, F)``: how much more likely they are in the target ``(m, F)``.

    By a logistic regression; at most ``bound``, scaled to a mean of 1.

    References:
        Bickel, Brueckner, Scheffer. Discriminative learning for differing training and test distributions. ICML 2007.
    """
    x = torch.as_tensor(np.concatenate([np.asarray(source), np.asarray(target)]), dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-9)
    n, m = len(np.asarray(source)), len(np.asarray(target))
    truth = torch.cat([torch.zeros(n), torch.ones(m)]).double()
    layer = nn.Linear(x.shape[1], 1).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

    def loss() -> Tensor:
        entropy = nn.functional.binary_cross_entropy_with_logits(layer(x)[:, 0], truth)
        return entropy + layer.weight.square().sum() / (2 * len(x))

    minimize(layer.parameters(), loss, steps=200)
    with torch.no_grad():
        odds = (layer(x[:n])[:, 0].exp() * n / m).clamp(max=bound).numpy()
    return odds / odds.mean()


METHODS: dict[str, Callable[..., Array]] = {
    "kmm": kernel_mean_matching,
    "kliep": kliep,
    "discriminator": discriminator_weights,
}
"""The ways of finding them, by name."""
