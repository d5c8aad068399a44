"""One part of the network is trained."""

from __future__ import annotations

from torch import nn

from ...backbones import anatomy
from ...utils import UserError
from .partial_freeze import PartialFreeze

__all__ = ["Surgical"]


class Surgical(PartialFreeze):
    """Train one part of the network and the head, and freeze the rest.

    - **What it does**: the blocks before the head are divided into three parts; ``part`` is trained.
    - **When it helps**: ``first`` for shifts of noise, contrast or scanner; ``middle`` for shifts of features; ``last``
      for other classes.
    - **Cost**: ``last`` is cheap; ``first`` needs the whole backward pass.
    - **Settings**: ``part``: ``first``, ``middle`` or ``last``.
    - **What it cannot do**: choose the part; compare them on validation patients.

    References:
        Lee, Chen, Tajwar et al. Surgical fine-tuning improves adaptation to distribution shifts. ICLR 2023.
    """

    def __init__(self, part: str = "first") -> None:
        super().__init__()
        if part not in ("first", "middle", "last"):
            raise UserError(f"surgical: part must be first, middle or last, got {part!r}.")
        self.part = part

    def prepare(self, network: nn.Module) -> nn.Module:
        """Freeze the other parts."""
        body = anatomy(network).blocks[:-1]
        third = ("first", "middle", "last").index(self.part)
        low = round(third * len(body) / 3)
        high = max(low + 1, round((third + 1) * len(body) / 3))
        frozen = [*body[:low], *body[high:]]
        self.freeze(network, tuple(prefix for block in frozen for prefix in block.prefixes))
        return network
