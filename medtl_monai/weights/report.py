"""What became of every weight, as an object that can be tested, printed and written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..utils import write_json

__all__ = ["Entry", "LoadReport", "Status", "as_share", "some_of"]

Status = Literal["loaded", "adapted", "missing", "unused"]


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
    status: Status
    how: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What :func:`medtl_monai.weights.load_weights` did.

    Loaded, adapted and missing entries together are the network's, each once.

    Attributes:
        source: name or file; ``none`` for a random initialization.
        sha256: of the file, if there was one.
        entries: one for each weight of the network, then the source's unused ones.
        coverage: share of the elements outside the head that were loaded or adapted; None without a source.
        layers: how many layers outside the head were filled whole, and of how many; None without a source.
        statistics: how many norms got running statistics, and of how many that keep them; None without a source.
        encoder: the module whose weights were counted, where the source fills a part of the network.
        renamed: how the source's names were changed to the network's; empty: not.
        allowed: weights that are missing, which was allowed by name.
    """

    source: str
    sha256: str | None
    entries: tuple[Entry, ...]
    coverage: float | None
    layers: tuple[int, int] | None = None
    statistics: tuple[int, int] | None = None
    encoder: str = ""
    renamed: str = ""
    allowed: tuple[str, ...] = ()

    def names(self, status: str) -> list[str]:
        """Names of the entries with that status."""
        return [entry.name for entry in self.entries if entry.status == status]

    def __str__(self) -> str:
        if self.coverage is None:
            return f"  {len(self.entries)} weights randomly initialized (no source)"
        counts = Counter((entry.status, entry.how) for entry in self.entries)
        lines = [f"  from {self.source}: {self.counted()} {self._where()}"]
        lines += [f"  its names {self.renamed}"] * bool(self.renamed)
        for (status, how), count in counts.items():
            names = [entry.name for entry in self.entries if (entry.status, entry.how) == (status, how)]
            shown = f": {some_of(names, 4)}" if status != "loaded" else ""
            lines.append(f"  {status:<8} {count:>5}  {how}{shown}")
        if self.allowed:
            lines.append(f"  of the missing ones {len(self.allowed)} were allowed: {some_of(self.allowed, 4)}")
        return "\n".join(lines)

    def counted(self) -> str:
        """Elements, layers and statistics that were filled, in words."""
        words = f"{as_share(self.coverage or 0.0)} of the elements"
        if self.layers is not None:
            words += f", {self.layers[0]} of {self.layers[1]} layers"
        if self.statistics is not None and self.statistics[1]:
            words += f" and the statistics of {self.statistics[0]} of {self.statistics[1]} norms"
        return words

    def _where(self) -> str:
        return f"of the {self.encoder}" if self.encoder else "outside the head"

    def by_layer(self) -> str:
        """Every weight on a line of its own: name, what became of it, how, and its shape."""
        wide = max((len(entry.name) for entry in self.entries), default=0)
        return "\n".join(
            f"{entry.name:<{wide}}  {entry.status:<8} {'x'.join(map(str, entry.shape)) or 'scalar':<16} {entry.how}"
            for entry in self.entries
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON content."""
        return asdict(self)

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, self.to_json())


def as_share(value: float) -> str:
    """A share in percent, rounded down, so that only the whole is 100.0%.

    Example:
        >>> as_share(0.99999), as_share(1.0)
        ('99.9%', '100.0%')
    """
    return f"{math.floor(value * 1000) / 10:.1f}%"


def some_of(names: Sequence[str], most: int) -> str:
    """The first ``most`` names, and how many there are more.

    Example:
        >>> some_of(["a", "b", "c"], 2), some_of([], 2)
        ('a, b and 1 more', 'none')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
