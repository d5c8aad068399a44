"""The images nearest to the target alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...utils import UserError
from ..densities import Array
from .importance import Importance

__all__ = ["SourceSelection", "nearest_weights"]


class SourceSelection(Importance):
    """Train on the images alone that are nearest to the target folder's.

    - **What it does**: the weights of ``importance`` order the training images; the given share counts, the others not.
    - **When it helps**: a large, mixed training set, parts of which resemble the target and parts would mislead.
    - **Cost**: as ``importance``.
    - **Settings**: ``keep`` in (0, 1]: 1 is ``finetune``, small keeps few images; ``method`` as ``importance``.
    - **What it cannot do**: choose ``keep``: compare on validation patients; keep classes in proportion.

    References:
        Ge, Yu. Borrowing treasures from the wealthy: deep transfer learning through selective joint fine-tuning. CVPR
        2017.
    """

    needs = ("source", "target", "labels")
    cached = "beside"

    def __init__(self, keep: float = 0.5, method: str = "discriminator") -> None:
        super().__init__(method)
        if not 0 < keep <= 1:
            raise UserError(f"source_selection: keep must be above 0 and at most 1, got {keep}.")
        self.keep = keep

    def chosen(self, weights: Array) -> Array:
        """The nearest alone.

        Raises:
            UserError: they leave a class without images.
        """
        nearest = nearest_weights(weights, self.keep)
        left = set(self.context.labels) - set(np.asarray(self.context.labels)[nearest > 0].tolist())
        if left:
            raise UserError(f"source_selection: no image of class {min(left)} is among those kept: give a larger keep.")
        return nearest


def nearest_weights(weights: ArrayLike, keep: float) -> Array:
    """One weight for the share ``keep`` of largest ``weights`` ``(N,)``, 0 for the rest; their mean is 1.

    Example:
        >>> nearest_weights([0.1, 3.0, 0.4, 0.5], 0.5).tolist()
        [0.0, 2.0, 0.0, 2.0]
    """
    w = np.asarray(weights, dtype=float)
    count = int(np.ceil(keep * len(w)))
    kept = np.zeros(len(w))
    kept[np.argsort(-w, kind="stable")[:count]] = len(w) / count
    return kept
