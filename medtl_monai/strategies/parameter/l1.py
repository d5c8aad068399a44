"""A penalty on absolute values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._penalty import Penalty

__all__ = ["L1", "l1_penalty"]


class L1(Penalty):
    r"""Lasso: a penalty on the absolute values, which drives small weights to zero.

    .. math:: L = L_{task} + \lambda \sum_{j=1}^{p} |w_j|

    - **What it does**: adds the sum over all trained weights (of two axes or more) to the task's loss.
    - **When it helps**: as a sparsity prior on the head; on whole networks rarely better than ``l2``.
    - **Cost**: one pass over the weights a step.
    - **Settings**: ``weight`` (lambda) in [0, inf): 0 is ``finetune``; too large drives all weights to zero.
    - **What it cannot do**: keep the source's knowledge; it pulls towards zero, not towards the source (see ``l2_sp``).

    References:
        Tibshirani. Regression shrinkage and selection via the lasso. J. R. Stat. Soc. B 58, 1996.
    """

    cached = "beside"

    def __init__(self, weight: float = 1e-5) -> None:
        super().__init__(weight)

    def norm(self, weights: Sequence[Tensor]) -> Tensor:
        """Sum of absolute values of weights of any shapes."""
        return l1_penalty(weights)


def l1_penalty(weights: Sequence[Tensor]) -> Tensor:
    r"""Sum of absolute values, :math:`\sum_j |w_j|`, over all elements of ``weights``, of any shapes.

    Example:
        >>> l1_penalty([torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])]).item()
        6.0
    """
    return torch.stack([w.abs().sum() for w in weights]).sum()
