"""What a student keeps of a teacher: predictions, relations between images, attention. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, normalize, smooth_l1_loss

__all__ = [
    "attention_transfer",
    "batch_spectral_shrinkage",
    "distillation",
    "relational_angles",
    "relational_distances",
    "similarity_preserving",
]


def distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    r"""Divergence of softened predictions; logits ``(B, C, *spatial)``, averaged over images and places.

    .. math:: T^2 \, KL(\mathrm{softmax}(z_t / T) \,\Vert\, \mathrm{softmax}(z_s / T))

    References:
        Hinton, Vinyals, Dean. Distilling the knowledge in a neural network. 2015.
    """
    log_p = (student.float() / temperature).log_softmax(1)
    q = (teacher.float() / temperature).softmax(1)
    return kl_div(log_p, q, reduction="none").sum(1).mean() * temperature**2


def relational_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the distances of all pairs of rows, each set scaled to a mean distance of 1; ``(B, F)``.

    References:
        Park, Kim, Lu, Cho. Relational knowledge distillation. CVPR 2019.
    """
    return smooth_l1_loss(_distances(student), _distances(teacher))


def relational_angles(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles of all triplets of rows; ``(B, F)``.

    References:
        Park, Kim, Lu, Cho. Relational knowledge distillation. CVPR 2019.
    """
    return smooth_l1_loss(_angles(student), _angles(teacher))


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the row-normalized similarity matrices of a batch, over its size squared; ``(B, ...)`` each.

    References:
        Tung, Mori. Similarity-preserving knowledge distillation. ICCV 2019.
    """
    similar = [normalize(x.flatten(1).float() @ x.flatten(1).float().T, dim=1) for x in (student, teacher)]
    return (similar[0] - similar[1]).square().sum() / len(student) ** 2


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean distance of the normalized maps of summed squares over channels; ``(B, C, *spatial)`` each.

    References:
        Zagoruyko, Komodakis. Paying more attention to attention. ICLR 2017.
    """
    maps = [normalize(x.float().square().mean(1).flatten(1), dim=1) for x in (student, teacher)]
    return (maps[0] - maps[1]).norm(dim=1).mean()


def batch_spectral_shrinkage(features: Tensor, count: int = 1) -> Tensor:
    """Sum of the squares of the ``count`` smallest singular values of a batch of features ``(B, F)``.

    References:
        Chen, Wang, Fu, Long, Wang. Catastrophic forgetting meets negative transfer: batch spectral shrinkage for safe
        transfer learning. NeurIPS 2019.

    Example:
        >>> batch_spectral_shrinkage(torch.diag(torch.tensor([3.0, 2.0]))).item()
        4.0
    """
    return torch.linalg.svdvals(features.float())[-count:].square().sum()


def _distances(x: Tensor) -> Tensor:
    x = x.flatten(1).float()
    pairs = torch.nn.functional.pdist(x)
    return pairs / pairs.mean().clamp_min(1e-12)


def _angles(x: Tensor) -> Tensor:
    x = x.flatten(1).float()
    sides = normalize(x[None] - x[:, None], dim=2)  # (vertex, other, F)
    return torch.einsum("vif,vjf->vij", sides, sides)
