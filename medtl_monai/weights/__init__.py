"""Pretrained weights: a catalogue, where to find them, and loading that reports on every weight."""

from .adapt import adapt_channels, inflate, map_rows
from .download import download
from .keys import KEY_MAPS, remap
from .load import Entry, LoadReport, load_weights
from .read import read_weights
from .sources import SOURCES, Source, file_hash, find, lookup

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
    "inflate",
    "load_weights",
    "lookup",
    "map_rows",
    "read_weights",
    "remap",
]
