"""A penalty on the distance from the start."""

from __future__ import annotations

import torch
from torch import Tensor

from .l2_sp import L2SP

__all__ = ["L1SP"]


class L1SP(L2SP):
    r"""Pull the weights towards where they started, by their distance instead of its square.

    .. math:: L = L_{task} + \alpha \lVert w_S - w_S^0 \rVert_1 + \tfrac{\beta}{2} \lVert w_H \rVert_2^2

    - **What it does**: as ``l2_sp``; many weights stay exactly where they were, a few go far.
    - **When it helps**: as ``l2_sp``, where few features have to change.
    - **Cost**: as ``l2_sp``.
    - **Settings**: ``alpha`` and ``beta`` in [0, inf), as ``l2_sp``; smaller values do here.
    - **What it cannot do**: hold batch-norm statistics, which are no parameters.

    References:
        Li, Grandvalet, Davoine. Explicit inductive bias for transfer learning with convolutional networks. ICML 2018.
    """

    def __init__(self, alpha: float = 1e-4, beta: float = 0.01) -> None:
        super().__init__(alpha, beta)

    def distance(self, weights: list[Tensor], anchors: list[Tensor]) -> Tensor:
        """Sum of absolute differences of weights of any shapes."""
        return torch.stack([(w - a).abs().sum() for w, a in zip(weights, anchors, strict=True)]).sum()
