"""Instance-based transfer: which images count, and how much."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..utils import UserError, sum_over_processes, unwrap
from .base import Context, Step, Strategy

__all__ = [
    "ClassBalanced",
    "Focal",
    "Importance",
    "SampleWeights",
    "SourceSelection",
    "TrAdaBoost",
    "discriminator_weights",
    "effective_number_weights",
    "kernel_mean_matching",
    "kliep",
    "nearest_weights",
    "tradaboost_weights",
]

Array = NDArray[np.float64]
_log = logging.getLogger("medtl_monai")


class _Weighting(Strategy):
    """Base of the strategies that weight the images' cross-entropies: ``mean(w l) = mean(l) + mean((w - 1) l)``."""

    tasks = ("classification",)

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """The weight of each image ``(B,)``, given its cross-entropy."""
        raise NotImplementedError

    def loss(self, step: Step) -> Tensor | None:
        """What weighting adds to the mean cross-entropy."""
        if step.pred.ndim != 2 or step.label.ndim != 1:
            raise UserError(f"{type(self).__name__} needs one class an image: leave out mix.")
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


class _PerImage(_Weighting):
    """Base of the strategies with one weight for each training image, found by its place ``index`` in that part."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(0))

    def places(self, step: Step) -> Tensor:
        """Where in the training part the images of this batch stand, ``(B,)``."""
        if "index" not in step.batch:
            raise UserError(f"{type(self).__name__} needs each item's place in the training set, under the key index.")
        return torch.as_tensor(step.batch["index"]).to(self.table.device)

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """By image."""
        return self.table[self.places(step)]


class SampleWeights(_PerImage):
    """Weight each image by the column ``weight`` of the table.

    - **What it does**: each image's loss counts as often as its weight says.
    - **When it helps**: the training images are drawn unlike those that the model is for, and you know how.
    - **Cost**: none.
    - **What it cannot do**: find the weights (see ``importance``); reach kinds of images that the training set has none
      of.

    References:
        Shimodaira. Improving predictive inference under covariate shift by weighting the log-likelihood function.
        Journal of Statistical Planning and Inference 90(2), 2000.
    """

    needs = ("weights",)

    def bind(self, context: Context) -> None:
        """Read the weights.

        Raises:
            UserError: one that is no number of 0 or more.
        """
        super().bind(context)
        try:
            self.table = torch.tensor([float(weight) for weight in context.weights])
        except ValueError as error:
            raise UserError(f"sample_weights: the column weight must hold numbers ({error}).") from error
        if not (self.table >= 0).all() or not self.table.isfinite().all() or self.table.sum() == 0:
            raise UserError("sample_weights: the column weight must hold numbers of 0 or more, not all of them 0.")

    def prepare(self, network: nn.Module) -> nn.Module:
        """Move the weights to the network's device."""
        self.table = self.table.to(next(unwrap(network).parameters()).device)
        return network


