"""Relation-based transfer: what is kept is how images, classes or places relate to each other."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..backbones import anatomy
from ..losses import attention_transfer, relational_angles, relational_distances, similarity_preserving
from ..utils import UserError, sum_over_processes, unwrap
from .base import Step, Strategy
from .tap import Tap

__all__ = ["AttentionTransfer", "CoTuning", "RelationalDistillation", "SimilarityPreserving", "category_relations"]


class _Teaching(Strategy):
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

    def train(self, mode: bool = True) -> Strategy:
        """The teacher always predicts."""
        super().train(mode)
        self.teacher.eval()
        return self

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of what student and teacher see in one batch."""
        raise NotImplementedError

    def loss(self, step: Step) -> Tensor | None:
        """The distance on this batch."""
        student = self._taps[0].value if self.inside else self._taps[0].pooled
        with torch.no_grad():
            self.teacher(step.image)
        teacher = self._taps[1].value if self.inside else self._taps[1].pooled
        return self.weight * self.distance(student, teacher)


class RelationalDistillation(_Teaching):
    """Keep the distances and angles between images that the source network sees.

    - **What it does**: adds the Huber loss between the (scaled) distances of all pairs, and the angles of all triplets,
      of a batch's features in the network and in the source network.
    - **When it helps**: few images; freer than ``delta``, since the features themselves may move.
    - **Cost**: a forward pass of the frozen source network and a copy of it; cubic in the batch.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``angles`` in [0, inf): weight of the angles, 0 for
      distances alone.
    - **What it cannot do**: help where the source sees the wrong neighbours.

    References:
        Park, Kim, Lu, Cho. Relational knowledge distillation. CVPR 2019.
    """

    def __init__(self, weight: float = 1.0, angles: float = 2.0) -> None:
        super().__init__(weight)
        if angles < 0:
            raise UserError(f"rkd: angles must be 0 or more, got {angles}.")
        self.angles = angles

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Distances, and angles."""
        return relational_distances(student, teacher) + self.angles * relational_angles(student, teacher)


class SimilarityPreserving(_Teaching):
    """Keep which images of a batch are alike for the source network.

    - **What it does**: adds the distance of the batch's similarity matrices in the network and in the source network.
    - **When it helps**: as ``rkd``; cheaper.
    - **Cost**: a forward pass of the frozen source network and a copy of it.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``, large keeps the source's similarities.
    - **What it cannot do**: help where the source sees the wrong neighbours.

    References:
        Tung, Mori. Similarity-preserving knowledge distillation. ICCV 2019.
    """

    def __init__(self, weight: float = 100.0) -> None:
        super().__init__(weight)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of the similarity matrices."""
        return similarity_preserving(student, teacher)


class AttentionTransfer(_Teaching):
    """Keep where the source network looks.

    - **What it does**: adds the distance of the spatial attention (summed squares over channels) behind the last block.
    - **When it helps**: the source finds the right places; also for segmentation.
    - **Cost**: a forward pass of the frozen source network and a copy of it.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``.
    - **What it cannot do**: help from ImageNet on images where nothing looks like an object.

    References:
        Zagoruyko, Komodakis. Paying more attention to attention. ICLR 2017.
    """

    inside = True

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of the attention maps."""
        if student.ndim < 3:
            raise UserError("attention_transfer needs maps, and this network's last block gives vectors.")
        return attention_transfer(student, teacher)


class CoTuning(_Teaching):
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

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.source_head: nn.Module = nn.Identity()
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
