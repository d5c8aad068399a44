"""What a network is, changed by name: normalization, dropout, initialization, activation, pooling, adapters.

Variants stand in the same words in the training and in the inference configuration; how a network *learns* is a matter
of strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import nn

from ..utils import UserError
from .adapters import ADAPTERS, add_adapters, merge_adapters
from .dropout import DROPOUTS, add_dropout, monte_carlo
from .init import INITS, initialize, mean_variance
from .layers import POOLINGS, convert_activation, convert_pooling, output_size
from .norm import NORMS, adapt_batch_norm, convert_norm, domains_of, use_domain, use_regions

__all__ = [
    "ADAPTERS",
    "DROPOUTS",
    "INITS",
    "NORMS",
    "POOLINGS",
    "VARIANTS",
    "adapt_batch_norm",
    "add_adapters",
    "add_dropout",
    "apply",
    "convert_activation",
    "convert_norm",
    "convert_pooling",
    "domains_of",
    "initialize",
    "mean_variance",
    "merge_adapters",
    "monte_carlo",
    "output_size",
    "use_domain",
    "use_regions",
]

VARIANTS: dict[str, Callable[..., nn.Module]] = {
    "init": initialize,
    "norm": convert_norm,
    "act": convert_activation,
    "pooling": convert_pooling,
    "dropout": add_dropout,
    "adapter": add_adapters,
}
"""Key to function, in the order in which they are applied."""

_NEED_BLOCKS = ("dropout", "adapter")


def apply(network: nn.Module, variant: Mapping[str, Any], *, blocks: Sequence[str] = ()) -> nn.Module:
    """Change ``network``, in place.

    Args:
        network: any network.
        variant: by key of :data:`VARIANTS` a name, or a mapping of ``name`` and settings; ``dropout`` may be a rate.
        blocks: names of the modules behind which some kinds of dropout and adapters stand, from stem to head.

    Returns:
        ``network``.

    Raises:
        UserError: an unknown key, name or setting.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
        >>> apply(network, {"norm": {"name": "group", "groups": 2}, "dropout": 0.5})[1]
        GroupNorm(2, 4, eps=1e-05, affine=True, bias=True)
    """
    for key in variant:
        if key not in VARIANTS:
            near = get_close_matches(key, VARIANTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(VARIANTS)}."
            raise UserError(f"there is no variant {key!r}: {hint}")
    for key, function in VARIANTS.items():
        if variant.get(key) is not None:
            name, settings = _named(key, variant[key])
            function(network, name, **settings, **({"blocks": blocks} if key in _NEED_BLOCKS else {}))
    return network


def _named(key: str, value: Any) -> tuple[str, dict[str, Any]]:
    """Name and settings of one kind of change."""
    if key == "dropout" and isinstance(value, (int, float)):
        return "standard", {"p": float(value)}
    settings = {"name": value} if isinstance(value, str) else dict(value)
    if "name" not in settings:
        raise UserError(f"variant {key} needs a name, got {value}.")
    return settings.pop("name"), settings
