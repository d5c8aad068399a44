"""Weights into a network, with a report of what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..utils import UserError, is_under, last_layer, unwrap, write_json
from .adapt import Inflation, adapt_channels, flatten_axes, inflate, map_rows, match_classes, resize_kernel
from .keys import KEY_MAPS, Rule, is_added, plain_key, remap
from .read import read_weights
from .sources import SOURCES, Source, file_hash, find

__all__ = ["Entry", "LoadReport", "load_weights", "recognize", "source_head"]


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
    """What :func:`load_weights` did.

    Loaded, adapted and missing entries together are the network's, each once.

    Attributes:
        source: name or file; ``none`` for a random initialization.
        sha256: of the file, if there was one.
        entries: one for each weight of the network, then the source's unused ones.
        coverage: share of the elements outside the head that were loaded or adapted; None without a source.
        encoder: the module whose elements were counted, where the source fills a part of the network.
    """

    source: str
    sha256: str | None
    entries: tuple[Entry, ...]
    coverage: float | None
    encoder: str = ""

    def names(self, status: str) -> list[str]:
        """Names of the entries with that status."""
        return [entry.name for entry in self.entries if entry.status == status]

    def __str__(self) -> str:
        if self.coverage is None:
            return f"  {len(self.entries)} weights randomly initialized (no source)"
        counts = Counter((entry.status, entry.how) for entry in self.entries)
        lines = [f"  from {self.source}: {self.coverage:.1%} of the elements {self._counted()}"]
        for (status, how), count in counts.items():
            names = [entry.name for entry in self.entries if (entry.status, entry.how) == (status, how)]
            shown = f": {_some(names, 4)}" if status != "loaded" else ""
            lines.append(f"  {status:<8} {count:>5}  {how}{shown}")
        return "\n".join(lines)

    def _counted(self) -> str:
        return f"of the {self.encoder}" if self.encoder else "outside the head"

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
    encoder: str = "",
    class_map: Mapping[int, int] | None = None,
    classes: Sequence[str] | None = None,
    source_classes: Sequence[str] | None = None,
    inflation: Inflation = "centre",
    resize_kernels: bool = False,
    key_map: str | Sequence[Rule] | None = None,
    min_coverage: float = 0.9,
) -> LoadReport:
    """Load pretrained weights into ``network``, in place, and report on every one of them.

    A weight whose shape differs is adapted where a rule applies: other input channels of the first convolution
    (:func:`adapt_channels`), more spatial dimensions (:func:`inflate`) or fewer (:func:`flatten_axes`), another kernel
    size where that is asked for (:func:`resize_kernel`), the head's rows. A head with another number of classes stays
    as it was initialized.

    Args:
        network: any network; wrappers are seen through.
        source: a catalogue name, a file, tensors by name, or ``none``.
        head: module of the classification head; default: the last layer.
        encoder: module that the source's network became a part of, as in a U-Net: unless the source's names hold it,
            its weights go there, and the coverage is the encoder's.
        class_map: the head's row here to the source's row, for classes that both have.
        classes: names of the head's rows here, instead of ``class_map``: those that the source also has are its rows.
        source_classes: names of the source's rows; default: the catalogue's.
        inflation: ``centre``, ``mean`` or ``acs``.
        resize_kernels: adapt convolutions whose kernel has another size.
        key_map: renames the source's keys: a name of :data:`KEY_MAPS` or ordered regular expressions; default: the
            catalogue's.
        min_coverage: least share of the elements outside the head that must be filled; a catalogue entry that needs
            options of its network (:attr:`Source.options`) must fill it whole.

    Raises:
        UserError: the source cannot be found or read, fills too little of the network, or has no rows for the class
            map; or there is no such head. The network is then as it was before.
    """
    network = unwrap(network)
    target = network.state_dict()
    if head is not None and not any(is_under(key, [head]) for key in target):
        raise UserError(f"{type(network).__name__} has no head {head!r}: its last layer is {last_layer(network)!r}.")
    head = last_layer(network) if head is None else head
    if source is None or (isinstance(source, str) and source == "none"):
        entries = [Entry(name, "missing", "no source", tuple(v.shape)) for name, v in target.items()]
        return LoadReport("none", None, tuple(entries), None)
    known, name, sha256, state = _open(source, key_map)
    if encoder and not any(is_under(key, [encoder]) for key in state):
        state = {f"{encoder}.{key}": value for key, value in state.items()}
    else:
        encoder = ""
    if classes is not None:
        class_map = _by_name(classes, source_classes or (known.classes if known else ()), name)
    stem, filled, entries = _first_convolution(network), {}, []
    for key, weight in target.items():
        found = state.get(key, state.get(plain_key(key)))
        fit = partial(_fit, found, weight, inflation, resize_kernels)
        if is_under(key, [head]):
            value, how = _fit_head(found, weight, class_map, fit)
        elif is_added(key) and found is None:
            value, how = None, "added by a variant"
        elif encoder and not is_under(key, [encoder]):
            value, how = None, f"new, outside the {encoder}"
        else:
            value, how = fit(any_channels=plain_key(key) == stem)
        if value is not None:
            filled[key] = value
        status: Status = "missing" if value is None else "loaded" if how == _AS_IT_WAS else "adapted"
        entries.append(Entry(key, status, how, tuple(weight.shape)))
    named = {*target, *map(plain_key, target)}
    unused = [Entry(k, "unused", "not in the network", tuple(v.shape)) for k, v in state.items() if k not in named]
    inside = (k for k in target if not is_under(k, [head]) and (not encoder or is_under(k, [encoder])))
    body = {k: target[k].numel() for k in inside if not k.endswith(_COUNTER) and not is_added(k)}
    coverage = sum(n for key, n in body.items() if key in filled) / sum(body.values()) if body else 1.0
    report = LoadReport(name, sha256, (*entries, *unused), coverage, encoder)
    options = dict(known.options) if known else {}
    _check_coverage(report, [key for key in body if key not in filled], 1.0 if options else min_coverage, options)
    if class_map and not any(is_under(key, [head]) for key in filled):
        raise UserError(f"{name} has no rows of {head} that the class map could choose from: leave the class map out.")
    network.load_state_dict({**target, **filled})
    return report


def source_head(
    network: nn.Module, source: str | Path | Source | Mapping[str, Tensor], *, head: str | None = None
) -> nn.Linear | None:
    """The source's own last layer, from the features of ``network`` to the source's classes.

    ``None`` if the source has none, or one for other features.
    """
    if source == "none":
        return None
    network = unwrap(network)
    inside = head or ""
    name = ".".join(part for part in (inside, last_layer(network.get_submodule(inside))) if part)
    weight, bias = (_open(source, None)[3].get(f"{name}.{key}") for key in ("weight", "bias"))
    if (
        weight is None
        or weight.ndim != 2
        or weight.shape[1] != cast("nn.Linear", network.get_submodule(name)).weight.shape[1]
    ):
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_() if bias is None else layer.bias.copy_(bias)
    return layer


_AS_IT_WAS = "as it was"
_COUNTER = "num_batches_tracked"  # of batch norm; older files leave it out, and nothing depends on it


def _open(
    source: str | Path | Source | Mapping[str, Tensor], key_map: str | Sequence[Rule] | None
) -> tuple[Source | None, str, str | None, dict[str, Tensor]]:
    """The catalogue's entry if there is one, name, hash, and the tensors under their names here."""
    if isinstance(source, Mapping):
        known, name, sha256, state = None, "tensors", None, dict(source)
    else:
        path = find(source)
        sha256 = file_hash(path)
        known = source if isinstance(source, Source) else SOURCES.get(str(source)) or recognize(path, sha256)
        name, state = known.name if known else str(path), read_weights(path)
    key_map = known.keys if key_map is None and known else key_map
    if key_map is not None:
        state = remap(state, KEY_MAPS[key_map] if isinstance(key_map, str) else key_map)
    return known, name, sha256, state


