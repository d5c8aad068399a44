"""Random weights are the source's in each step."""

from __future__ import annotations

from functools import partial

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...backbones import anatomy
from ...utils import UserError, is_under, unwrap
from ..base import Strategy
from ._anchor import anchor_name

__all__ = ["Mixout"]


class Mixout(Strategy):
    r"""Replace random weights by the source's in every step, as dropout replaces activations by zero.

    .. math:: \tilde w = \frac{m \odot w^0 + (1 - m) \odot w - p\, w^0}{1 - p}, \quad m \sim \mathrm{Bernoulli}(p)

    - **What it does**: forward and backward pass use the mixed weights, whose mean are the trained ones; the optimizer
      moves the trained ones. The head is left out.
    - **When it helps**: few images, where fine-tuning is unstable; it keeps the weights near the source's.
    - **Cost**: two copies of the weights and a pass over them a step.
    - **Settings**: ``p`` in [0, 1): 0 is ``finetune``, near 1 hardly leaves the source.
    - **What it cannot do**: show other strategies' penalties the trained weights; they see the mixed ones.

    References:
        Lee, Cho, Kang. Mixout: effective regularization to finetune large-scale pretrained language models. ICLR 2020.
    """

    needs_source = True

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise UserError(f"mixout: p must be at least 0 and below 1, got {p}.")
        self.p = p
        self._handles: list[RemovableHandle] = []
        self._trained: dict[str, Tensor] = {}
        self._factors: dict[str, Tensor] = {}

    def prepare(self, network: nn.Module) -> nn.Module:
        """Keep the source's weights and listen to the network."""
        head = anatomy(network).head
        network = unwrap(network)
        for name, parameter in network.named_parameters():
            if not is_under(name, [head]):
                self.register_buffer(anchor_name(name), parameter.detach().clone())
                wanted = parameter.requires_grad  # a frozen one may be unfrozen later
                self._handles.append(parameter.requires_grad_().register_hook(partial(self._scale, name)))
                parameter.requires_grad_(wanted)
        self._handles.append(network.register_forward_pre_hook(self._mix))
        return network

    def close(self) -> None:
        """Leave the network."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def attach(self, engine: Engine) -> None:
        """Put the trained weights back after each backward pass."""
        super().attach(engine)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda e: self._restore(unwrap(e.network)))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handles": [], "_trained": {}, "_factors": {}}  # a copy listens to no network

    @torch.no_grad()
    def _mix(self, network: nn.Module, inputs: object) -> None:
        if not network.training or self._trained or self.p == 0:
            return
        for name, parameter in network.named_parameters():
            if parameter.requires_grad and hasattr(self, anchor_name(name)):
                anchor = self.get_buffer(anchor_name(name))
                taken = torch.rand_like(parameter) < self.p
                self._trained[name] = parameter.detach().clone()
                self._factors[name] = (~taken).to(parameter) / (1 - self.p)
                parameter.copy_((torch.where(taken, anchor, parameter) - self.p * anchor) / (1 - self.p))

    def _scale(self, name: str, gradient: Tensor) -> Tensor:
        return gradient * self._factors[name] if name in self._factors else gradient

    @torch.no_grad()
    def _restore(self, network: nn.Module) -> None:
        for name, value in self._trained.items():
            network.get_parameter(name).copy_(value)
        self._trained, self._factors = {}, {}
