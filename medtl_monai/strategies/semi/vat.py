"""Predictions stay under the change that alters them most."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from ...utils import UserError
from ..base import Step, Strategy
from ._consistency import Still

__all__ = ["VAT", "virtual_adversarial_loss"]


class VAT(Strategy):
    """Make predictions stable under the small change of each image that alters them most.

    - **What it does**: adds the virtual adversarial loss of the training images and, if there is a target folder, of as
      many images without labels.
    - **When it helps**: few labels; smoother decisions also without any further images.
    - **Cost**: three more forward and two more backward passes a step, twice that with images without labels.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``epsilon`` above 0: length of the change, larger is
      stronger; ``xi`` above 0: length of the probe.
    - **What it cannot do**: correct a prediction that is stable and wrong.

    References:
        Miyato, Maeda, Koyama, Ishii. Virtual adversarial training. IEEE TPAMI 41(8), 2019. In the chain ``fixmatch``,
        ``vat``: Wang, Chen, Xiang et al. Deep virtual adversarial self-training with consistency regularization for
        semi-supervised medical image classification. Medical Image Analysis 70, 2021.
    """

    tasks = ("classification", "segmentation")

    def __init__(self, weight: float = 1.0, epsilon: float = 2.0, xi: float = 0.1) -> None:
        super().__init__()
        if weight < 0 or epsilon <= 0 or xi <= 0:
            raise UserError(f"vat: weight 0 or more, epsilon and xi above 0; got {weight}, {epsilon}, {xi}.")
        self.weight, self.epsilon, self.xi = weight, epsilon, xi

    def loss(self, step: Step) -> Tensor | None:
        """Of this batch and of the next images without labels."""
        lengths = {"xi": self.xi, "epsilon": self.epsilon}
        with Still(step.network):
            total = virtual_adversarial_loss(step.network, step.image, step.pred, **lengths)
            if self.context.target is not None:
                (image,) = self.context.target.next("augmented")
                with torch.no_grad():
                    logits = step.network(image)
                total = total + virtual_adversarial_loss(step.network, image, logits, **lengths)
        return self.weight * total


def virtual_adversarial_loss(
    network: Callable[[Tensor], Tensor], image: Tensor, logits: Tensor, *, xi: float, epsilon: float
) -> Tensor:
    """Divergence of the prediction under the small change of each image that alters it most.

    .. math:: KL(p(y|x) \\,\\Vert\\, p(y|x + r)), \\quad r = \\epsilon g / \\lVert g \\rVert, \\quad
        g = \\nabla_r KL(p(y|x) \\,\\Vert\\, p(y|x + r)) |_{r = \\xi d}

    Args:
        network: from images to logits ``(B, C, *spatial)``.
        image: ``(B, channels, *spatial)``.
        logits: of ``image``; taken as constant.
        xi: length of the random probe.
        epsilon: length of the change, in units of the normalized image.

    References:
        Miyato, Maeda, Koyama, Ishii. Virtual adversarial training. IEEE TPAMI 41(8), 2019.
    """
    p = logits.detach().float().softmax(1)
    probe = _unit(torch.randn_like(image)).requires_grad_()
    (gradient,) = torch.autograd.grad(_divergence(p, network(image + xi * probe)), probe)
    return _divergence(p, network(image + epsilon * _unit(gradient.detach())))


def _divergence(p: Tensor, logits: Tensor) -> Tensor:
    return kl_div(logits.float().log_softmax(1), p, reduction="none").sum(1).mean()


def _unit(x: Tensor) -> Tensor:
    return x / x.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (x.ndim - 1))
