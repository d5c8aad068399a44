"""Names of a source that another program wrote, brought to a network's: a prefix taken off, a known key map applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from ..utils import is_under
from .keys import KEY_MAPS, Rule, plain_key, renamed_key

__all__ = ["Renaming", "match_names"]

_Place: TypeAlias = tuple[int | None, int]  # outputs, None for any, and the number of axes
_TRIED = 4  # prefixes of a key map that are looked at closely


@dataclass(frozen=True)
class Renaming:
    """A prefix that is taken off, then a key map. Names without the prefix stay as they are.

    Attributes:
        prefix: ends in a dot, or is empty.
        key_map: its name; empty for none.
        rules: of the key map.
    """

    prefix: str = ""
    key_map: str = ""
    rules: Sequence[Rule] = ()

    def __call__(self, key: str) -> str:
        return renamed_key(key.removeprefix(self.prefix), self.rules) if key.startswith(self.prefix) else key

    def applied(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``state``, tensors of any shape, by its new names; of two with one name that with the prefix has it."""
        renamed = {self(key): value for key, value in state.items() if not key.startswith(self.prefix)}
        inside = {key: value for key, value in state.items() if key.startswith(self.prefix)}
        for key, value in reversed(inside.items()):  # of two the first stays
            renamed[self(key)] = value
        return {name: renamed[name] for name in dict.fromkeys(map(self, state))}

    def __str__(self) -> str:
        words = [f"without {self.prefix!r}"] * bool(self.prefix) + [f"by the key map {self.key_map}"] * bool(
            self.key_map
        )
        return ", then ".join(words)


def match_names(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: nn.Module, *, head: str, maps: bool = True
) -> tuple[Renaming, int]:
    """The renaming by which ``state`` fills most of ``wanted``, and how many weights it fills.

    It is none where the names fill as much as they are, and where none fills half.

    Tried are all prefixes before the names, such as ``model.``, ``backbone.`` and ``module.encoder_q.``, each with all
    of :data:`KEY_MAPS` and with the numbers of the network's children, as ``nn.Sequential(*network.children())`` has
    them.

    Args:
        state: the source's tensors, of any shape, by name.
        wanted: the network's weights by name.
        network: the network itself, or the part of it that they are of.
        head: the module in it whose weights may have other shapes, as classes differ.
        maps: also try key maps, and not prefixes alone.
    """
    places: dict[str, _Place] = {
        plain_key(name): (None if is_under(name, [head]) else len(weight), weight.ndim)
        for name, weight in wanted.items()
        if weight.ndim
    }
    best, most = Renaming(), _filled(state, places)
    if most == len(places):
        return best, most
    key_maps: dict[str, Sequence[Rule]] = {"": ()}
    if maps:
        key_maps |= {**KEY_MAPS, "numbered children": _numbered(network)}
    for name, rules in key_maps.items():
        for prefix in _prefixes(state, places, rules):
            tried = Renaming(prefix, name, rules)
            if (filled := _filled(tried.applied(state), places)) > most:
                best, most = tried, filled
    # names such as conv1 stand in every block: less than half is no network of this kind
    return (best, most) if 2 * most >= len(places) else (Renaming(), _filled(state, places))


def _prefixes(state: Mapping[str, Tensor], places: Mapping[str, _Place], rules: Sequence[Rule]) -> list[str]:
    """Those that bring most names home, the shortest first of equal ones, then the first in the file."""
    found: Counter[str] = Counter({"": 0})
    for key in state:
        for prefix, rest in _splits(key):
            found[prefix] += renamed_key(rest, rules) in places
    return [prefix for prefix, _ in sorted(found.items(), key=lambda item: -item[1])][:_TRIED]


def _splits(key: str) -> Iterator[tuple[str, str]]:
    at = 0
    while True:
        yield key[:at], key[at:]
        at = key.find(".", at) + 1
        if not at:
            return


def _filled(state: Mapping[str, Tensor], places: Mapping[str, _Place]) -> int:
    """How many weights find a tensor that may fit: a kernel or none, for as many outputs."""
    found = ((state[name], place) for name, place in places.items() if name in state)
    return sum(
        value.ndim > 0 and outputs in (None, len(value)) and (value.ndim > 2) == (ndim > 2)
        for value, (outputs, ndim) in found
    )


def _numbered(network: nn.Module) -> list[Rule]:
    """What leads from children's numbers to their names."""
    children = [name for name, _ in network.named_children()]
    return [(rf"^{i}\.", f"{name}.") for i, name in enumerate(children) if name != str(i)]
