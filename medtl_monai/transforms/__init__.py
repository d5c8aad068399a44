"""Whole batches on the device: augmentation, normalization, inference at several sizes."""

from .augment import AugmentBatch, PrepareBatch, affine_matrices, warp
from .inferer import MultiScaleInferer

__all__ = ["AugmentBatch", "MultiScaleInferer", "PrepareBatch", "affine_matrices", "warp"]
