"""Where the source looks is kept."""

from __future__ import annotations

from torch import Tensor

from ...losses import attention_transfer
from ...utils import UserError
from ..teaching import Teaching

__all__ = ["AttentionTransfer"]


class AttentionTransfer(Teaching):
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
