"""Rare classes count more."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from ...utils import UserError, unwrap
from ..base import Step
from ._weighting import Weighting

__all__ = ["ClassBalanced", "effective_number_weights"]


class ClassBalanced(Weighting):
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
    cached = "beside"

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
    """Weight of each class, ``(C,)``, whose mean over all images is 1; 0 for a class without images.

    Example:
        >>> [round(w, 6) for w in effective_number_weights([3, 1], 0.5).tolist()]  # 1 / 1.75 and 1 / 1, scaled
        [0.842105, 1.473684]
    """
    n = torch.tensor(sizes, dtype=torch.float64)
    raw = torch.where(n > 0, (1 - beta) / (1 - beta**n).clamp_min(1e-12), 0.0)
    return (raw * n.sum() / (raw * n).sum()).float()
