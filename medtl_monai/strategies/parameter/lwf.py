"""The source's predictions are kept."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from ...losses import distillation
from ...utils import UserError, unwrap
from ..teaching import Teaching

__all__ = ["LwF"]


class LwF(Teaching):
    """Keep the source's predictions on the new images (learning without forgetting).

    - **What it does**: the source's own head stays beside the new one; its softened predictions are drawn to those of
      the frozen source network.
    - **When it helps**: the old task must still be done, and its images are gone.
    - **Cost**: a forward pass of the frozen source network, a copy of it, and the source's head.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``temperature`` above 0: softens the predictions.
    - **What it cannot do**: work with weights that come without a head; remember what the new images do not touch.

    References:
        Li, Hoiem. Learning without forgetting. IEEE TPAMI 40(12), 2018.
    """

    needs = ("source_head",)
    tasks = ("classification", "multilabel")

    def __init__(self, weight: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__(weight)
        if temperature <= 0:
            raise UserError(f"lwf: temperature must be above 0, got {temperature}.")
        self.temperature = temperature
        self.source_head: nn.Module = nn.Identity()
        self.teacher_head: nn.Module = nn.Identity()

    def prepare(self, network: nn.Module) -> nn.Module:
        """Keep the source's head, to be trained along, and as it was."""
        assert self.context.source_head is not None, "bind comes first"
        head = copy.deepcopy(self.context.source_head).to(next(unwrap(network).parameters()).device)
        self.source_head = head.requires_grad_(True)
        self.teacher_head = copy.deepcopy(head).requires_grad_(False)
        return super().prepare(network)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of the source head's predictions."""
        return distillation(self.source_head(student), self.teacher_head(teacher), self.temperature)
