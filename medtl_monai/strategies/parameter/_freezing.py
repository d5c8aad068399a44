"""What strategies that freeze blocks share: they stand still exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from ...backbones import Anatomy, modules_of
from ...utils import is_under, unwrap
from ..base import Strategy

__all__ = ["Freezing", "Holding", "prefixes_of"]


class Holding(Strategy):
    """Base of the strategies that keep modules in evaluation mode while the network trains.

    MONAI's trainer calls ``network.train()`` before every iteration, so what was put into ``eval()`` once would not
    stay there; a forward pre-hook of the network puts it back each time.
    """

    needs_source = True

    def __init__(self) -> None:
        super().__init__()
        self._handle: RemovableHandle | None = None

    def held(self, network: nn.Module) -> Iterable[nn.Module]:
        """The modules to keep in evaluation mode."""
        raise NotImplementedError

    def hook(self, network: nn.Module) -> None:
        """Put the hook on the network, once."""
        if self._handle is None:
            self._handle = network.register_forward_pre_hook(self._hold)

    def close(self) -> None:
        """Remove the hook; what was frozen keeps ``requires_grad=False``."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}  # a copy has no hook on any network

    def _hold(self, network: nn.Module, args: tuple[Any, ...]) -> None:
        if network.training:
            for module in self.held(network):
                module.eval()


class Freezing(Holding):
    """Base of the strategies that freeze blocks, exactly: weights, batch-norm statistics and dropout stand still."""

    sets_trainable = True

    def __init__(self) -> None:
        super().__init__()
        self._frozen: tuple[str, ...] = ()

    def held(self, network: nn.Module) -> Iterable[nn.Module]:
        """The frozen blocks."""
        return modules_of(network, self._frozen).values()

    def freeze(self, network: nn.Module, prefixes: tuple[str, ...]) -> None:
        """Freeze the modules, and the parameters beside modules, named ``prefixes`` and train all others."""
        network = unwrap(network)
        self._frozen = prefixes
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not is_under(name, prefixes))
        self.hook(network)


def prefixes_of(parts: Anatomy, which: slice) -> tuple[str, ...]:
    return tuple(prefix for block in parts.blocks[which] for prefix in block.prefixes)
