"""Losses: of tasks, of domains, of teachers. Torch's and MONAI's, and what they lack."""

from .adversarial import AdversarialLosses
from .alignment import coral, feature_norm, gradient_reversal, joint_mmd, minimum_class_confusion, mmd
from .classification import MaskedBCEWithLogitsLoss, positive_weights, task_loss
from .codes import info_nce, linear_dependency, normal_divergence
from .segmentation import LOSSES, BalancedCrossEntropyLoss, segmentation_loss
from .smoothing import smoothing_part
from .teachers import (
    attention_transfer,
    batch_spectral_shrinkage,
    distillation,
    relational_angles,
    relational_distances,
    similarity_preserving,
)

__all__ = [
    "LOSSES",
    "AdversarialLosses",
    "BalancedCrossEntropyLoss",
    "MaskedBCEWithLogitsLoss",
    "attention_transfer",
    "batch_spectral_shrinkage",
    "coral",
    "distillation",
    "feature_norm",
    "gradient_reversal",
    "info_nce",
    "joint_mmd",
    "linear_dependency",
    "minimum_class_confusion",
    "mmd",
    "normal_divergence",
    "positive_weights",
    "relational_angles",
    "relational_distances",
    "segmentation_loss",
    "similarity_preserving",
    "smoothing_part",
    "task_loss",
]
