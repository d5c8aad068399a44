"""The two losses of a generative adversarial network, as MONAI's ``GanTrainer`` calls them."""

from __future__ import annotations

from monai.losses import PatchAdversarialLoss
from torch import Tensor, nn

__all__ = ["AdversarialLosses"]


class AdversarialLosses:
    """Least-squares losses around a discriminator, by MONAI's ``PatchAdversarialLoss``.

    Args:
        discriminator: from images to scores, without a last activation.

    References:
        Mao, Li, Xie, Lau, Wang, Smolley. Least squares generative adversarial networks. ICCV 2017.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        self.discriminator = discriminator
        self.loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def discriminator_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """Real images shall score 1, made ones 0; scores of any shape to a scalar."""
        made = self.loss(self.discriminator(fake.detach()), target_is_real=False, for_discriminator=True)
        return (made + self.loss(self.discriminator(real), target_is_real=True, for_discriminator=True)) / 2

    def generator_loss(self, fake: Tensor) -> Tensor:
        """Made images shall score 1; scores of any shape to a scalar."""
        return self.loss(self.discriminator(fake), target_is_real=True, for_discriminator=False)
