"""The last block's maps stay near the source's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..teaching import Teaching

__all__ = ["DELTA"]


class DELTA(Teaching):
    r"""Keep the maps of the last block near the source network's, channel by channel.

    .. math:: L = L_{task} + \tfrac{w}{2} \sum_c a_c \lVert m_c(x) - m_c^0(x) \rVert_2^2

    - **What it does**: adds the squared distance of the maps behind the last block, averaged over the batch; ``attend``
      gives the channels that matter for the task a larger weight, otherwise all count alike.
    - **When it helps**: few images; freer than ``l2_sp``, since weights may move as long as the maps stay.
    - **Cost**: a forward pass of the frozen source network and a copy of it.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``, very large freezes the maps.
    - **What it cannot do**: keep what the source's maps do not show.

    References:
        Li, Xiong, Wang, Rao, Liu, Huan. DELTA: deep learning transfer using feature map with attention for
        convolutional networks. ICLR 2019.
    """

    inside = True

    def __init__(self, weight: float = 0.01) -> None:
        super().__init__(weight)
        self.register_buffer("attention", torch.ones(0))

    def attend(self, image: Tensor, label: Tensor, head: nn.Module) -> None:
        """Weight each channel by how much the loss grows without it, as softmax times the number of channels.

        Args:
            image: of the task, ``(B, C, *spatial)``.
            label: ``(B,)``.
            head: trained on the frozen features, from the last block's map to logits.
        """
        with torch.no_grad():
            self.teacher(image)
            maps = self._taps[1].value
            losses = []
            for channel in range(maps.shape[1]):
                without = maps.clone()
                without[:, channel] = 0
                losses.append(nn.functional.cross_entropy(head(without), label))
            gain = torch.stack(losses) - nn.functional.cross_entropy(head(maps), label)
        self.attention = gain.softmax(0) * maps.shape[1]

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Half the weighted squared distance of the maps ``(B, C, *spatial)``."""
        each = (student.float() - teacher.float()).square().flatten(2).sum(-1).mean(0)
        return (each * self.attention if len(self.attention) else each).sum() / 2