class Importance(_PerImage):
    """Weight the training images towards those of the target folder.

    .. math:: w(x) \\approx p_{target}(x) / p_{training}(x)

    - **What it does**: before training, the pretrained network's features of the training images and of the target
      folder (their first 16 principal components) are compared; each image's loss counts by the ratio of densities.
    - **When it helps**: the target has the same kinds of images in other shares (covariate shift), and no labels.
    - **Cost**: a forward pass over both sets, once, or once for all runs with ``--cache_features`` a folder (beside
      ``freeze``, say); ``kmm`` solves a quadratic program as large as the training set.
    - **Settings**: ``method``: ``kmm`` (kernel mean matching), ``kliep`` or ``discriminator`` (a logistic regression,
      the smoothest).
    - **What it cannot do**: reach kinds of images that the training set has none of; weights spread over few images
      make the training noisy (the log says how many count).

    References:
        Huang, Gretton, Borgwardt, Schoelkopf, Smola. Correcting sample selection bias by unlabeled data. NeurIPS 2006.
        Sugiyama, Nakajima, Kashima, von Buenau, Kawanabe. Direct importance estimation with model selection. NeurIPS
        2007. Bickel, Brueckner, Scheffer. Discriminative learning for differing training and test distributions. ICML
        2007.
    """

    needs = ("source", "target")
    needs_source = True

    def __init__(self, method: str = "kmm") -> None:
        super().__init__()
        if method not in _METHODS:
            raise UserError(f"{type(self).__name__}: method must be {', '.join(_METHODS)}, got {method!r}.")
        self.method = method

    def prepare(self, network: nn.Module) -> nn.Module:
        """Compare the features."""
        assert self.context.source is not None, "bind comes first"
        assert self.context.target is not None, "bind comes first"
        both = (self.context.source, self.context.target)
        source, target = (self.context.extract(network, images).numpy() for images in both)
        weights = self.chosen(_METHODS[self.method](*principal_components(source, target)))
        self.table = torch.as_tensor(weights).float().to(next(unwrap(network).parameters()).device)
        count = weights.sum() ** 2 / (weights**2).sum()
        _log.info(
            f"{type(self).__name__}: weights up to {weights.max():.1f}, as if {count:.0f} of {len(weights)} images"
        )
        return network

    def chosen(self, weights: Array) -> Array:
        """What becomes of the ratios ``(N,)``, whose mean is 1."""
        return weights


class SourceSelection(Importance):
    """Train on the images alone that are nearest to the target folder's.

    - **What it does**: the weights of ``importance`` order the training images; the given share counts, the others not.
    - **When it helps**: a large, mixed training set, parts of which resemble the target and parts would mislead.
    - **Cost**: as ``importance``.
    - **Settings**: ``keep`` in (0, 1]: 1 is ``finetune``, small keeps few images; ``method`` as ``importance``.
    - **What it cannot do**: choose ``keep``: compare on validation patients; keep classes in proportion.

    References:
        Ge, Yu. Borrowing treasures from the wealthy: deep transfer learning through selective joint fine-tuning. CVPR
        2017.
    """

    needs = ("source", "target", "labels")

    def __init__(self, keep: float = 0.5, method: str = "discriminator") -> None:
        super().__init__(method)
        if not 0 < keep <= 1:
            raise UserError(f"source_selection: keep must be above 0 and at most 1, got {keep}.")
        self.keep = keep

    def chosen(self, weights: Array) -> Array:
        """The nearest alone.

        Raises:
            UserError: they leave a class without images.
        """
        nearest = nearest_weights(weights, self.keep)
        left = set(self.context.labels) - set(np.asarray(self.context.labels)[nearest > 0].tolist())
        if left:
            raise UserError(f"source_selection: no image of class {min(left)} is among those kept: give a larger keep.")
        return nearest


def nearest_weights(weights: ArrayLike, keep: float) -> Array:
    """One weight for the share ``keep`` of largest ``weights``, 0 for the rest; their mean is 1.

    Example:
        >>> nearest_weights([0.1, 3.0, 0.4, 0.5], 0.5).tolist()
        [0.0, 2.0, 0.0, 2.0]
    """
    w = np.asarray(weights, dtype=float)
    count = int(np.ceil(keep * len(w)))
    kept = np.zeros(len(w))
    kept[np.argsort(-w, kind="stable")[:count]] = len(w) / count
    return kept


