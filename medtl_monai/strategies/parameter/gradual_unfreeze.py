"""Blocks join in one by one."""

from __future__ import annotations

from torch import nn

from ...backbones import anatomy
from ...utils import UserError
from ._freezing import Freezing, prefixes_of

__all__ = ["GradualUnfreeze"]


class GradualUnfreeze(Freezing):
    """Train the head first, then one more block every few epochs, from the head towards the input.

    - **What it does**: blocks join in one by one; blocks still waiting are frozen exactly.
    - **When it helps**: few images, against forgetting: early blocks move only once the head is sensible.
    - **Cost**: early epochs are cheaper than ``finetune``'s.
    - **Settings**: ``every``: epochs between two unfreezings (1: fast; the number of epochs or more: as ``freeze``);
      ``start``: how many blocks are trained in the first epoch, the head counted (all: as ``finetune``).
    - **What it cannot do**: reach the early blocks when ``every`` times the number of blocks exceeds the epochs.

    References:
        Howard, Ruder. Universal language model fine-tuning for text classification. ACL 2018.
    """

    cached = "freezes"

    def __init__(self, every: int = 1, start: int = 1) -> None:
        super().__init__()
        if every < 1 or start < 1:
            raise UserError(f"gradual_unfreeze: every and start must be 1 or more, got every={every}, start={start}.")
        self.every, self.start = every, start

    def on_epoch(self, network: nn.Module, epoch: int) -> None:
        """Open as many blocks as the epoch allows.

        Not in ``prepare``: DDP must see every parameter trainable when it wraps the network, else gradients of blocks
        that are opened later would not be averaged.
        """
        trained = self.start + (epoch - 1) // self.every
        parts = anatomy(network)
        self.freeze(network, prefixes_of(parts, slice(None, max(0, len(parts.blocks) - trained))))
