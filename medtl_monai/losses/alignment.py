"""Distances between the features of two domains, and what makes predictions on a domain without labels certain.

Pure functions; everything is computed in float32, since covariances and kernels lose too much in half precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "coral",
    "feature_norm",
    "gaussian_kernels",
    "gradient_reversal",
    "joint_mmd",
    "minimum_class_confusion",
    "mmd",
]


def coral(source: Tensor, target: Tensor) -> Tensor:
    r"""Distance of the covariances of two sets of features, ``(B, F)`` each, with at least two rows.

    .. math:: \frac{1}{4 F^2} \lVert C_s - C_t \rVert_F^2

    References:
        Sun, Saenko. Deep CORAL: correlation alignment for deep domain adaptation. ECCV workshops 2016.

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> coral(x, 2 * x).item()  # variances 2 and 8
        9.0
    """
    return (torch.cov(source.float().T) - torch.cov(target.float().T)).square().sum() / (4 * source.shape[1] ** 2)


def gaussian_kernels(x: Tensor, y: Tensor, scales: Sequence[float] = (0.25, 0.5, 1, 2, 4)) -> Tensor:
    """Mean of Gaussian kernels between all rows of ``x`` and ``y`` together, ``(n + m, n + m)``.

    Their bandwidths are ``scales`` times the mean squared distance of the rows, taken as a constant.
    """
    both = torch.cat([x, y]).float()
    squared = torch.cdist(both, both).square()
    count = len(both)
    width = (squared.detach().sum() / (count * (count - 1))).clamp_min(1e-12)
    return torch.stack([torch.exp(-squared / (scale * width)) for scale in scales]).mean(0)


def mmd(source: Tensor, target: Tensor, scales: Sequence[float] = (0.25, 0.5, 1, 2, 4)) -> Tensor:
    """Squared maximum mean discrepancy of two sets of features, ``(n, F)`` and ``(m, F)``, under several kernels.

    The biased estimate: not negative, 0 for equal sets.

    References:
        Long, Cao, Wang, Jordan. Learning transferable features with deep adaptation networks. ICML 2015.
    """
    return _discrepancy(gaussian_kernels(source, target, scales), len(source))


def joint_mmd(source: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """The same of the joint distribution of several layers, ``(n, F_l)`` and ``(m, F_l)``: kernels are multiplied.

    References:
        Long, Zhu, Wang, Jordan. Deep transfer learning with joint adaptation networks. ICML 2017.
    """
    kernels = [gaussian_kernels(s, t) for s, t in zip(source, target, strict=True)]
    return _discrepancy(torch.stack(kernels).prod(0), len(source[0]))


def _discrepancy(kernel: Tensor, n: int) -> Tensor:
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def minimum_class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """How much the classes are confused on images without labels; ``logits`` ``(B, C)``.

    References:
        Jin, Wang, Long, Wang. Minimum class confusion for versatile domain adaptation. ECCV 2020.
    """
    p = (logits.float() / temperature).softmax(1)
    entropy = -(p * p.clamp_min(1e-12).log()).sum(1)
    weight = 1 + torch.exp(-entropy.detach())
    weight = weight * len(p) / weight.sum()
    confusion = (p * weight[:, None]).T @ p
    confusion = confusion / confusion.sum(1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / p.shape[1]


def feature_norm(features: Tensor, step: float = 1.0) -> Tensor:
    """Mean squared distance of each norm from its own present value plus ``step``: norms grow slowly; ``(B, F)``.

    References:
        Xu, Li, Yang, Lin. Larger norm more transferable: an adaptive feature norm approach. ICCV 2019.
    """
    norm = features.float().norm(dim=1)
    return (norm.detach() + step - norm).square().mean()


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * grad, None  # type: ignore[attr-defined]


def gradient_reversal(x: Tensor, progress: float) -> Tensor:
    """``x``, of any shape, whose gradient is turned round and scaled from 0 to 1 as training goes on.

    .. math:: \\lambda = \\frac{2}{1 + e^{-10 p}} - 1

    References:
        Ganin, Ustinova, Ajakan et al. Domain-adversarial training of neural networks. JMLR 17(59), 2016.
    """
    return _Reverse.apply(x, 2 / (1 + math.exp(-10 * progress)) - 1)
