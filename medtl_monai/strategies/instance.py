"""Instance-based transfer: which images count, and how much."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..utils import UserError, unwrap
from .base import Step, Strategy

__all__ = [
    "ClassBalanced",
    "Focal",
    "SampleWeights",
    "discriminator_weights",
    "effective_number_weights",
    "kernel_mean_matching",
    "kliep",
]

Array = NDArray[np.float64]


class _Weighting(Strategy):
    """Base of the strategies that weight the images' cross-entropies: ``mean(w l) = mean(l) + mean((w - 1) l)``."""

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """The weight of each image ``(B,)``, given its cross-entropy."""
        raise NotImplementedError

    def loss(self, step: Step) -> Tensor | None:
        """What weighting adds to the mean cross-entropy."""
        if step.pred.ndim != 2 or step.label.ndim != 1:
            raise UserError(f"{type(self).__name__} needs one class an image: choose another strategy.")
        each = cross_entropy(step.pred.float(), step.label, reduction="none")
        return ((self.weights(step, each) - 1) * each).mean()


class ClassBalanced(_Weighting):
    """Weight rare classes up, by the effective number of their images.

    .. math:: w_c \\propto \\frac{1 - \\beta}{1 - \\beta^{n_c}}

    - **What it does**: each image's loss counts by its class's weight; the weights have a mean of 1 over the images.
    - **When it helps**: classes of very different size that matter alike.
    - **Cost**: none.
    - **Settings**: ``beta`` in [0, 1): 0 is ``finetune``; towards 1 the weight goes as the inverse of the number.
    - **What it cannot do**: add what a rare class's few images do not show.

    References:
        Cui, Jia, Lin, Song, Belongie. Class-balanced loss based on effective number of samples. CVPR 2019.
    """

    needs = ("labels",)

    def __init__(self, beta: float = 0.999) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise UserError(f"class_balanced: beta must be at least 0 and below 1, got {beta}.")
        self.beta = beta
        self.register_buffer("table", torch.ones(0))

    def prepare(self, network: nn.Module) -> nn.Module:
        """Count the classes."""
        if not all(isinstance(label, (int, np.integer)) for label in self.context.labels):
            raise UserError("class_balanced needs one class an image: findings are balanced by their own loss.")
        counts = Counter(int(label) for label in self.context.labels)
        sizes = [counts[c] for c in range(max(counts) + 1)]
        self.table = effective_number_weights(sizes, self.beta).to(next(unwrap(network).parameters()).device)
        return network

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """By class."""
        return self.table[step.label]


def effective_number_weights(sizes: list[int], beta: float) -> Tensor:
    """Weight of each class, whose mean over all images is 1; 0 for a class without images.

    Example:
        >>> [round(w, 6) for w in effective_number_weights([3, 1], 0.5).tolist()]  # 1 / 1.75 and 1 / 1, scaled
        [0.842105, 1.473684]
    """
    n = torch.tensor(sizes, dtype=torch.float64)
    raw = torch.where(n > 0, (1 - beta) / (1 - beta**n).clamp_min(1e-12), 0.0)
    return (raw * n.sum() / (raw * n).sum()).float()


class Focal(_Weighting):
    """Let images that are right already count less.

    .. math:: w_i = (1 - p_{y_i})^\\gamma

    - **What it does**: the cross-entropy of each image is scaled by its own error.
    - **When it helps**: many easy images and few hard ones.
    - **Cost**: none.
    - **Settings**: ``gamma`` in [0, inf): 0 is ``finetune``, large looks at the worst images alone.
    - **What it cannot do**: tell hard images from wrong labels. A label smoothing of the task's loss stays unweighted.

    References:
        Lin, Goyal, Girshick, He, Dollar. Focal loss for dense object detection. ICCV 2017.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if gamma < 0:
            raise UserError(f"focal: gamma must be 0 or more, got {gamma}.")
        self.gamma = gamma

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """By the image's own error."""
        return (1 - (-each).exp()).clamp_min(0) ** self.gamma


class SampleWeights(_Weighting):
    """Weight each image by the entry ``weight`` of its item, such as an importance weight towards another domain.

    - **What it does**: each image's loss counts as often as its weight says; a batch without weights is left alone.
    - **When it helps**: the training images are drawn unlike those that the model is for, and
      :func:`kernel_mean_matching`, :func:`kliep` or :func:`discriminator_weights` say how.
    - **Cost**: none in training.
    - **What it cannot do**: reach kinds of images that the training set has none of.

    References:
        Shimodaira. Improving predictive inference under covariate shift by weighting the log-likelihood function.
        Journal of Statistical Planning and Inference 90(2), 2000.
    """

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """By item."""
        given: Any = step.batch.get("weight")
        return torch.ones_like(each) if given is None else torch.as_tensor(given).to(each)


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
    """Weights of the source's features that maximize the target's likelihood: a mixture of kernels on the target.

    Scaled to a mean of 1 over the source.

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
    """Weights of the source's features by how much more likely a logistic regression finds them in the target.

    At most ``bound``, scaled to a mean of 1.

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
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(layer(x)[:, 0], truth)
        loss = loss + layer.weight.square().sum() / (2 * len(x))
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        odds = (layer(x[:n])[:, 0].exp() * n / m).clamp(max=bound).numpy()
    return odds / odds.mean()
