"""Losses of classes and of findings that may stand together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from .segmentation import BalancedCrossEntropyLoss

__all__ = ["MaskedBCEWithLogitsLoss", "positive_weights", "task_loss"]

MOST = 20.0  # a finding of one image in a thousand must not drive the training


class MaskedBCEWithLogitsLoss(nn.Module):
    """Binary cross-entropy of findings that may stand together, over those that are known.

    Args:
        pos_weight: weight of "present" for each finding, see :func:`positive_weights`; default: 1.
        label_smoothing: moves the labels from 0 and 1 towards a half, in ``[0, 1)``.

    Example:
        >>> loss = MaskedBCEWithLogitsLoss()
        >>> round(loss(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, float("nan")]])).item(), 4)  # log 2
        0.6931
    """

    pos_weight: Tensor | None

    def __init__(self, pos_weight: Sequence[float] | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("pos_weight", None if pos_weight is None else torch.tensor(pos_weight), persistent=False)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the known entries of ``logits`` and ``labels`` ``(B, C)`` (1, 0, or NaN: unknown); 0 if none is."""
        known = ~labels.isnan()
        target = labels.nan_to_num().to(logits) * (1 - self.label_smoothing) + self.label_smoothing / 2
        weight = None if self.pos_weight is None else self.pos_weight.to(logits)
        each = binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
        return (each * known).sum() / known.sum().clamp_min(1)


def positive_weights(labels: Sequence[Sequence[float]]) -> list[float]:
    """Images without a finding for each image with it, at most 20, at least 1/20: weights that balance the two.

    Args:
        labels: ``(N, C)``, 1, 0 or NaN for unknown, which is not counted.

    Example:
        >>> positive_weights([[1, 0], [0, 0], [0, float("nan")], [0, 1]])
        [3.0, 2.0]
    """
    table = torch.tensor(labels, dtype=torch.float64)
    present, absent = (table == 1).sum(0), (table == 0).sum(0)
    return (absent / present.clamp_min(1)).clamp(1 / MOST, MOST).tolist()


def task_loss(task: str, labels: Sequence[int] | Sequence[Sequence[float]], label_smoothing: float = 0.0) -> nn.Module:
    """The loss of logits ``(B, C)``, or ``(B, C, *spatial)``, for a task.

    Args:
        task: ``classification``: cross-entropy of classes that exclude each other; ``multilabel``:
            :class:`MaskedBCEWithLogitsLoss` with :func:`positive_weights`; ``segmentation``, of a few small places:
            :class:`BalancedCrossEntropyLoss`.
        labels: of the training images.
        label_smoothing: in ``[0, 1)``.
    """
    if task == "multilabel":
        return MaskedBCEWithLogitsLoss(positive_weights(labels), label_smoothing)  # type: ignore[arg-type]
    kind = BalancedCrossEntropyLoss if task == "segmentation" else nn.CrossEntropyLoss
    return kind(label_smoothing=label_smoothing)
