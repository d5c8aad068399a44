"""Images of a batch mixed with each other, and their labels in the same share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..utils import UserError

__all__ = ["MixBatch"]


class MixBatch(nn.Module):
    """Mixup or cutmix of a batch of images with another order of itself.

    One share for the whole batch is drawn from Beta(``alpha``, ``alpha``) on the CPU, so that a seed gives the same on
    every device. Labels become the shares of the classes, which cross-entropy takes as they are.

    Args:
        classes: number of classes.
        kind: ``mixup``: the weighted mean of two images; ``cutmix``: a box of one pasted into the other.
        alpha: above 0; small mixes little, 1 draws the share uniformly.
        probability: that a batch is mixed at all.

    Raises:
        UserError: a setting is out of range.

    References:
        Zhang, Cisse, Dauphin, Lopez-Paz. mixup: beyond empirical risk minimization. ICLR 2018. Yun, Han, Oh et al.
        CutMix: regularization strategy to train strong classifiers with localizable features. ICCV 2019.
    """

    def __init__(self, classes: int, *, kind: str = "mixup", alpha: float = 0.2, probability: float = 1.0) -> None:
        super().__init__()
        if kind not in ("mixup", "cutmix") or alpha <= 0 or not 0 <= probability <= 1:
            raise UserError(
                f"mix: kind mixup or cutmix, alpha above 0, probability 0 to 1; got {kind!r}, {alpha}, {probability}."
            )
        self.classes, self.kind, self.alpha, self.probability = classes, kind, alpha, probability

    def forward(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed ``image`` ``(B, C, *spatial)`` and its shares of the classes ``(B, classes)``.

        ``label`` is ``(B,)``, class indices, or already ``(B, classes)``.
        """
        if label.ndim > 2:
            raise UserError("mix: label maps cannot be mixed: leave it out.")
        shares = one_hot(label, self.classes).float() if label.ndim == 1 else label
        if torch.rand(()) >= self.probability:
            return image, shares
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        order = torch.randperm(len(image)).to(image.device)
        if self.kind == "mixup":
            image = torch.lerp(image[order], image, share)
        else:
            box, share = _box(image.shape[2:], share)
            image = image.clone()
            image[(slice(None), slice(None), *box)] = image[order][(slice(None), slice(None), *box)]
        return image, torch.lerp(shares[order], shares, share)


def _box(shape: torch.Size, share: float) -> tuple[list[slice], float]:
    """A box of about ``1 - share`` of the volume around a random centre, and the share that is really left."""
    side = (1 - share) ** (1 / len(shape))
    box, covered = [], 1.0
    for n in shape:
        centre, half = int(torch.randint(n, ())), side * n / 2
        low, high = max(0, round(centre - half)), min(n, round(centre + half))
        box.append(slice(low, high))
        covered *= (high - low) / n
    return box, 1 - covered
