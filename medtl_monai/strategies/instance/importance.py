"""Images that resemble the target count more."""

from __future__ import annotations

import logging
from typing import ClassVar

import torch
from torch import nn

from ...utils import UserError, unwrap
from ..densities import METHODS, Array, principal_components
from ._weighting import PerImage

__all__ = ["Importance"]

_log = logging.getLogger("medtl_monai")


class Importance(PerImage):
    """Weight the training images towards those of the target folder.

    .. math:: w(x) \\approx p_{target}(x) / p_{training}(x)

    - **What it does**: before training, the pretrained network's features of the training images and of the target
      folder (their first 16 principal components) are compared; each image's loss counts by the ratio of densities.
    - **When it helps**: the target has the same kinds of images in other shares (covariate shift), and no labels.
    - **Cost**: a forward pass over both sets, once, or once for all runs with ``--cache_features`` a folder (beside
      ``freeze``, say); ``kmm`` solves a quadratic program as large as the training set.
    - **Settings**: ``method``: ``kmm`` (kernel mean matching), ``kliep`` or ``discriminator`` (a logistic regression,
      the smoothest).
    - **What it cannot do**: reach kinds of images that the training set has none of; weights spread over few images
      make the training noisy (the log says how many count).

    References:
        Huang, Gretton, Borgwardt, Schoelkopf, Smola. Correcting sample selection bias by unlabeled data. NeurIPS 2006.
        Sugiyama, Nakajima, Kashima, von Buenau, Kawanabe. Direct importance estimation with model selection. NeurIPS
        2007. Bickel, Brueckner, Scheffer. Discriminative learning for differing training and test distributions. ICML
        2007.
    """

    needs: ClassVar[tuple[str, ...]] = ("source", "target")
    needs_source = True
    cached = "beside"

    def __init__(self, method: str = "kmm") -> None:
        super().__init__()
        if method not in METHODS:
            raise UserError(f"{type(self).__name__}: method must be {', '.join(METHODS)}, got {method!r}.")
        self.method = method

    def prepare(self, network: nn.Module) -> nn.Module:
        """Compare the features."""
        assert self.context.source is not None, "bind comes first"
        assert self.context.target is not None, "bind comes first"
        both = (self.context.source, self.context.target)
        source, target = (self.context.extract(network, images).numpy() for images in both)
        weights = self.chosen(METHODS[self.method](*principal_components(source, target)))
        self.table = torch.as_tensor(weights).float().to(next(unwrap(network).parameters()).device)
        count = weights.sum() ** 2 / (weights**2).sum()
        _log.info(
            f"{type(self).__name__}: weights up to {weights.max():.1f}, as if {count:.0f} of {len(weights)} images"
        )
        return network

    def chosen(self, weights: Array) -> Array:
        """What becomes of the ratios ``(N,)``, whose mean is 1."""
        return weights
