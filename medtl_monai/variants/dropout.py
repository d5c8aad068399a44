"""Dropout in its kinds, added to a finished network without changing its names.

A drop is a forward hook: it has no weights, follows the ``training`` mode of the module that it stands behind, and is
copied, wrapped and compiled with the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..utils import UserError, last_layer

__all__ = ["DROPOUTS", "Drop", "add_dropout", "drop_block", "drop_path", "monte_carlo", "spatial_dropout"]


def spatial_dropout(x: Tensor, p: float) -> Tensor:
    """Zero whole channels of ``x`` ``(B, C, *spatial)`` with probability ``p`` and scale the others by ``1 / (1 - p)``.

    References:
        Tompson, Goroshin, Jain, LeCun, Bregler. Efficient object localization using convolutional networks. CVPR 2015.
    """
    keep = torch.rand(x.shape[:2], device=x.device) >= p
    return x * keep.view(*x.shape[:2], *[1] * (x.ndim - 2)).to(x) / max(1 - p, 1e-6)


def drop_block(x: Tensor, p: float, block: int = 5) -> Tensor:
    """Zero cubes of side ``block`` of every channel of ``x`` ``(B, C, *spatial)``, a share ``p`` of it about.

    The rest is scaled so that the mean magnitude stays. Sides shorter than ``block`` get shorter ones.

    References:
        Ghiasi, Lin, Le. DropBlock: a regularization method for convolutional networks. NeurIPS 2018.
    """
    spatial = x.shape[2:]
    sides = [min(block, n) for n in spatial]
    rate = p
    for n, side in zip(spatial, sides, strict=True):
        rate = rate / side * n / (n - side + 1)  # centres lie where the cube fits
    shape = [n - side + 1 for n, side in zip(spatial, sides, strict=True)]
    seeds = (torch.rand(*x.shape[:2], *shape, device=x.device) < rate).float()
    padding = [side - 1 for side in reversed(sides) for _ in range(2)]
    pool = [F.max_pool1d, F.max_pool2d, F.max_pool3d][len(spatial) - 1]
    keep = 1 - pool(F.pad(seeds, padding), sides, stride=1)
    return x * (keep * (keep.numel() / keep.sum().clamp_min(1))).to(x)


def drop_path(x: Tensor, y: Tensor, p: float) -> Tensor:
    """``y`` ``(B, C, *spatial)`` or, with probability ``p`` for each image, the block's input ``x`` (stochastic depth).

    What the block adds is scaled by ``1 / (1 - p)``, so that the mean stays.

    References:
        Huang, Sun, Liu, Sedra, Weinberger. Deep networks with stochastic depth. ECCV 2016.
    """
    keep = (torch.rand(len(x), device=x.device) >= p).view(-1, *[1] * (x.ndim - 1)).to(x)
    return x + (y - x) * keep / max(1 - p, 1e-6)


DROPOUTS: dict[str, Callable[..., Tensor]] = {
    "standard": F.dropout,
    "alpha": lambda x, p: F.alpha_dropout(x, p, training=True),
    "spatial": spatial_dropout,
    "dropblock": drop_block,
    "stochastic_depth": drop_path,
}
"""Name to function. ``standard`` (Srivastava 2014) and ``alpha`` (Klambauer 2017, for SELU networks) stand before the
last layer, the others behind each block."""


class Drop:
    """A hook that drops while the module behind which it stands trains, or always (Monte Carlo dropout).

    Args:
        name: one of :data:`DROPOUTS`.
        p: probability.
        settings: of the function, such as ``block``.
    """

    def __init__(self, name: str, p: float, **settings: Any) -> None:
        self.name, self.p, self.settings, self.always = name, p, settings, False

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> Any:
        """As pre-hook of the last layer: its input. As hook of a block: its output."""
        if not (module.training or self.always) or self.p == 0:
            return None
        if output is None:
            return (DROPOUTS[self.name](inputs[0], self.p), *inputs[1:])
        if self.name == "stochastic_depth":
            return drop_path(inputs[0], output, self.p) if inputs[0].shape == output.shape else None
        if self.name == "dropblock" and output.ndim < 3:  # a vector has no places
            return None
        return DROPOUTS[self.name](output, self.p, **self.settings)


def add_dropout(
    network: nn.Module, name: str = "standard", p: float = 0.2, *, blocks: Sequence[str] = (), **settings: Any
) -> nn.Module:
    """Add dropout to ``network``, in place.

    Args:
        network: any network. Of ``standard``, the dropout layers that it has get the rate ``p``; without any, one is
            added before the last layer.
        name: one of :data:`DROPOUTS`.
        p: probability, in ``[0, 1)``; of stochastic depth the last block's, the others' grow to it linearly.
        blocks: names of the modules behind which the kinds that need them stand, in order.
        settings: ``block``: side of DropBlock's cubes.

    Returns:
        ``network``.

    Raises:
        UserError: an unknown name or setting, a rate out of range, or no block to stand behind.
    """
    _check(name, p, settings)
    if name in ("standard", "alpha"):
        _add_before_last(network, name, p)
    else:
        _add_behind(network, name, p, blocks, settings)
    return network


def _check(name: str, p: float, settings: Mapping[str, Any]) -> None:
    if name not in DROPOUTS:
        raise UserError(f"there is no dropout {name!r}: choose from {', '.join(DROPOUTS)}.")
    if not 0 <= p < 1:
        raise UserError(f"dropout: p must be at least 0 and below 1, got {p}.")
    if set(settings) - ({"block"} if name == "dropblock" else set()):
        raise UserError(f"dropout {name} does not take {', '.join(settings)}.")


def _add_before_last(network: nn.Module, name: str, p: float) -> None:
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    if name == "standard" and layers:
        for layer in layers:
            layer.p = p
    else:
        network.get_submodule(last_layer(network)).register_forward_pre_hook(Drop(name, p))


def _add_behind(network: nn.Module, name: str, p: float, blocks: Sequence[str], settings: Mapping[str, Any]) -> None:
    modules = [network.get_submodule(block) for block in blocks]
    if not modules:
        raise UserError(f"dropout {name} stands behind blocks, and {type(network).__name__} names none.")
    for i, module in enumerate(modules):
        rate = p * (i + 1) / len(modules) if name == "stochastic_depth" else p
        module.register_forward_hook(Drop(name, rate, **settings))


@contextmanager
def monte_carlo(network: nn.Module) -> Iterator[None]:
    """Within it, dropout stays active in evaluation mode, so that repeated predictions differ (MC dropout).

    References:
        Gal, Ghahramani. Dropout as a Bayesian approximation. ICML 2016.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    drops = [drop for module in network.modules() for drop in _drops(module)]
    modes = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        for drop in drops:
            drop.always = True
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.train(mode)
        for drop in drops:
            drop.always = False


def _drops(module: nn.Module) -> list[Drop]:
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return [hook for hook in hooks if isinstance(hook, Drop)]
