"""Rates fall with the distance from the head."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...backbones import anatomy
from ...utils import UserError, is_under, unwrap
from ..base import Strategy

__all__ = ["Discriminative"]


class Discriminative(Strategy):
    r"""Layer-wise learning rates: the further from the head, the smaller.

    .. math:: \eta_b = \eta \, \delta^{\,d(b)}

    with :math:`d(b)` the number of blocks between block :math:`b` and the head (0 for the head).

    - **What it does**: early blocks, which hold general features, move little; late ones and the head move freely.
    - **When it helps**: few to some hundred images; combines well with most other strategies.
    - **Cost**: as ``finetune``.
    - **Settings**: ``decay`` in (0, 1]: 1 gives ``finetune``; towards 0 the backbone is nearly frozen. Networks with
      many blocks want values near 1 (0.8 over 18 blocks leaves 2% of the rate to the stem).
    - **What it cannot do**: protect batch-norm statistics, which follow the new images whatever the rate.

    References:
        Howard, Ruder. Universal language model fine-tuning for text classification. ACL 2018.
        Bao, Dong, Piao, Wei. BEiT: BERT pre-training of image transformers. ICLR 2022 (layer-wise decay).
    """

    needs_source = True

    def __init__(self, decay: float = 0.8) -> None:
        super().__init__()
        if not 0 < decay <= 1:
            raise UserError(f"discriminative: decay must be above 0 and at most 1, got {decay}.")
        self.decay = decay

    def param_groups(self, network: nn.Module, lr: float) -> list[dict[str, Any]]:
        """One group a block, from the stem to the head."""
        network = unwrap(network)
        blocks = anatomy(network).blocks
        groups = []
        for depth, block in enumerate(blocks):
            params = [p for name, p in network.named_parameters() if is_under(name, block.prefixes)]
            if params:
                groups.append({"params": params, "lr": lr * self.decay ** (len(blocks) - 1 - depth)})
        return groups
