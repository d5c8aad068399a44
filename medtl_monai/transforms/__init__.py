"""Whole batches on the device: augmentation, normalization."""

from .augment import AugmentBatch
from .batched import BatchCompose, BatchTransform
from .intensity import *  # noqa: F403
from .intensity import __all__ as _intensity
from .mix import MixBatch
from .prepare import PrepareBatch
from .reference import ImageByImage, choose
from .spatial import *  # noqa: F403
from .spatial import __all__ as _spatial
from .standardize import StandardizeImaged, standardized

__all__ = [  # noqa: PLE0604
    "AugmentBatch",
    "BatchCompose",
    "BatchTransform",
    "ImageByImage",
    "MixBatch",
    "PrepareBatch",
    "StandardizeImaged",
    "choose",
    "standardized",
    *_spatial,
    *_intensity,
]
