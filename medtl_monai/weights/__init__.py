"""Pretrained weights: a catalogue, where to find them, and loading that reports on every weight."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .fetch import download
from .files import check_hash, file_hash, find, local, recognize
from .kinds import check_sums, kind_of
from .sources import SOURCES, Source, lookup

if TYPE_CHECKING:
    from .adapt import adapt_channels, flatten_axes, inflate, map_rows, match_classes, resize_kernel, turn_axes
    from .keys import KEY_MAPS, KeyMap, read_rules, remap
    from .load import load_weights, source_head
    from .read import read_weights
    from .report import Entry, LoadReport
    from .write import save_weights

__all__ = [
    "KEY_MAPS",
    "SOURCES",
    "Entry",
    "KeyMap",
    "LoadReport",
    "Source",
    "adapt_channels",
    "check_hash",
    "check_sums",
    "download",
    "file_hash",
    "find",
    "flatten_axes",
    "inflate",
    "kind_of",
    "load_weights",
    "local",
    "lookup",
    "map_rows",
    "match_classes",
    "read_rules",
    "read_weights",
    "recognize",
    "remap",
    "resize_kernel",
    "save_weights",
    "source_head",
    "turn_axes",
]


def __getattr__(name: str) -> Any:
    """What needs torch is imported on first use, so that the catalogue answers at once."""
    if name in __all__:
        for module in ("adapt", "keys", "load", "read", "report", "write"):
            found = import_module(f".{module}", __name__)
            if name in found.__all__:
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
