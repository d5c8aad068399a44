"""No weights are transferred."""

from __future__ import annotations

from ..base import Strategy

__all__ = ["Scratch"]


class Scratch(Strategy):
    """Train every weight from the random initialization: the control without transfer.

    - **What it does**: tells the bundle to leave the pretrained weights out.
    - **When it helps**: it shows what the transfer is worth; with many thousand images it can catch up.
    - **Cost**: as ``finetune`` an epoch, and several times the epochs.
    - **What it cannot do**: work well on a few hundred images.

    References:
        Raghu, Zhang, Kleinberg, Bengio. Transfusion: understanding transfer learning for medical imaging. NeurIPS 2019.
    """

    @property
    def from_scratch(self) -> bool:
        """Always true."""
        return True
