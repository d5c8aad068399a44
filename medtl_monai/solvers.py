"""Small fits of scikit-learn's kind, which is not among what the package needs: the tests compare them with its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

__all__ = ["gaussian_mixture", "ledoit_wolf", "minimize"]

Array = NDArray[Any]


def minimize(parameters: Iterable[Tensor], loss: Callable[[], Tensor], *, steps: int, least: float = 1e-9) -> None:
    """Change ``parameters``, in place, until the smooth convex ``loss`` is least: L-BFGS with a line search.

    Args:
        parameters: of any shapes, with gradients.
        loss: their scalar, computed anew at each call.
        steps: at most so many.
        least: smaller changes of the loss end the search.

    Example:
        >>> x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        >>> minimize([x], lambda: (x - torch.tensor([1.0, 3.0])).square().sum(), steps=20)
        >>> x.detach().round(decimals=6).tolist()
        [1.0, 3.0]
    """
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe", tolerance_change=least)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def gaussian_mixture(x: Array, components: int, seed: int) -> Array:
    """Probabilities ``(N, components)`` of the parts of a Gaussian mixture with diagonal covariances.

    Fitted by expectation and maximization, from the seeds of k-means++.

    Args:
        x: ``(N, F)``.
        components: how many parts, at most N.
        seed: of the start.
    """
    rng, least = np.random.default_rng(seed), 1e-3 * x.var(0).mean()
    distances = np.full((len(x), components), np.inf)
    for k in range(components):  # the seeds of k-means++: far from those before
        nearest = distances.min(1) + least
        chosen = rng.choice(len(x), p=nearest / nearest.sum() if k else None)
        distances[:, k] = ((x - x[chosen]) ** 2).sum(1)
    p, before = np.eye(components)[distances.argmin(1)], -np.inf
    for _ in range(200):
        size = p.sum(0) + 1e-9
        means = p.T @ x / size[:, None]
        variances = np.maximum(p.T @ x**2 / size[:, None] - means**2, 0) + least
        squared = x**2 @ (1 / variances).T - 2 * x @ (means / variances).T + (means**2 / variances).sum(1)
        logs = np.log(size / len(x)) - (squared + np.log(2 * np.pi * variances).sum(1)) / 2
        total = logsumexp(logs, axis=1)
        p = np.exp(logs - total[:, None])
        if total.mean() - before < 1e-6:
            break
        before = total.mean()
    return p


def ledoit_wolf(x: Array, eigenvalues: Array) -> tuple[float, float]:
    """How much to shrink the covariance of centred ``x``, from 0 to 1, and the mean variance that it is shrunk to.

    Args:
        x: ``(N, F)``, with a mean of 0.
        eigenvalues: ``(R,)``, those above 0 of ``x^T x``.

    References:
        Ledoit, Wolf. A well-conditioned estimator for large-dimensional covariance matrices. Journal of Multivariate
        Analysis 88(2), 2004.
    """
    n, f = x.shape
    variances = eigenvalues / n
    mean = variances.sum() / f
    distance = (variances**2).sum() / f - mean**2
    noise = (((x**2).sum(1) ** 2).sum() / n - (variances**2).sum()) / (n * f)
    return float(min(noise / distance, 1.0)) if distance > 0 else 1.0, float(mean)
