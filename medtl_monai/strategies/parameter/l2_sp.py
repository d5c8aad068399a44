"""A penalty on the squared distance from the start."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...backbones import anatomy
from ...utils import UserError, is_under, unwrap
from ..base import Step, Strategy
from ._anchor import anchor_name
from .l2 import l2_penalty

__all__ = ["L2SP", "l2_sp_penalty"]


class L2SP(Strategy):
    r"""Pull the weights towards where they started instead of towards zero.

    .. math:: L = L_{task} + \tfrac{\alpha}{2} \lVert w_S - w_S^0 \rVert_2^2 + \tfrac{\beta}{2} \lVert w_H \rVert_2^2

    with :math:`w_S` the transferred weights, :math:`w_S^0` their value at ``prepare`` and :math:`w_H` the head's.

    - **What it does**: adds both terms over all trained parameters; the anchor is kept in the strategy's buffers.
    - **When it helps**: few images and a source close to the target; it limits forgetting.
    - **Cost**: a copy of the weights and one pass over them a step.
    - **Settings**: ``alpha`` in [0, inf): 0 frees the backbone, very large freezes it; ``beta`` in [0, inf): the same
      for the head, towards zero. Best with the optimizer's ``weight_decay`` at 0, which would pull towards zero.
    - **What it cannot do**: hold batch-norm statistics, which are no parameters.

    References:
        Li, Grandvalet, Davoine. Explicit inductive bias for transfer learning with convolutional networks. ICML 2018.
    """

    needs_source = True
    cached = "beside"

    def __init__(self, alpha: float = 0.01, beta: float = 0.01) -> None:
        super().__init__()
        if alpha < 0 or beta < 0:
            raise UserError(f"l2_sp: alpha and beta must be 0 or more, got alpha={alpha}, beta={beta}.")
        self.alpha, self.beta = alpha, beta
        self._head = ""

    def prepare(self, network: nn.Module) -> nn.Module:
        """Take the anchor: a copy of all weights but the head's."""
        self._head = anatomy(network).head
        for name, parameter in unwrap(network).named_parameters():
            if not is_under(name, [self._head]):
                # a clone: a detached tensor shares its storage with the weight, and the penalty would stay 0
                self.register_buffer(anchor_name(name), parameter.detach().clone())
        return network

    def distance(self, weights: list[Tensor], anchors: list[Tensor]) -> Tensor:
        """Half the sum of squared differences of weights of any shapes."""
        return l2_sp_penalty(weights, anchors)

    def loss(self, step: Step) -> Tensor | None:
        """The two terms over what is trained at present."""
        head, kept = [], {}
        for name, p in step.network.named_parameters():
            if p.requires_grad and is_under(name, [self._head]):
                head.append(p)
            elif p.requires_grad:
                kept[name] = p
        terms = []
        if kept:
            anchors = [self.get_buffer(anchor_name(name)) for name in kept]
            terms.append(self.alpha * self.distance(list(kept.values()), anchors))
        if head:
            terms.append(self.beta * l2_penalty(head))
        return torch.stack(terms).sum() if terms else None


def l2_sp_penalty(weights: list[Tensor], anchors: list[Tensor]) -> Tensor:
    r"""Half the squared distance from the start, :math:`\tfrac12 \lVert w - w^0 \rVert_2^2`, of weights of any shapes.

    Example:
        >>> l2_sp_penalty([torch.tensor([1.0, -2.0])], [torch.tensor([0.0, -4.0])]).item()
        2.5
    """
    return l2_penalty([w - a for w, a in zip(weights, anchors, strict=True)])
