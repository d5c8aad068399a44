"""Distances and angles between images are kept."""

from __future__ import annotations

from torch import Tensor

from ...losses import relational_angles, relational_distances
from ...utils import UserError
from ..teaching import Teaching

__all__ = ["RelationalDistillation"]


class RelationalDistillation(Teaching):
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
