"""Whole batches on the device: augmentation, normalization, inference at several sizes."""

from .augment import AugmentBatch
from .batched import BatchCompose, BatchTransform
from .inferer import MultiViewInferer
from .intensity import *  # noqa: F403
from .intensity import __all__ as _intensity
from .mix import MixBatch
from .prepare import PrepareBatch
from .reference import ImageByImage, choose
from .spatial import *  # noqa: F403
from .spatial import __all__ as _spatial

__all__ = [  # noqa: PLE0604
    "AugmentBatch",
    "BatchCompose",
    "BatchTransform",
    "ImageByImage",
    "MixBatch",
    "MultiViewInferer",
    "PrepareBatch",
    "choose",
    *_spatial,
    *_intensity,
]
