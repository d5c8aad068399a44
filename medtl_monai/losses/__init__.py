"""Task losses: torch's and MONAI's, and what they lack."""

from .classification import MaskedBCEWithLogitsLoss, positive_weights, task_loss
from .segmentation import LOSSES, segmentation_loss

__all__ = ["LOSSES", "MaskedBCEWithLogitsLoss", "positive_weights", "segmentation_loss", "task_loss"]
