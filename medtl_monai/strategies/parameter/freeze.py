"""The head alone is trained."""

from __future__ import annotations

from torch import nn

from ...backbones import anatomy
from ._freezing import Freezing, prefixes_of

__all__ = ["Freeze"]


class Freeze(Freezing):
    """Train the head alone: feature extraction, also called linear probe.

    - **What it does**: every block but the head is frozen exactly (weights and batch-norm statistics).
    - **When it helps**: tens of images, or a source close to the target; a quick lower bound for any comparison.
    - **Cost**: no backward pass through the backbone and optimizer state for the head alone.
    - **What it cannot do**: adapt the features; on images unlike the source's it stays well below ``finetune``.

    References:
        Donahue et al. DeCAF: a deep convolutional activation feature for generic visual recognition. ICML 2014.
    """

    cached = "freezes"

    def prepare(self, network: nn.Module) -> nn.Module:
        """Freeze all blocks but the head."""
        self.freeze(network, prefixes_of(anatomy(network), slice(None, -1)))
        return network
