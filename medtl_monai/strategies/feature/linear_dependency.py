"""Codes of several domains that depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...backbones import anatomy
from ...losses import linear_dependency, normal_divergence
from ...utils import UserError, unwrap
from ..base import Step
from ..listening import FeatureStrategy

__all__ = ["LinearDependency"]


class LinearDependency(FeatureStrategy):
    r"""Let the codes of a batch from several domains be combinations of as many codes as there are classes (LDDG).

    .. math:: L = L_{task} + CE(T(z), y) + \lambda \, KL(q(z|x) \,\Vert\, N(0, I)) + w \, \sigma_{C+1}(Z)

    - **What it does**: a variational encoder beside the head draws codes z from the features; a classifier T of their
      own keeps them meaningful; the batch's singular value after the first C, the number of classes, is driven to 0.
      In the paper the task's classifier itself takes the codes; here it stays as it is, and nothing is left behind.
    - **When it helps**: a model for scanners that are not known yet, from training images of several.
    - **Cost**: two small layers and a singular value decomposition of a batch of codes a step.
    - **Settings**: ``weight`` (w) in [0, inf): too large makes the images of a class equal; ``divergence`` in [0, inf):
      too large empties the codes; ``codes`` 1 or more: their length.
    - **What it cannot do**: use images without labels; see domains that all training images share.

    References:
        Li, Wang, Wan, Wang, Li, Kot. Domain generalization for medical imaging classification with linear-dependency
        regularization. NeurIPS 2020.
    """

    needs = ("classes",)
    tasks = ("classification",)

    def __init__(self, weight: float = 1e-3, divergence: float = 1e-2, codes: int = 64) -> None:
        super().__init__(weight)
        if divergence < 0 or codes < 1:
            raise UserError(f"linear_dependency: divergence 0 or more, codes 1 or more; got {divergence}, {codes}.")
        self.divergence, self.codes = divergence, codes
        self.encoder: nn.Module = nn.Identity()
        self.classifier: nn.Module = nn.Identity()

    def prepare(self, network: nn.Module) -> nn.Module:
        """Make encoder and classifier."""
        device = next(unwrap(network).parameters()).device
        self.encoder = nn.Linear(anatomy(network).features, 2 * self.codes).to(device)
        self.classifier = nn.Linear(self.codes, self.context.classes).to(device)
        return super().prepare(network)

    def loss(self, step: Step) -> Tensor | None:
        """Of this batch's codes."""
        if step.label.ndim != 1:
            raise UserError("linear_dependency needs one class an image: leave out mix.")
        with torch.autocast(step.image.device.type, enabled=False):
            mean, log_variance = self.encoder(self.features.float()).chunk(2, 1)
            codes = mean + torch.randn_like(mean) * (log_variance / 2).exp()
            known = cross_entropy(self.classifier(codes), step.label)
            rank = linear_dependency(codes, self.context.classes)
            return known + self.divergence * normal_divergence(mean, log_variance) + self.weight * rank
