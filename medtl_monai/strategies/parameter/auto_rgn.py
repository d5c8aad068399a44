"""Rates follow the blocks' gradients."""

from __future__ import annotations

from typing import cast

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from ...backbones import anatomy
from ...utils import MonaiEngine, is_under, unwrap
from ..base import Strategy

__all__ = ["AutoRGN", "relative_gradient_norms"]


class AutoRGN(Strategy):
    """Let each block learn as fast as its gradients are large against its weights.

    - **What it does**: every step, each block's learning rate is the schedule's times its relative gradient norm, the
      largest being 1.
    - **When it helps**: it is not known which blocks have to change (see ``surgical``).
    - **Cost**: two norms of every parameter a step.
    - **What it cannot do**: speed up a block beyond the schedule's rate.

    References:
        Lee, Chen, Tajwar et al. Surgical fine-tuning improves adaptation to distribution shifts. ICLR 2023.
    """

    needs_source = True

    def param_groups(self, network: nn.Module, lr: float) -> list[dict[str, object]]:
        """One group a block."""
        named = dict(unwrap(network).named_parameters())
        blocks = anatomy(network).blocks
        return [
            {"params": [p for name, p in named.items() if is_under(name, block.prefixes)], "lr": lr} for block in blocks
        ]

    def attach(self, engine: Engine) -> None:
        """Scale the rates between the backward pass and the optimizer's step."""
        super().attach(engine)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._scale)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._restore)

    def _scale(self, engine: MonaiEngine) -> None:
        groups = engine.optimizer.param_groups
        self._rates = [group["lr"] for group in groups]
        for group, factor in zip(groups, relative_gradient_norms([group["params"] for group in groups]), strict=True):
            group["lr"] *= factor

    def _restore(self, engine: MonaiEngine) -> None:
        for group, rate in zip(engine.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate


@torch.no_grad()
def relative_gradient_norms(blocks: list[list[Tensor]]) -> list[float]:
    """Norm of each block's gradients over that of its weights, of any shapes, the largest scaled to 1.

    Example:
        >>> one, two = torch.tensor([3.0, 4.0]), torch.tensor([1.0])
        >>> one.grad, two.grad = torch.tensor([5.0, 0.0]), torch.tensor([0.5])
        >>> relative_gradient_norms([[one], [two]])
        [1.0, 0.5]
    """
    ratios = [_relative_norm([p for p in parameters if p.grad is not None]) for parameters in blocks]
    most = max(ratios) or 1.0
    return [ratio / most for ratio in ratios]


def _relative_norm(parameters: list[Tensor]) -> float:
    """Norm of the gradients of ``parameters``, which all have one, over the norm of their values; 0 of none."""
    if not parameters:
        return 0.0
    gradient = torch.stack([cast("Tensor", p.grad).float().norm() for p in parameters]).norm()
    weight = torch.stack([p.float().norm() for p in parameters]).norm().clamp_min(1e-12)
    return float(gradient / weight)