def recognize(path: Path, sha256: str) -> Source | None:
    """The catalogue's entry of a file that is given by its path."""
    same = (entry for entry in SOURCES.values() if entry.file == path.name)
    return next((entry for entry in same if sha256.startswith(entry.sha256 or "")), None)


def _by_name(classes: Sequence[str], source_classes: Sequence[str], name: str) -> dict[int, int]:
    if not source_classes:
        raise UserError(f"{name} does not say what its classes are: give source_classes, or class_map by number.")
    return match_classes(classes, source_classes)


def _check_coverage(report: LoadReport, unfilled: list[str], least: float, options: Mapping[str, Any]) -> None:
    if report.coverage is not None and report.coverage < least:
        fit = f"build the network with {options}" if options else "choose other weights, or give a key map"
        raise UserError(
            f"{report.source} fills only {report.coverage:.1%} of the network outside its head, at least {least:.0%} "
            f"was expected: not filled are {_some(unfilled, 3)}; not used are {_some(report.names('unused'), 3)}: "
            f"{fit}."
        )


def _first_convolution(network: nn.Module) -> str | None:
    convolutions = (name for name, m in network.named_modules() if isinstance(m, nn.modules.conv._ConvNd))
    return next((f"{name}.weight" for name in convolutions), None)


def _fit(
    value: Tensor | None, weight: Tensor, inflation: Inflation, resize: bool, *, any_channels: bool = False
) -> tuple[Tensor | None, str]:
    """The source's ``value`` in the shape of ``weight``, or None, and what is to be said of it."""
    if value is None:
        return None, "not in the source"
    steps: list[str] = []
    found, dims = tuple(value.shape), weight.ndim - 2
    if 3 <= value.ndim < weight.ndim:
        steps.append(f"inflated {value.ndim - 2}D to {dims}D ({inflation})")
        same = value.shape[2:] == weight.shape[-(value.ndim - 2) :]
        value = inflate(value, dims, inflation, length=weight.shape[2] if same else None)
    elif value.ndim > weight.ndim >= 3:
        steps.append(f"flattened {value.ndim - 2}D to {dims}D")
        value = flatten_axes(value, dims)
    if resize and value.ndim == weight.ndim >= 3 and value.shape[2:] != weight.shape[2:]:
        steps.append(f"kernel {_times(value.shape[2:])} to {_times(weight.shape[2:])}")
        value = resize_kernel(value, weight.shape[2:])
    if any_channels and value.ndim == weight.ndim and value.shape[1] != weight.shape[1]:
        steps.append(f"{value.shape[1]} to {weight.shape[1]} input channels")
        value = adapt_channels(value, weight.shape[1])
    if value.shape != weight.shape:
        return None, f"the source's shape {found} does not fit"
    if value.dtype != weight.dtype:
        steps.append(f"cast from {str(value.dtype).removeprefix('torch.')}")
        value = value.to(weight.dtype)
    return value, ", ".join(steps) or _AS_IT_WAS


def _fit_head(
    value: Tensor | None,
    weight: Tensor,
    class_map: Mapping[int, int] | None,
    fit: Callable[[], tuple[Tensor | None, str]],
) -> tuple[Tensor | None, str]:
    if value is not None and class_map and value.shape[1:] == weight.shape[1:]:
        return map_rows(value, weight, class_map), f"{len(class_map)} class rows mapped"
    if value is None or value.shape[:1] != weight.shape[:1]:
        return None, "new head"
    value, how = fit()
    return value, "new head" if value is None else how


def _times(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
