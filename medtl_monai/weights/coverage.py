"""How much of a network a source fills: by elements, by layers, and by the statistics of its norms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from ..utils import is_under
from .keys import is_added, plain_key

__all__ = ["Coverage", "covered", "is_allowed"]

_COUNTER = "num_batches_tracked"  # of batch norm; older files leave it out, and nothing depends on it
_STATISTICS = (".running_mean", ".running_var")


@dataclass(frozen=True)
class Coverage:
    """What of a network is filled.

    Attributes:
        elements: share of all weights' elements.
        layers: how many layers are filled whole, and of how many.
        statistics: how many norms have running statistics, and of how many that keep them.
        unfilled: weights that layers or statistics lack, layers first.
        allowed: those that lack, too, and may.
    """

    elements: float
    layers: tuple[int, int]
    statistics: tuple[int, int]
    unfilled: tuple[str, ...]
    allowed: tuple[str, ...]


def covered(
    network: nn.Module, target: Mapping[str, Tensor], filled: Collection[str], body: Sequence[str], allow: Sequence[str]
) -> Coverage:
    """How much of ``body``, tensors of any shape, is ``filled``.

    A layer is a module with parameters of its own; that of an activation (PReLU), which a network of another activation
    lacks, is none. Elements alone would not do: a stem is a thousandth of a network, and running statistics are less.

    Args:
        network: whose weights they are.
        target: its weights by name.
        filled: names of those that the source fills.
        body: names of those that it should fill, the head's left out.
        allow: names of modules or weights, or patterns such as ``*.running_mean``, that may be missing.
    """
    names = [key for key in body if not key.endswith(_COUNTER) and not is_added(key)]
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)} - _slopes(network)
    of_layers = [key for key in names if key in parameters]
    of_norms = [key for key in names if key.endswith(_STATISTICS)]
    unfilled, allowed = _lacking([*of_layers, *of_norms], filled, allow)
    return Coverage(
        _share(target, filled, names), _whole(of_layers, filled), _whole(of_norms, filled), unfilled, allowed
    )


def _lacking(
    keys: Sequence[str], filled: Collection[str], allow: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is not filled and should be, and what is not and may."""
    lacking = [key for key in keys if key not in filled]
    allowed = [key for key in lacking if is_allowed(key, allow)]
    return tuple(key for key in lacking if key not in allowed), tuple(allowed)


def is_allowed(key: str, allow: Sequence[str]) -> bool:
    """Whether a weight may be missing: it lies in a module of ``allow``, or fits a pattern there.

    Example:
        >>> is_allowed("layer4.0.conv1.weight", ["layer4"]), is_allowed("bn1.running_var", ["*.running_*"])
        (True, True)
    """
    return any(is_under(name, allow) or any(fnmatchcase(name, one) for one in allow) for name in (key, plain_key(key)))


def _share(target: Mapping[str, Tensor], filled: Collection[str], names: Sequence[str]) -> float:
    total = sum(target[key].numel() for key in names)
    return sum(target[key].numel() for key in names if key in filled) / total if total else 1.0


def _whole(keys: Sequence[str], filled: Collection[str]) -> tuple[int, int]:
    """How many layers, as they are in a network without variants, are filled whole; and how many there are."""
    layers: dict[str, bool] = {}
    for key in keys:
        layer = plain_key(key).rpartition(".")[0]
        layers[layer] = layers.get(layer, True) and key in filled
    return sum(layers.values()), len(layers)


def _slopes(network: nn.Module) -> set[str]:
    return {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.PReLU)}
