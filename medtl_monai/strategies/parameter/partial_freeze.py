"""The first blocks stand still."""

from __future__ import annotations

from torch import nn

from ...backbones import anatomy
from ...utils import UserError
from ._freezing import Freezing, prefixes_of

__all__ = ["PartialFreeze"]


class PartialFreeze(Freezing):
    """Freeze the first blocks, train the rest.

    - **What it does**: the blocks nearest to the input, which hold the most general features, are frozen exactly.
    - **When it helps**: few images; limited memory or time, since the early blocks have the largest feature maps.
    - **Cost**: no backward pass through the frozen blocks.
    - **Settings**: ``blocks``: how many blocks are frozen, counted from the input (1: the stem alone; all but one: as
      ``freeze``), or negative: how many are trained, counted from the head (-1: the head alone); ``None``: a quarter,
      which on most networks saves half of the work, as early feature maps are large.
    - **What it cannot do**: adapt to a new modality whose low-level statistics differ (noise, texture).

    References:
        Yosinski, Clune, Bengio, Lipson. How transferable are features in deep neural networks? NeurIPS 2014.
    """

    cached = "freezes"

    def __init__(self, blocks: int | None = None) -> None:
        super().__init__()
        self.blocks = blocks

    def prepare(self, network: nn.Module) -> nn.Module:
        """Freeze the first blocks.

        Raises:
            UserError: the network has too few blocks.
        """
        parts = anatomy(network)
        n = len(parts.blocks)
        blocks = max(1, n // 4) if self.blocks is None else self.blocks
        if not 0 < abs(blocks) < n:
            names = ", ".join(block.name for block in parts.blocks)
            raise UserError(
                f"partial_freeze: blocks={blocks} leaves nothing to freeze or nothing to train: "
                f"give a number from 1 to {n - 1} (or -{n - 1} to -1); the blocks are {names}."
            )
        self.freeze(network, prefixes_of(parts, slice(None, blocks)))
        return network
