"""The network agrees with its own moving average."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from ...utils import MonaiEngine, UserError, unwrap
from ..average import follow
from ..base import Step, Strategy
from ._consistency import two_views

__all__ = ["MeanTeacher", "ramp_up"]


class MeanTeacher(Strategy):
    """Agree, on images without labels, with the moving average of the network itself.

    - **What it does**: a teacher holds the exponential moving average of the weights; the network's softmax on one
      augmented view of an image is drawn to the teacher's on another, more so as training goes on.
    - **When it helps**: many more images than labels. For segmentation both see the same view, so that places fit.
    - **Cost**: two forward passes more a step, one of them with a backward pass, and a copy of the network.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``decay`` in [0, 1): 0 follows at once, near 1 slowly.
    - **What it cannot do**: repair a teacher that is wrong from the start.

    References:
        Tarvainen, Valpola. Mean teachers are better role models. NeurIPS 2017.
    """

    needs: ClassVar[tuple[str, ...]] = ("target",)
    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation")

    def __init__(self, weight: float = 10.0, decay: float = 0.99) -> None:
        super().__init__()
        if weight < 0 or not 0 <= decay < 1:
            raise UserError(f"mean_teacher: weight 0 or more, decay in [0, 1); got {weight}, {decay}.")
        self.weight, self.decay = weight, decay
        self.teacher: nn.Module = nn.Identity()

    def prepare(self, network: nn.Module) -> nn.Module:
        """Copy the teacher."""
        self.teacher = copy.deepcopy(unwrap(network)).requires_grad_(False)
        return network

    def attach(self, engine: Engine) -> None:
        """Follow the network after every step."""
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._follow)

    def _follow(self, engine: MonaiEngine) -> None:
        share = max(1 - self.decay, 1 / (engine.state.iteration + 1))  # quicker at first
        follow(self.teacher.state_dict().values(), unwrap(engine.network).state_dict().values(), share)

    def loss(self, step: Step) -> Tensor | None:
        """Squared distance of the two softmax outputs."""
        one, other = two_views(self, ("augmented", "augmented"))
        with torch.no_grad():
            wanted = self.teacher.eval()(one).float().softmax(1)
        found = step.network(other).float().softmax(1)
        return self.weight * ramp_up(step.progress) * (found - wanted).square().mean()


def ramp_up(progress: float, length: float = 0.4) -> float:
    """From 0 to 1 over the first ``length`` of the training: ``exp(-5 (1 - t)^2)`` (Laine, Aila. ICLR 2017).

    Example:
        >>> ramp_up(0.4), round(ramp_up(0.0), 4)
        (1.0, 0.0067)
    """
    return math.exp(-5 * (1 - min(1.0, progress / length)) ** 2)
