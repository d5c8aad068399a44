"""Whole batches on the device: augmentation, normalization, inference at several sizes."""

from .augment import AugmentBatch, PrepareBatch, affine_matrices, warp
from .inferer import MultiScaleInferer
from .mix import MixBatch

__all__ = ["AugmentBatch", "MixBatch", "MultiScaleInferer", "PrepareBatch", "affine_matrices", "warp"]
