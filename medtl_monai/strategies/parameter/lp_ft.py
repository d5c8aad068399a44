"""First the head, then everything."""

from __future__ import annotations

from torch import nn

from ...backbones import anatomy
from ...utils import UserError
from ._freezing import Freezing, prefixes_of

__all__ = ["LPFT"]


class LPFT(Freezing):
    """Linear probe, then fine-tune: a sensible head first, so that its first gradients do not distort the features.

    - **What it does**: the head alone is trained for ``probe_epochs``, then everything.
    - **When it helps**: out-of-distribution robustness (other scanners, other hospitals), few images.
    - **Cost**: the probe's epochs need no backward pass through the backbone.
    - **Settings**: ``probe_epochs``: 0 gives ``finetune``, the number of epochs or more gives ``freeze``.
    - **What it cannot do**: help where the features must change a lot; the probe's epochs are then lost.

    References:
        Kumar, Raghunathan, Jones, Ma, Liang. Fine-tuning can distort pretrained features and underperform
        out-of-distribution. ICLR 2022.
    """

    cached = "freezes"

    def __init__(self, probe_epochs: int = 2) -> None:
        super().__init__()
        if probe_epochs < 0:
            raise UserError(f"lp_ft: probe_epochs must be 0 or more, got {probe_epochs}.")
        self.probe_epochs = probe_epochs

    def on_epoch(self, network: nn.Module, epoch: int) -> None:
        """Freeze the backbone during the probe (not in ``prepare``, for DDP's sake)."""
        probing = epoch <= self.probe_epochs
        self.freeze(network, prefixes_of(anatomy(network), slice(None, -1)) if probing else ())
