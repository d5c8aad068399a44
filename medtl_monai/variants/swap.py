"""Replace modules of a network in place."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

__all__ = ["replace_modules"]


def replace_modules(
    network: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...], make: Callable[[nn.Module], nn.Module]
) -> int:
    """Put ``make(module)`` in the place of every module of ``kinds`` below ``network``; returns how many.

    A module that stands in two places is replaced by one new module in both.
    """
    made: dict[nn.Module, nn.Module] = {}
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kinds) and parent not in made.values():
                if child not in made:
                    made[child] = make(child)
                    made[child].train(child.training)
                setattr(parent, name, made[child])
    return len(made)