class TrAdaBoost(_PerImage):
    """Boost images of the target's domain that are wrong, and let go those of other domains that are wrong.

    .. math:: w_i \\leftarrow w_i \\beta^{e_i} \\; (other), \\quad w_i \\beta_t^{-e_i} \\; (target), \\quad
        \\beta = \\frac{1}{1 + \\sqrt{2 \\ln n / N}}, \\quad \\beta_t = \\frac{\\epsilon_t}{1 - \\epsilon_t}

    - **What it does**: after every epoch, the weight of each image follows its error e = 1 - p(true class) in that
      epoch's own forward passes; n images are of other domains, N is ``rounds``, and epsilon is the target images'
      weighted error, at most 0.499. In the paper each round trains a new learner and the last rounds vote; here the
      network goes on training under the new weights.
    - **When it helps**: few labelled images of the own scanner beside many of others, some of which contradict them.
    - **Cost**: none.
    - **Settings**: ``domain``: how the table's column ``domain`` calls the target's images; ``rounds`` 1 or more: few
      forget misleading images quickly, many slowly.
    - **What it cannot do**: do without labelled images of the target; tell a hard image from a wrong label.

    References:
        Dai, Yang, Xue, Yu. Boosting for transfer learning. ICML 2007.
    """

    needs = ("domains",)

    def __init__(self, domain: str | int | float = "target", rounds: int = 10) -> None:
        super().__init__()
        if rounds < 1:
            raise UserError(f"tradaboost: rounds must be 1 or more, got {rounds}.")
        self.domain, self.rounds = str(domain), rounds
        for name in ("target", "errors", "seen"):
            self.register_buffer(name, torch.zeros(0))

    def bind(self, context: Context) -> None:
        """Find the target's images.

        Raises:
            UserError: all or none of the training images are the target's.
        """
        super().bind(context)
        self.target = torch.tensor([str(domain) == self.domain for domain in context.domains])
        if self.target.all() or not self.target.any():
            names = ", ".join(sorted(set(map(str, context.domains))))
            raise UserError(f"tradaboost needs images of the domain {self.domain!r} and of others, there are {names}.")

    def prepare(self, network: nn.Module) -> nn.Module:
        """Begin with equal weights."""
        device = next(unwrap(network).parameters()).device
        self.table = torch.ones(len(self.target), device=device)
        self.target, self.errors, self.seen = (x.to(device) for x in (self.target, 0 * self.table, 0 * self.table))
        return network

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """By image; its error is kept."""
        places = self.places(step)
        self.errors.index_add_(0, places, 1 - (-each.detach()).exp())
        self.seen.index_add_(0, places, torch.ones_like(each))
        return self.table[places]

    def attach(self, engine: Engine) -> None:
        """Gather the errors of all processes when an epoch ends, before it is saved."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: sum_over_processes(self.errors, self.seen))

    def on_epoch(self, network: nn.Module, epoch: int) -> None:
        """Update the weights by the errors of the epoch that is over."""
        if epoch == 1:
            return
        errors = (self.errors / self.seen.clamp_min(1)).double().cpu().numpy()
        found = tradaboost_weights(self.table.double().cpu().numpy(), errors, self.target.cpu().numpy(), self.rounds)
        self.table = torch.as_tensor(found).to(self.table)
        self.errors, self.seen = torch.zeros_like(self.errors), torch.zeros_like(self.seen)


def tradaboost_weights(weights: ArrayLike, errors: ArrayLike, target: ArrayLike, rounds: int) -> Array:
    """The weights after one round, ``(N,)``, scaled to a mean of 1; see :class:`TrAdaBoost`.

    Args:
        weights: before it.
        errors: of each image, in ``[0, 1]``.
        target: which images are the target's.
        rounds: how many there are to be.

    Example:
        >>> tradaboost_weights([1, 1, 1, 1], [1, 0, 1, 0], [False, False, True, True], 1).round(3).tolist()
        [0.53, 1.155, 1.16, 1.155]
    """
    w, e, own = np.asarray(weights, dtype=float), np.asarray(errors, dtype=float), np.asarray(target, dtype=bool)
    epsilon = np.clip((w * e)[own].sum() / max(w[own].sum(), 1e-12), 1e-3, 0.499)
    others = 1 / (1 + np.sqrt(2 * np.log((~own).sum()) / rounds))
    w = w * np.where(own, (epsilon / (1 - epsilon)) ** -e, others**e)
    return w / w.mean()


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


_METHODS: dict[str, Callable[..., Array]] = {
    "kmm": kernel_mean_matching,
    "kliep": kliep,
    "discriminator": discriminator_weights,
}
