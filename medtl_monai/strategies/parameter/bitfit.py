"""Biases and norms are trained."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ...backbones import anatomy
from ...utils import is_under, unwrap
from .freeze import Freeze

__all__ = ["BitFit"]


class BitFit(Freeze):
    """Train the biases, the norms' scales and shifts, and the head.

    - **What it does**: all convolutional and linear weights stay as they were.
    - **When it helps**: very few images, or many tasks that share one backbone.
    - **Cost**: a backward pass as of ``finetune``; optimizer state for a hundredth of the weights.
    - **What it cannot do**: learn new features. Batch-norm statistics still move: add ``freeze_bn`` to hold them.

    References:
        Ben Zaken, Goldberg, Ravfogel. BitFit: simple parameter-efficient fine-tuning. ACL 2022.
    """

    def prepare(self, network: nn.Module) -> nn.Module:
        """Choose what is trained."""
        head = anatomy(network).head
        norms = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
        for module_name, module in unwrap(network).named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                kept = name == "bias" or isinstance(module, norms) or is_under(module_name, [head])
                parameter.requires_grad_(kept)
        return network
