"""A discriminator of the domains and a gradient that is turned round."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ...backbones import anatomy
from ...losses import gradient_reversal
from ...utils import UserError, unwrap
from ..base import Step
from ..listening import FeatureStrategy

__all__ = ["DANN"]


class DANN(FeatureStrategy):
    """Train the features so that a second network cannot tell the domains apart.

    .. math:: L = L_{task} + w \\, L_{domain}(D(R_\\lambda(f))), \\quad \\lambda = \\frac{2}{1 + e^{-10 p}} - 1

    - **What it does**: a discriminator learns to name the domain; the gradient that it sends into the network is turned
      round (R), and grows from 0 to 1 with the progress p of the training.
    - **When it helps**: as ``mmd``, and with larger shifts; needs more images and some patience.
    - **Cost**: a second forward and backward pass and a small network.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``hidden``: width of the discriminator;
      ``target_statistics``: false keeps the target out of batch norm.
    - **What it cannot do**: guarantee that classes are aligned with themselves; adversarial training may not settle.

    References:
        Ganin, Ustinova, Ajakan et al. Domain-adversarial training of neural networks. JMLR 17(59), 2016.
    """

    needs: ClassVar[tuple[str, ...]] = ("target",)

    def __init__(self, weight: float = 1.0, hidden: int = 256, target_statistics: bool = True) -> None:
        super().__init__(weight, target_statistics)
        if hidden < 1:
            raise UserError(f"{type(self).__name__}: hidden must be 1 or more, got {hidden}.")
        self.hidden = hidden
        self.discriminator: nn.Module = nn.Identity()

    def inputs(self, network: nn.Module) -> int:
        """How many numbers the discriminator sees."""
        return anatomy(network).features

    def prepare(self, network: nn.Module) -> nn.Module:
        """Make the discriminator."""
        device = next(unwrap(network).parameters()).device
        layers = [nn.Linear(self.inputs(network), self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1)]
        self.discriminator = nn.Sequential(*layers).to(device)
        return super().prepare(network)

    def seen(self, features: Tensor, pred: Any) -> Tensor:
        """What the discriminator sees of a batch: features ``(B, F)``."""
        return features

    def loss(self, step: Step) -> Tensor | None:
        """The discriminator's loss, its gradient turned round for the network."""
        source = self.seen(self.features, step.pred)
        target = self.seen(*self.on_target(step))
        both = gradient_reversal(torch.cat([source, target]).float(), step.progress)
        with torch.autocast(both.device.type, enabled=False):
            logits = self.discriminator(both)[:, 0]
        truth = torch.cat([logits.new_ones(len(source)), logits.new_zeros(len(target))])
        return self.weight * binary_cross_entropy_with_logits(logits, truth)
