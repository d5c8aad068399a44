"""The source's classifier is trained along."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ...utils import UserError, sum_over_processes, unwrap
from ..base import Step
from ..teaching import Teaching

__all__ = ["CoTuning", "category_relations"]


class CoTuning(Teaching):
    """Train the source's classifier along, on the source classes that each target class resembles.

    .. math:: L = L_{task} + w \\, CE\\big(p(y_s | y_t), \\mathrm{softmax}(G_s(f))\\big)

    - **What it does**: the source's own head is kept beside the new one and trained to predict, for each image, the
    mean
      source prediction of its class; these category relations are measured over the first epoch's images with the
      source network.
    - **When it helps**: few images of classes that resemble source classes in some way.
    - **Cost**: a forward pass of the frozen source network in the first epoch; the source's head.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``.
    - **What it cannot do**: work with weights that come without a head, for findings or for segmentation.

    References:
        You, Kou, Long, Wang. Co-Tuning for transfer learning. NeurIPS 2020.
    """

    needs = ("source_head", "classes")
    tasks = ("classification",)

    sums: Tensor
    counts: Tensor

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.source_head: Any = nn.Identity()
        self._measuring = False

    def prepare(self, network: nn.Module) -> nn.Module:
        """Keep the source's head."""
        head = self.context.source_head
        assert head is not None, "bind comes first"
        device = next(unwrap(network).parameters()).device
        self.source_head = copy.deepcopy(head).to(device).requires_grad_(True)
        self.teacher_head = copy.deepcopy(self.source_head).requires_grad_(False)
        sources = self.source_head.weight.shape[0]
        self.register_buffer("sums", torch.zeros(self.context.classes, sources, device=device))
        self.register_buffer("counts", torch.zeros(self.context.classes, device=device))
        return super().prepare(network)

    def loss(self, step: Step) -> Tensor | None:
        """Cross-entropy of the source's classes against the relations known so far."""
        if step.label.ndim != 1:
            raise UserError("co_tuning needs one class an image: leave out mix.")
        student = self._taps[0].pooled
        if self._measuring:
            with torch.no_grad():
                self.teacher(step.image)
                p = self.teacher_head(self._taps[1].pooled).float().softmax(1)
            sums, counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)
            sums.index_add_(0, step.label, p)
            counts.index_add_(0, step.label, torch.ones_like(step.label, dtype=counts.dtype))
            sum_over_processes(sums, counts)
            self.sums += sums
            self.counts += counts
        relations = category_relations(self.sums, self.counts)[step.label]
        log_p = self.source_head(student).float().log_softmax(1)
        return -self.weight * (relations * log_p).sum(1).mean()

    def on_epoch(self, network: nn.Module, epoch: int) -> None:
        """Measure the relations in the first epoch alone."""
        self._measuring = epoch == 1


def category_relations(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean source probabilities ``(classes, source classes)`` of each class; rows of unseen classes are 0.

    Example:
        >>> category_relations(torch.tensor([[1.5, 0.5], [0.0, 0.0]]), torch.tensor([2.0, 0.0]))
        tensor([[0.7500, 0.2500],
                [0.0000, 0.0000]])
    """
    return sums / counts.clamp_min(1)[:, None]
