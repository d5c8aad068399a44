"""Metrics of an evaluator during training, of classes and of findings that may stand together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric, compute_roc_auc
from torch import Tensor

__all__ = ["accuracy", "log_loss", "mean_auc"]


def accuracy(task: str = "classification") -> IgniteMetricHandler:
    """Share of right predictions, of an evaluator whose postprocessing gives probabilities and one-hot labels.

    Args:
        task: ``classification``: the most probable class is predicted; ``multilabel``: each finding above 0.5, counted
            where it is known (labels are 1, 0 and NaN).
    """

    def compute(p: Tensor, y: Tensor) -> float:
        known = ~y.isnan()
        right = ((p > 0.5) == (y == 1))[known] if task == "multilabel" else p.argmax(1) == y.argmax(1)
        return right.double().mean().item()

    return _of_all(compute)


def log_loss(task: str = "classification") -> IgniteMetricHandler:
    """Cross-entropy of the probabilities, of the same."""

    def compute(p: Tensor, y: Tensor) -> float:
        known, truth = ~y.isnan(), y.nan_to_num()
        terms = truth * p.clamp_min(1e-12).log()
        if task == "multilabel":
            return -(terms + (1 - truth) * (1 - p).clamp_min(1e-12).log())[known].double().mean().item()
        return -terms.sum(1).double().mean().item()

    return _of_all(compute)


def mean_auc() -> IgniteMetricHandler:
    """Mean over classes or findings of the area under the ROC curve, of the same; NaN if it is defined for none."""

    def compute(p: Tensor, y: Tensor) -> float:
        known = [~column.isnan() for column in y.T]
        pairs = [(p[k, i], y[k, i]) for i, k in enumerate(known) if len(y[k, i].unique()) == 2]
        return float(np.mean([compute_roc_auc(*pair) for pair in pairs])) if pairs else float("nan")

    return _of_all(compute)


class _AtOnce(CumulativeIterationMetric):
    """A number of all predictions and labels of an epoch; every process may have seen another number of images."""

    def __init__(self, compute: Callable[[Tensor, Tensor], float]) -> None:
        super().__init__()
        self.compute = compute

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Any:
        return y_pred.float(), y if y is None else y.float()

    def aggregate(self) -> float:
        return self.compute(*self.get_buffer())


def _of_all(compute: Callable[[Tensor, Tensor], float]) -> IgniteMetricHandler:
    return IgniteMetricHandler(_AtOnce(compute), output_transform=from_engine(["pred", "label"]), save_details=False)
