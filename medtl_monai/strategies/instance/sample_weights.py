"""Weights from the table."""

from __future__ import annotations

import torch
from torch import nn

from ...utils import UserError, unwrap
from ..base import Context
from ._weighting import PerImage

__all__ = ["SampleWeights"]


class SampleWeights(PerImage):
    """Weight each image by the column ``weight`` of the table.

    - **What it does**: each image's loss counts as often as its weight says.
    - **When it helps**: the training images are drawn unlike those that the model is for, and you know how.
    - **Cost**: none.
    - **What it cannot do**: find the weights (see ``importance``); reach kinds of images that the training set has none
      of.

    References:
        Shimodaira. Improving predictive inference under covariate shift by weighting the log-likelihood function.
        Journal of Statistical Planning and Inference 90(2), 2000.
    """

    needs = ("weights",)
    cached = "beside"

    def bind(self, context: Context) -> None:
        """Read the weights.

        Raises:
            UserError: one that is no number of 0 or more.
        """
        super().bind(context)
        try:
            self.table = torch.tensor([float(weight) for weight in context.weights])
        except ValueError as error:
            raise UserError(f"sample_weights: the column weight must hold numbers ({error}).") from error
        if not (self.table >= 0).all() or not self.table.isfinite().all() or self.table.sum() == 0:
            raise UserError("sample_weights: the column weight must hold numbers of 0 or more, not all of them 0.")

    def prepare(self, network: nn.Module) -> nn.Module:
        """Move the weights to the network's device."""
        self.table = self.table.to(next(unwrap(network).parameters()).device)
        return network
