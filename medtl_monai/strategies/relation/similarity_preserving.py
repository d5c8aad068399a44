"""Which images are alike is kept."""

from __future__ import annotations

from torch import Tensor

from ...losses import similarity_preserving
from ..teaching import Teaching

__all__ = ["SimilarityPreserving"]


class SimilarityPreserving(Teaching):
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
