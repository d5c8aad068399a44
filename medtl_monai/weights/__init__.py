"""Pretrained weights: a catalogue, where to find them, and loading that reports on every weight."""

from .adapt import adapt_channels, flatten_axes, inflate, map_rows, match_classes, resize_kernel
from .download import download
from .keys import KEY_MAPS, remap
from .load import Entry, LoadReport, load_weights
from .read import read_weights
from .sources import SOURCES, Source, file_hash, find, lookup
from .write import save_weights

__all__ = [
    "KEY_MAPS",
    "SOURCES",
    "Entry",
    "LoadReport",
    "Source",
    "adapt_channels",
    "download",
    "file_hash",
    "find",
    "flatten_axes",
    "inflate",
    "load_weights",
    "lookup",
    "map_rows",
    "match_classes",
    "read_weights",
    "remap",
    "resize_kernel",
    "save_weights",
]
