"""What strategies with a teacher share: the network as it was before training."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

from ..backbones import anatomy
from ..backbones.tap import Tap
from ..utils import UserError, unwrap
from .base import Step, Strategy

__all__ = ["Teaching"]


class Teaching(Strategy):
    """Base of the strategies with a frozen teacher: the network as it was at ``prepare``.

    Args:
        weight: of the extra loss, in ``[0, inf)``.
    """

    needs_source = True
    inside = False
    """Whether the last block's map is compared, instead of the head's features."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise UserError(f"{type(self).__name__}: weight must be 0 or more, got {weight}.")
        self.weight = weight
        self.teacher: nn.Module = nn.Identity()
        self._taps: list[Tap] = []

    def prepare(self, network: nn.Module) -> nn.Module:
        """Copy the teacher and listen to both."""
        self.teacher = copy.deepcopy(unwrap(network)).requires_grad_(False).eval()
        parts = anatomy(network)
        where = {"module": parts.blocks[-2].prefixes[-1], "entering": False} if self.inside else {"module": parts.head}
        self._taps = [Tap(network, **where), Tap(self.teacher, **where)]
        return network

    def close(self) -> None:
        """Stop listening."""
        for tap in self._taps:
            tap.close()

    def on_forward(self) -> None:
        """Hold on to what the network saw of this batch."""
        self._taps[0].pin()

    def train(self, mode: bool = True) -> Self:
        """The teacher always predicts."""
        super().train(mode)
        self.teacher.eval()
        return self

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of what both see in a batch: features ``(B, F)``, or, ``inside``, maps ``(B, C, *spatial)``."""
        raise NotImplementedError

    def loss(self, step: Step) -> Tensor | None:
        """The distance on this batch."""
        student = self._taps[0].value if self.inside else self._taps[0].pooled
        with torch.no_grad():
            self.teacher(step.image)
        teacher = self._taps[1].value if self.inside else self._taps[1].pooled
        return self.weight * self.distance(student, teacher)
