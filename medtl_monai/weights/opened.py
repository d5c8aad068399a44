"""A source that was read, its tensors by the names of the network that they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..utils import is_under, last_layer
from .files import file_hash, find, recognize
from .keys import KeyMap, read_rules, remap
from .match import match_names
from .read import class_names, read_content, tensors_of
from .sources import SOURCES, Source

__all__ = ["Opened", "open_source"]


@dataclass(frozen=True)
class Opened:
    """A source that was read.

    Attributes:
        known: the catalogue's entry, if there is one.
        name: of the source.
        sha256: of its file.
        tensors: by the network's names, as far as they could be brought to them.
        classes: names of the head's rows, of the catalogue or of the file itself; none where nothing says them.
        renamed: how the names were changed, in words.
    """

    known: Source | None
    name: str
    sha256: str | None
    tensors: Mapping[str, Tensor]
    classes: Sequence[str] = ()
    renamed: str = ""

    @property
    def axes(self) -> str:
        """Order of the kernels' three axes, where the catalogue says it."""
        return self.known.axes if self.known else ""


def open_source(
    source: str | Path | Source | Mapping[str, Tensor],
    key_map: KeyMap | None,
    network: nn.Module,
    head: str,
    encoder: str,
) -> Opened:
    """Read the source, and bring its names to those of ``network`` or of its ``encoder``.

    Args:
        source: a catalogue name, a file, or tensors of any shape by name.
        key_map: renames its keys first; default: the catalogue's.
        network: whose names are wanted.
        head: its head's name.
        encoder: module that the source's network may have become; empty for none.

    Raises:
        UserError: the source cannot be found or read, or the key map is none.
    """
    known, name, sha256, classes = None, "tensors", None, []
    if isinstance(source, Mapping):
        state = dict(source)
    else:
        path = find(source)
        sha256 = file_hash(path)
        known = source if isinstance(source, Source) else SOURCES.get(str(source)) or recognize(path, sha256)
        name, content = known.name if known else str(path), read_content(path)
        state, classes = tensors_of(content, path), class_names(content)
    key_map = known.keys if key_map is None and known else key_map
    if key_map is not None:
        state = remap(state, read_rules(key_map))
    tensors, renamed = _matched(state, network, head, encoder, maps=key_map is None)
    return Opened(known, name, sha256, tensors, known.classes if known else classes, renamed)


def _matched(
    state: Mapping[str, Tensor], network: nn.Module, head: str, encoder: str, *, maps: bool
) -> tuple[Mapping[str, Tensor], str]:
    """The tensors by names of the network, and what was done to their own; the encoder's get its name before them."""
    renaming, filled = match_names(state, network.state_dict(), network, head=head, maps=maps)
    if not encoder:
        return renaming.applied(state), str(renaming)
    inner = network.get_submodule(encoder)
    inside, more = match_names(state, inner.state_dict(), inner, head=last_layer(inner), maps=maps)
    if any(is_under(renaming(key), [encoder]) for key in state) and filled >= more:
        return renaming.applied(state), str(renaming)
    return {f"{encoder}.{key}": value for key, value in inside.applied(state).items()}, str(inside)
