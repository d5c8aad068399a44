"""A penalty on squares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._penalty import Penalty

__all__ = ["L2", "l2_penalty"]


class L2(Penalty):
    r"""Ridge: a penalty on the squares, which shrinks all weights.

    .. math:: L = L_{task} + \tfrac{\lambda}{2} \sum_{j=1}^{p} w_j^2

    - **What it does**: adds the sum over all trained weights (of two axes or more) to the task's loss. Under Adam this
      is not the same as decoupled weight decay (AdamW), which the optimizer's ``weight_decay`` gives.
    - **When it helps**: against overfitting of long trainings.
    - **Cost**: one pass over the weights a step.
    - **Settings**: ``weight`` (lambda) in [0, inf): 0 is ``finetune``; too large drives all weights towards zero.
    - **What it cannot do**: keep the source's knowledge; it pulls towards zero, not towards the source (see ``l2_sp``).

    References:
        Hoerl, Kennard. Ridge regression: biased estimation for nonorthogonal problems. Technometrics 12, 1970.
        Loshchilov, Hutter. Decoupled weight decay regularization. ICLR 2019.
    """

    cached = "beside"

    def __init__(self, weight: float = 1e-4) -> None:
        super().__init__(weight)

    def norm(self, weights: Sequence[Tensor]) -> Tensor:
        """Half the sum of squares of weights of any shapes."""
        return l2_penalty(weights)


def l2_penalty(weights: Sequence[Tensor]) -> Tensor:
    r"""Half the sum of squares, :math:`\tfrac12 \sum_j w_j^2`, over all elements of ``weights``, of any shapes.

    Example:
        >>> l2_penalty([torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])]).item()
        7.0
    """
    return 0.5 * torch.stack([w.square().sum() for w in weights]).sum()
