"""The features of the latest forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..utils import unwrap

__all__ = ["Tap"]


class Tap:
    """Keeps what enters, or leaves, a module in the latest forward pass.

    Args:
        network: wrapped or not.
        module: its name.
        entering: what enters it (of a head: the features); otherwise what leaves it.
    """

    def __init__(self, network: nn.Module, module: str, *, entering: bool = True) -> None:
        target = unwrap(network).get_submodule(module)
        self._value: Any = None
        self._handle: RemovableHandle | None = (
            target.register_forward_pre_hook(self._enter) if entering else target.register_forward_hook(self._leave)
        )

    @property
    def value(self) -> Tensor:
        """The tensor, ``(B, F)`` or ``(B, C, *spatial)``."""
        if self._value is None:
            raise RuntimeError("no forward pass has been seen yet.")
        return self._value

    @property
    def pooled(self) -> Tensor:
        """The same as ``(B, F)``: averaged over space."""
        return self.value.flatten(2).mean(-1) if self.value.ndim > 2 else self.value

    def close(self) -> None:
        """Leave the network."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._value = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_value": None, "_handle": None}  # a copy listens to no network

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._value = inputs[0]

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._value = output
