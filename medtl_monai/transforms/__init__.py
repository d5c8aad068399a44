"""Whole batches on the device: augmentation, normalization."""

from . import dictionary as _dictionary
from .augment import AugmentBatch, PrepareBatch, affine_matrices, warp
from .batched import BatchCompose, BatchTransform, Plan
from .dictionary import *  # noqa: F403
from .intensity import *  # noqa: F403
from .intensity import __all__ as _intensity
from .mix import MixBatch
from .presets import PRESETS, preset
from .reference import ImageByImage, choose
from .spatial import *  # noqa: F403
from .spatial import __all__ as _spatial
from .standardize import StandardizeImaged, standardized

__all__ = [  # noqa: PLE0604
    "PRESETS",
    "AugmentBatch",
    "BatchCompose",
    "BatchTransform",
    "ImageByImage",
    "MixBatch",
    "Plan",
    "PrepareBatch",
    "StandardizeImaged",
    "affine_matrices",
    "choose",
    "preset",
    "standardized",
    "warp",
    *_spatial,
    *_intensity,
    *_dictionary.KINDS,
]
