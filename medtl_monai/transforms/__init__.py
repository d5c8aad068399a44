"""Transforms of whole batches on the device."""

from .augment import AugmentBatch, PrepareBatch, affine_matrices, warp

__all__ = ["AugmentBatch", "PrepareBatch", "affine_matrices", "warp"]
