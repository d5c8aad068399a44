"""Weights into a network, with a report of what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from ..utils import UserError, is_under, last_layer, unwrap, write_json
from .adapt import Inflation, adapt_channels, inflate, map_rows
from .keys import KEY_MAPS, remap
from .read import read_weights
from .sources import SOURCES, Source, file_hash, find

__all__ = ["Entry", "LoadReport", "load_weights"]


@dataclass(frozen=True)
class Entry:
    """What became of one weight.

    Attributes:
        name: in the network, or in the source for an unused one.
        status: ``loaded`` as it was, ``adapted`` to another shape, ``missing`` in the source (or not fitting), or
            ``unused`` of the source.
        how: the adaptation, or the reason.
        shape: in the network; of an unused one in the source.
    """

    name: str
    status: Literal["loaded", "adapted", "missing", "unused"]
    how: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_weights` did.

    Loaded, adapted and missing entries together are the network's, each once.

    Attributes:
        source: name or file; ``none`` for a random initialization.
        sha256: of the file, if there was one.
        entries: one for each weight of the network, then the source's unused ones.
        coverage: share of the elements outside the head that were loaded or adapted; None without a source.
    """

    source: str
    sha256: str | None
    entries: tuple[Entry, ...]
    coverage: float | None

    def names(self, status: str) -> list[str]:
        """Names of the entries with that status."""
        return [entry.name for entry in self.entries if entry.status == status]

    def __str__(self) -> str:
        if self.coverage is None:
            return f"  {len(self.entries)} weights randomly initialized (no source)"
        counts = Counter((entry.status, entry.how) for entry in self.entries)
        lines = [f"  from {self.source}: {self.coverage:.1%} of the elements outside the head"]
        for (status, how), count in counts.items():
            names = [entry.name for entry in self.entries if (entry.status, entry.how) == (status, how)]
            shown = f": {_some(names, 4)}" if status != "loaded" else ""
            lines.append(f"  {status:<8} {count:>5}  {how}{shown}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """As JSON content."""
        return asdict(self)

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, self.to_json())


def load_weights(
    network: nn.Module,
    source: str | Path | Source | Mapping[str, Tensor] | None,
    *,
    head: str | None = None,
    class_map: Mapping[int, int] | None = None,
    inflation: Inflation = "mean",
    key_map: str | Sequence[tuple[str, str]] | None = None,
    min_coverage: float = 0.9,
) -> LoadReport:
    """Load pretrained weights into ``network``, in place, and report on every one of them.

    A weight whose shape differs is adapted where a rule applies: other input channels (:func:`adapt_channels`), more
    spatial dimensions (:func:`inflate`), the head's rows. A head with other classes stays as it was initialized.

    Args:
        network: any network; wrappers are seen through.
        source: a catalogue name, a file, tensors by name, or ``none``.
        head: module of the classification head; default: the last layer.
        class_map: the head's row here to the source's row, for classes that both have.
        inflation: ``mean`` or ``centre``.
        key_map: renames the source's keys: a name of :data:`KEY_MAPS` or ordered regular expressions; default: the
            catalogue's.
        min_coverage: least share of the elements outside the head that must be filled.

    Raises:
        UserError: the source cannot be found or read, or fills too little of the network. The network is then as it
            was before.
    """
    network = unwrap(network)
    target = network.state_dict()
    head = last_layer(network) if head is None else head
    if source is None or (isinstance(source, str) and source == "none"):
        entries = tuple(Entry(name, "missing", "no source", tuple(v.shape)) for name, v in target.items())
        return LoadReport("none", None, entries, None)
    name, sha256, state, own_map = _open(source)
    key_map = own_map if key_map is None else key_map
    if key_map is not None:
        state = remap(state, KEY_MAPS[key_map] if isinstance(key_map, str) else key_map)
    filled, entries_list = {}, []
    for key, weight in target.items():
        value, entry = _fit(key, weight, state.get(key), is_under(key, [head]), class_map, inflation)
        entries_list.append(entry)
        if value is not None:
            filled[key] = value
    unused = [Entry(k, "unused", "not in the network", tuple(v.shape)) for k, v in state.items() if k not in target]
    body = {key: weight.numel() for key, weight in target.items() if not is_under(key, [head])}
    coverage = sum(n for key, n in body.items() if key in filled) / max(1, sum(body.values()))
    report = LoadReport(name, sha256, (*entries_list, *unused), coverage)
    if coverage < min_coverage:
        raise UserError(
            f"{name} fills only {coverage:.1%} of the {type(network).__name__} outside its head, at least "
            f"{min_coverage:.0%} was expected: not filled are {_some([k for k in body if k not in filled], 3)}; "
            f"not used are {_some(report.names('unused'), 3)}: choose weights of this architecture, or give a key map."
        )
    network.load_state_dict({**target, **filled})
    return report


def _open(
    source: str | Path | Source | Mapping[str, Tensor],
) -> tuple[str, str | None, dict[str, Tensor], str | None]:
    if isinstance(source, Mapping):
        return "tensors", None, dict(source), None
    path = find(source)
    known = source if isinstance(source, Source) else SOURCES.get(str(source))
    if known is None:  # a file of the catalogue, given by its path
        known = next((entry for entry in SOURCES.values() if entry.file == path.name), None)
    return known.name if known else str(path), file_hash(path), read_weights(path), known.keys if known else None


def _fit(
    key: str,
    weight: Tensor,
    value: Tensor | None,
    in_head: bool,
    class_map: Mapping[int, int] | None,
    inflation: Inflation,
) -> tuple[Tensor | None, Entry]:
    """The source's ``value`` in the shape of ``weight``, or None, and what is to be said of it."""
    shape = tuple(weight.shape)
    if value is None:
        how = "new head" if in_head else "not in the source"
        return None, Entry(key, "missing", how, shape)
    steps: list[str] = []
    if in_head and class_map is not None and value.shape[1:] == weight.shape[1:]:
        return map_rows(value, weight, class_map), Entry(key, "adapted", f"{len(class_map)} class rows mapped", shape)
    if in_head and value.shape != weight.shape:
        return None, Entry(key, "missing", "new head", shape)
    if value.ndim >= 3 and 3 <= value.ndim < weight.ndim and value.shape[0] == weight.shape[0]:
        steps.append(f"inflated {value.ndim - 2}D to {weight.ndim - 2}D ({inflation})")
        value = inflate(value, weight.ndim - 2, inflation)
    fits_but_channels = value.ndim == weight.ndim >= 3 and value.shape[0] == weight.shape[0]
    if fits_but_channels and value.shape[2:] == weight.shape[2:] and value.shape[1] != weight.shape[1]:
        steps.append(f"{value.shape[1]} to {weight.shape[1]} input channels")
        value = adapt_channels(value, weight.shape[1])
    if value.shape != weight.shape:
        return None, Entry(key, "missing", f"the source's shape {tuple(value.shape)} does not fit", shape)
    if value.dtype != weight.dtype:
        steps.append(f"cast from {str(value.dtype).removeprefix('torch.')}")
        value = value.to(weight.dtype)
    return value, Entry(key, "adapted" if steps else "loaded", ", ".join(steps) or "as it was", shape)


def _some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
