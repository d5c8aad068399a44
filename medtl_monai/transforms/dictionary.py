"""The transforms of ``spatial`` and ``intensity`` for dictionaries: ``RandFlipd(keys=["image", "label"], prob=0.5)``.

They take MONAI's ``keys`` and ``allow_missing_keys``, and ``mode`` and ``padding_mode`` as one value or one a key:
``nearest`` for labels, ``bilinear`` for labels in one-hot form. The entries are batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.utils import ensure_tuple, ensure_tuple_rep

from . import intensity, spatial
from .batched import BatchTransform, Spatial


def _dictionary(kind: type[BatchTransform]) -> type[BatchTransform]:
    """``kind`` with ``keys`` before its own arguments."""

    def __init__(  # noqa: N807
        self: Any, keys: Sequence[str] | str, *args: Any, allow_missing_keys: bool = False, **kwargs: Any
    ) -> None:
        names = ensure_tuple(keys)
        each = {
            option: ensure_tuple_rep(kwargs.pop(option), len(names))
            for option in ("mode", "padding_mode")
            if option in kwargs and issubclass(kind, Spatial)
        }
        how: dict[str, Any] = {}
        for i, name in enumerate(names):
            own = {option: values[i] for option, values in each.items()}
            kind.__init__(self, *args, **kwargs, **own)  # type: ignore[misc]
            how[name] = self.how["image"] if isinstance(self, Spatial) else None
        if isinstance(self, Spatial):
            self.how = how
        else:
            self.names = names
        self.allow_missing_keys = allow_missing_keys

    doc = f":class:`~medtl_monai.transforms.{kind.__name__}` for dictionaries of batches: ``keys``, then its arguments."
    body = {"__init__": __init__, "__doc__": doc, "__module__": __name__}
    return type(f"{kind.__name__}d", (kind,), body)


KINDS = {f"{name}d": _dictionary(getattr(module, name)) for module in (spatial, intensity) for name in module.__all__}
"""Every transform's form for dictionaries, by name."""

globals().update(KINDS)
__all__ = ["KINDS", *KINDS]  # noqa: PLE0604
