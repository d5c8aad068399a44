"""Calibration of a trained classifier on validation patients, folded into its head.

The network stays a plain network: whoever runs it gets calibrated probabilities, and a threshold of one half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from .solvers import minimize

__all__ = ["fit_calibration", "fold_into_head"]

LEAST = 1e-6  # probabilities below are taken for this


def fit_calibration(
    probabilities: ArrayLike, labels: ArrayLike, task: str = "classification"
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scale and offset of the logits that make them most likely on held-out images.

    .. math:: z'_k = s_k z_k + o_k

    Classes that exclude each other share one scale (bias-corrected temperature scaling); each finding of a multi-label
    task has its own (Platt scaling). Targets are smoothed as Platt does, by one image among all, so that separable data
    have a solution.

    Args:
        probabilities: ``(N, C)`` of the uncalibrated network.
        labels: ``(N,)`` class indices; or ``(N, C)``, 1, 0 and NaN for unknown.
        task: ``classification`` or ``multilabel``.

    Returns:
        Scales ``(C,)``, above 0, and offsets ``(C,)``; 1 and 0 for a finding that is not both seen and unseen.

    References:
        Alexandari, Kundaje, Shrikumar. Maximum likelihood with bias-corrected calibration is hard-to-beat at label
        shift adaptation. ICML 2020. Platt. Probabilistic outputs for support vector machines. 1999.
    """
    p = torch.as_tensor(np.asarray(probabilities), dtype=torch.float64).clamp(LEAST, 1 - LEAST)
    y = torch.as_tensor(np.asarray(labels))
    count = p.shape[1]
    smooth = 1 / (len(p) + 2)
    offset = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    if task == "multilabel":
        known = ~y.isnan()
        mixed = torch.tensor([column[k].unique().numel() == 2 for column, k in zip(y.T, known.T, strict=True)])
        log_scale = torch.zeros(count, dtype=torch.float64, requires_grad=True)
        logits, target = p.logit(), y.nan_to_num() * (1 - 2 * smooth) + smooth

        def loss() -> Tensor:
            each = binary_cross_entropy_with_logits(logits * log_scale.exp() + offset, target, reduction="none")
            return (each * known * mixed).sum() / known.sum()

    else:
        log_scale = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        logits = p.log()
        target = one_hot(y.long(), count).double() * (1 - count * smooth) + smooth

        def loss() -> Tensor:
            return cross_entropy(logits * log_scale.exp() + offset, target)

    minimize([log_scale, offset], loss, steps=500)
    with torch.no_grad():
        if task != "multilabel":
            offset -= offset.mean()  # a constant changes nothing
        return log_scale.exp().expand(count).numpy().copy(), offset.numpy().copy()


def fold_into_head(head: nn.Module, scale: ArrayLike, offset: ArrayLike) -> None:
    """Change the last layer of ``head`` so that its outputs ``z`` become ``scale * z + offset``.

    Args:
        head: whose last linear or convolutional layer gives the C logits.
        scale: ``(C,)``.
        offset: ``(C,)``.

    Raises:
        ValueError: there is no such layer, or it has no bias.

    Example:
        >>> head = nn.Linear(2, 2)
        >>> x = torch.randn(3, 2)
        >>> wanted = head(x) * torch.tensor([2.0, 3.0]) + torch.tensor([0.5, -1.0])
        >>> fold_into_head(head, [2.0, 3.0], [0.5, -1.0])
        >>> torch.allclose(head(x), wanted, atol=1e-6)
        True
    """
    layers = [m for m in head.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    if not layers or layers[-1].bias is None:
        raise ValueError(f"expected a head that ends in a linear or convolutional layer with a bias, got {head}.")
    layer, bias = layers[-1], layers[-1].bias
    assert bias is not None
    with torch.no_grad():
        factor, shift = (torch.as_tensor(np.asarray(v)).to(layer.weight) for v in (scale, offset))
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        bias.mul_(factor).add_(shift)
