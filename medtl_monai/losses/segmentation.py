"""Losses for segmentation by name: MONAI's, with one weight a structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from monai import losses
from torch import Tensor, nn

from ..utils import UNKNOWN, UserError

__all__ = ["LOSSES", "BalancedCrossEntropyLoss", "segmentation_loss"]


class BalancedCrossEntropyLoss(nn.Module):
    """Cross-entropy of places in which each class counts alike, however few places it has.

    Args:
        label_smoothing: in ``[0, 1)``.

    Example:
        >>> loss = BalancedCrossEntropyLoss()
        >>> logits, label = torch.zeros(1, 2, 1, 4), torch.tensor([[[[0, 0, 1, UNKNOWN]]]])
        >>> logits[..., 2] = torch.tensor([[[9.0], [-9.0]]])
        >>> round(loss(logits, label).item(), 4)  # the mean of log 2 and 18
        9.3466

    References:
        Xie, Tu. Holistically-nested edge detection. ICCV 2015.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Of ``logits`` ``(B, C, *spatial)`` and ``label`` ``(B, 1, *spatial)``; unknown places are left out."""
        label = label[:, 0].long()
        how: dict[str, Any] = {"ignore_index": UNKNOWN, "label_smoothing": self.label_smoothing, "reduction": "none"}
        each = nn.functional.cross_entropy(logits, label, **how)
        found = [places for places in (each[label == k] for k in range(logits.shape[1])) if len(places)]
        return torch.stack([places.mean() for places in found]).mean() if found else each.sum()


class _Combined(nn.Module):
    """Cross entropy for every pixel, and another loss for the regions."""

    def __init__(self, region: nn.Module, weights: Tensor, share: float) -> None:
        super().__init__()
        self.region, self.share = region, share
        self.cross_entropy = nn.CrossEntropyLoss(weights)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        return self.share * self.region(logits, label) + self.cross_entropy(logits, label[:, 0].long())


def _dice(weights: Tensor, **options: Any) -> nn.Module:
    options = {"include_background": False, "batch": True, **options}
    return losses.DiceCELoss(softmax=True, to_onehot_y=True, weight=weights, **options)


def _generalized_dice(weights: Tensor, *, share: float = 1.0, **options: Any) -> nn.Module:
    return _Combined(losses.GeneralizedDiceLoss(softmax=True, to_onehot_y=True, **options), weights, share)


def _focal(weights: Tensor, **options: Any) -> nn.Module:
    return losses.FocalLoss(use_softmax=True, to_onehot_y=True, weight=weights, **options)


def _dice_focal(weights: Tensor, **options: Any) -> nn.Module:
    return losses.DiceFocalLoss(softmax=True, to_onehot_y=True, weight=weights, **options)


def _tversky(weights: Tensor, *, share: float = 1.0, **options: Any) -> nn.Module:
    options = {"include_background": False, "alpha": 0.3, "beta": 0.7, **options}
    return _Combined(losses.TverskyLoss(softmax=True, to_onehot_y=True, **options), weights, share)


def _boundary(weights: Tensor, *, share: float = 0.1, **options: Any) -> nn.Module:
    region = losses.LogHausdorffDTLoss(include_background=False, softmax=True, to_onehot_y=True, **options)
    return _Combined(region, weights, share)


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "dice": _dice,
    "generalized_dice": _generalized_dice,
    "focal": _focal,
    "dice_focal": _dice_focal,
    "tversky": _tversky,
    "boundary": _boundary,
}
"""Name to constructor: ``(weights, **options)``; the options are those of MONAI's class of that name."""


def segmentation_loss(
    name: str = "dice",
    *,
    classes: Sequence[str],
    weights: Mapping[str, float] | None = None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    r"""A loss of logits ``(B, C, *spatial)`` and a label map ``(B, 1, *spatial)`` of whole numbers.

    The default is the region-weighted sum of Dice loss and cross entropy,

    .. math:: L = \frac{1}{K} \sum_{k=1}^{K} w_k \Big(1 - \frac{2 \sum_i p_{ki} y_{ki}}{\sum_i p_{ki} + y_{ki}}\Big)
              - \frac{\sum_i w_{y_i} \log p_{y_i i}}{\sum_i w_{y_i}}

    over the K structures, with the weight :math:`w_k` of each, probabilities p and labels y of the pixels i of the
    whole batch; the background, k = 0, has no Dice term. ``generalized_dice``, ``tversky`` and ``boundary`` (logarithm
    of the Hausdorff distance by distance transforms) are added, times the option ``share``, to the weighted cross
    entropy; ``focal`` and ``dice_focal`` are weighted themselves.

    Args:
        name: one of :data:`LOSSES`.
        classes: names of the C classes, the background first.
        weights: by name of the class, above 0; 1 for those not named.
        options: of MONAI's loss, such as ``gamma`` of ``focal`` or ``alpha`` and ``beta`` of ``tversky``.

    Raises:
        UserError: an unknown name, class or option, or a weight that is not above 0.

    Example:
        >>> loss = segmentation_loss(classes=["background", "left ventricle"])
        >>> label = torch.tensor([[[[0, 1]]]])
        >>> round(float(loss(20.0 * torch.nn.functional.one_hot(label[:, 0]).movedim(-1, 1), label)), 4)
        0.0

    References:
        Milletari, Navab, Ahmadi. V-Net: fully convolutional neural networks for volumetric medical image segmentation.
        3DV 2016. Sudre et al. Generalised Dice overlap. DLMIA 2017. Lin et al. Focal loss for dense object detection.
        ICCV 2017. Salehi, Erdogmus, Gholipour. Tversky loss function for image segmentation. MLMI 2017. Karimi,
        Salcudean. Reducing the Hausdorff distance in medical image segmentation. IEEE TMI 39(2), 2020.
    """
    if name not in LOSSES:
        near = get_close_matches(name, LOSSES, n=1)
        raise UserError(f"there is no loss {name!r}: {f'did you mean {near[0]!r}?' if near else ', '.join(LOSSES)}")
    options = options or {}
    try:
        return LOSSES[name](_by_class(weights or {}, classes), **options)
    except TypeError as error:
        raise UserError(f"the loss {name!r} does not take {', '.join(options)} as given ({error}).") from error


def _by_class(weights: Mapping[str, float], classes: Sequence[str]) -> Tensor:
    """A weight for each class, ``(C,)``."""
    for key, value in weights.items():
        if key not in classes:
            raise UserError(f"a loss weight is given for {key!r}, which is not among {', '.join(classes)}.")
        if not isinstance(value, (int, float)) or not value > 0:
            raise UserError(f"the loss weight of {key!r} must be a number above 0, got {value!r}.")
    return torch.tensor([float(weights.get(key, 1.0)) for key in classes])
