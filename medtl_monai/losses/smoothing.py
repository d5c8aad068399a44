"""How much of a loss its label smoothing makes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["smoothing_part"]


def smoothing_part(loss_function: Callable[..., Tensor], pred: Tensor, label: Tensor) -> Tensor | None:
    r"""What label smoothing adds to a loss, without gradients: its value less that of the same loss without smoothing.

    Weights, ignored labels and reduction stay, so for a cross-entropy over K classes with smoothing s, of an image with
    probabilities p and class y, it is

    .. math:: s \Big( \log p_y - \frac{1}{K} \sum_{k=1}^{K} \log p_k \Big)

    which grows without bound as the network gets sure, and is below 0 where it is wrong. It is found in every part of
    the loss that has a ``label_smoothing``: torch's cross-entropy, this package's losses, and MONAI's that hold one.

    Args:
        loss_function: of ``pred`` and ``label``.
        pred: logits ``(B, C, *spatial)``.
        label: as the loss takes it.

    Returns:
        As the loss gives it, a scalar or one value an entry; ``None`` for a loss without smoothing.

    Example:
        >>> loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        >>> round(smoothing_part(loss, torch.tensor([[4.0, 0.0]]), torch.tensor([0])).item(), 4)  # 0.1 (0 - -4 / 2)
        0.2
        >>> smoothing_part(nn.CrossEntropyLoss(), torch.zeros(1, 2), torch.tensor([0])) is None
        True

    References:
        Szegedy, Vanhoucke, Ioffe, Shlens, Wojna. Rethinking the inception architecture for computer vision. CVPR 2016.
    """
    if not isinstance(loss_function, nn.Module) or not any(map(_smooths, loss_function.modules())):
        return None
    plain = copy.deepcopy(loss_function)
    for part in filter(_smooths, plain.modules()):
        part.label_smoothing = 0.0  # type: ignore[assignment]
    with torch.no_grad():
        return loss_function(pred, label) - plain(pred, label)


def _smooths(module: nn.Module) -> bool:
    return bool(getattr(module, "label_smoothing", 0))
