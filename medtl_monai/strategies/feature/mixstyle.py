"""Styles of random pairs of images are mixed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...backbones import anatomy
from ...utils import UserError, unwrap
from ..base import Strategy

__all__ = ["MixStyle", "mix_style"]


class MixStyle(Strategy):
    """Mix the style (mean and deviation of each channel) of random pairs of images in the early blocks.

    - **What it does**: in training, with probability ``p``, the statistics of the first blocks' maps are mixed between
      the images of a batch, with a weight from Beta(``alpha``, ``alpha``).
    - **When it helps**: a model for scanners that are not known yet; domains in the training set help, but need not be
      named.
    - **Cost**: next to none.
    - **Settings**: ``p`` in [0, 1]: 0 is ``finetune``; ``alpha`` above 0: small mixes little, large mixes half and
    half;
      ``blocks``: how many blocks, from the stem.
    - **What it cannot do**: use a target domain; help where style is what tells the classes apart.

    References:
        Zhou, Yang, Qiao, Xiang. Domain generalization with MixStyle. ICLR 2021.
    """

    def __init__(self, p: float = 0.5, alpha: float = 0.1, blocks: int = 2) -> None:
        super().__init__()
        if not 0 <= p <= 1 or alpha <= 0 or blocks < 1:
            raise UserError(f"mixstyle: p in [0, 1], alpha above 0, blocks 1 or more; got {p}, {alpha}, {blocks}.")
        self.p, self.alpha, self.blocks = p, alpha, blocks
        self._handles: list[RemovableHandle] = []

    def prepare(self, network: nn.Module) -> nn.Module:
        """Stand behind the first blocks."""
        for block in anatomy(network).blocks[: self.blocks]:
            module = unwrap(network).get_submodule(block.prefixes[-1])
            self._handles.append(module.register_forward_hook(self._mix))
        return network

    def close(self) -> None:
        """Leave the network."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": []}  # a copy stands behind no block

    def _mix(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not module.training or not torch.is_grad_enabled() or output.ndim < 3 or torch.rand(()) >= self.p:
            return None
        return mix_style(output, torch.distributions.Beta(self.alpha, self.alpha).sample((len(output),)))


def mix_style(x: Tensor, share: Tensor) -> Tensor:
    """``x`` ``(B, C, *spatial)`` whose channel statistics are ``share`` ``(B,)`` its own, the rest another image's."""
    axes = list(range(2, x.ndim))
    mean, std = x.mean(axes, keepdim=True).detach(), (x.var(axes, keepdim=True) + 1e-6).sqrt().detach()
    other = torch.randperm(len(x), device=x.device)
    share = share.to(x).view(-1, *[1] * (x.ndim - 1))
    return (x - mean) / std * torch.lerp(std[other], std, share) + torch.lerp(mean[other], mean, share)
