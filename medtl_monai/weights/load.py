"""Weights into a network, with a report of what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..utils import UserError, is_under, last_layer, unwrap
from .adapt import Inflation, match_classes, turn_axes
from .coverage import Coverage, covered
from .fit import AS_IT_WAS, Fitted, Fitting, fit, fit_head
from .keys import KeyMap, is_added, plain_key
from .opened import Opened, open_source
from .report import Entry, LoadReport, Status, as_share, some_of
from .sources import Source

__all__ = ["load_weights", "source_head"]


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
    axes: str | None = None,
    key_map: KeyMap | None = None,
    allow_missing: Sequence[str] = (),
) -> LoadReport:
    """Load pretrained weights into ``network``, in place, and report on every one of them.

    Every layer outside the head must be filled, and the running statistics of every norm that keeps them. A weight
    whose shape differs is adapted where a rule applies: other input channels of the first convolution
    (:func:`adapt_channels`), more spatial dimensions (:func:`inflate`) or fewer (:func:`flatten_axes`), another order
    of three axes (:func:`turn_axes`), another kernel size where that is asked for (:func:`resize_kernel`), the head's
    rows. A head with another number of classes stays as it was initialized. Names of other trainers are brought to the
    network's (:func:`medtl_monai.weights.match.match_names`).

    Args:
        network: any network; wrappers are seen through.
        source: a catalogue name, a file, tensors of any shape by name, or ``none``.
        head: module of the classification head; default: the last layer.
        encoder: module that the source's network became a part of, as in a U-Net: unless the source fills more than it,
            its weights go there, and the rest may stay new.
        class_map: the head's row here to the source's row, for classes that both have; empty: none is the same.
        classes: names of the head's rows here, instead of ``class_map``: those that the source also has are its rows.
        source_classes: names of the source's rows; default: the catalogue's, or those that a run of this package wrote
            into its file.
        inflation: ``centre``, ``mean`` or ``acs``.
        resize_kernels: adapt convolutions whose kernel has another size.
        axes: order of the source's three axes, such as ``ZYX``; default: the catalogue's, else ``XYZ``, as here.
        key_map: renames the source's keys, see :func:`read_rules`; default: the catalogue's.
        allow_missing: modules or weights that may stay random, by name or pattern, such as ``*.running_mean``.

    Raises:
        UserError: the source cannot be found or read, leaves a layer or statistics of the network unfilled, holds
            values that are no finite numbers or quantized, or has no rows for the class map; ``source_classes`` are
            not its rows; or there is no such head. The network is then as it was before.
    """
    network = unwrap(network)
    target = network.state_dict()
    head = _head_of(network, target, head)
    if source is None or source == "none":
        entries = [Entry(name, "missing", "no source", tuple(v.shape)) for name, v in target.items()]
        return LoadReport("none", None, tuple(entries), None)
    opened = open_source(source, key_map, network, head, encoder)
    _check_whole(opened, target)
    _check_names(source_classes or (), opened, _last(network, head))
    rows = class_map if classes is None else _same_classes(classes, source_classes or opened.classes, opened.name)
    fitting = Fitting(inflation, resize_kernels, _axes(opened, axes))
    fitted = dict(_fitted(network, target, opened.tensors, head, rows, fitting))
    filled = {key: value for key, (value, _) in fitted.items() if value is not None}
    encoder = _part_filled(target, filled, head, encoder)
    found = covered(network, target, filled, _body(target, head, encoder), allow_missing)
    report = _report(opened, target, fitted, found, encoder, head)
    _check_coverage(report, found, opened.known)
    _check_finite(opened.name, filled)
    _check_rows(opened.name, filled, head, rows)
    network.load_state_dict({**target, **filled})
    return report


def source_head(
    network: nn.Module,
    source: str | Path | Source | Mapping[str, Tensor],
    *,
    head: str | None = None,
    key_map: KeyMap | None = None,
) -> nn.Linear | None:
    """The source's own last layer, from the features of ``network`` ``(B, F)`` to the source's classes.

    ``None`` if the source has none, or one for other features.

    Args:
        network: any network; wrappers are seen through.
        source: as of :func:`load_weights`.
        head: module of the classification head; default: the last layer.
        key_map: renames the source's keys; default: the catalogue's.

    Raises:
        UserError: the source cannot be found or read, or its head holds values that are no finite numbers.
    """
    if source == "none":
        return None
    network = unwrap(network)
    inside = head or ""
    name = ".".join(part for part in (inside, last_layer(network.get_submodule(inside))) if part)
    opened = open_source(source, key_map, network, name, "")
    weight, bias = (opened.tensors.get(f"{name}.{key}") for key in ("weight", "bias"))
    features = cast("nn.Linear", network.get_submodule(name)).weight.shape[1]
    if weight is None or weight.ndim != 2 or weight.shape[1] != features:
        return None
    bias = torch.zeros(len(weight)) if bias is None else bias
    _check_finite(opened.name, {f"{name}.weight": weight, f"{name}.bias": bias})
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _axes(opened: Opened, axes: str | None) -> str:
    """The order of the source's axes: what the user says goes before the catalogue."""
    if axes is None:
        return opened.axes
    kernels = [value for value in opened.tensors.values() if value.ndim == 5]
    if not kernels:
        raise UserError(f"axes {axes} are of kernels of three axes, and {opened.name} has none: leave axes out.")
    turn_axes(kernels[0], axes)  # says what an order is
    return axes


def _head_of(network: nn.Module, target: Mapping[str, Tensor], head: str | None) -> str:
    if head is None:
        return last_layer(network)
    if not any(is_under(key, [head]) for key in target):
        raise UserError(f"{type(network).__name__} has no head {head!r}: its last layer is {last_layer(network)!r}.")
    return head


def _last(network: nn.Module, head: str) -> str:
    """The head's last layer, whose rows are the classes."""
    inside = last_layer(network.get_submodule(head))
    return f"{head}.{inside}" if inside else head


def _check_names(names: Sequence[str], opened: Opened, last: str) -> None:
    """Refuse names that cannot be those of the source's rows: too many or too few, or one for two rows."""
    weight = opened.tensors.get(f"{last}.weight")
    if names and weight is not None and weight.ndim == 2 and len(weight) != len(names):
        raise UserError(
            f"source_classes names {len(names)} classes, and the head {last} of {opened.name} has {len(weight)} rows: "
            "name each row, in the source's order, and one that is no class ''."
        )
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        raise UserError(f"source_classes names {twice[0]!r} twice: give each row of the source a name of its own.")


def _check_whole(opened: Opened, target: Mapping[str, Tensor]) -> None:
    """Refuse whole numbers where weights are fractions: quantized ones mean nothing without their scales."""
    for key, weight in target.items():
        value = opened.tensors.get(key)
        if value is not None and weight.is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(
                f"{opened.name}: {key} holds whole numbers ({kind}), as quantized weights do: take the file from "
                "before they were quantized."
            )


def _same_classes(classes: Sequence[str], source_classes: Sequence[str], name: str) -> Mapping[int, int] | None:
    """Row here to row of the source; None where all are the same."""
    if not source_classes:
        raise UserError(f"{name} does not say what its classes are: give source_classes, or class_map by number.")
    rows = match_classes(classes, source_classes)
    same = len(classes) == len(source_classes) and rows == {i: i for i in range(len(classes))}
    return None if same else rows


def _fitted(
    network: nn.Module,
    target: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    head: str,
    rows: Mapping[int, int] | None,
    how: Fitting,
) -> Iterator[tuple[str, Fitted]]:
    """Of every weight of the network what the source has for it."""
    stem = _first_convolution(network)
    last = _last(network, head)
    for key, weight in target.items():
        found = state.get(key, state.get(plain_key(key)))
        fitting = partial(fit, found, weight, how, any_channels=plain_key(key) == stem)
        if is_under(key, [head]):
            yield key, fit_head(found, weight, rows, fitting, last=is_under(key, [last]))
        elif is_added(key) and found is None:
            yield key, (None, "added by a variant")
        else:
            yield key, fitting()


def _first_convolution(network: nn.Module) -> str | None:
    convolutions = (name for name, m in network.named_modules() if isinstance(m, nn.modules.conv._ConvNd))
    return next((f"{name}.weight" for name in convolutions), None)


def _body(target: Mapping[str, Tensor], head: str, encoder: str) -> list[str]:
    """What the source should fill: all but the head; of an encoder its own."""
    return [key for key in target if not is_under(key, [head]) and (not encoder or is_under(key, [encoder]))]


def _part_filled(target: Mapping[str, Tensor], filled: Mapping[str, Tensor], head: str, encoder: str) -> str:
    """The encoder, where the source fills nothing but it; else nothing."""
    beyond = (key for key in target if not is_under(key, [head, encoder]))
    return "" if not encoder or any(key in filled for key in beyond) else encoder


def _report(
    opened: Opened,
    target: Mapping[str, Tensor],
    fitted: Mapping[str, Fitted],
    found: Coverage,
    encoder: str,
    head: str,
) -> LoadReport:
    entries = []
    for key, (value, how) in fitted.items():
        status: Status = "missing" if value is None else "loaded" if how == AS_IT_WAS else "adapted"
        beyond = encoder and value is None and not is_under(key, [encoder, head])
        entries.append(Entry(key, status, f"new, outside the {encoder}" if beyond else how, tuple(target[key].shape)))
    named = {*target, *map(plain_key, target)}
    entries += [
        Entry(key, "unused", "not in the network", tuple(value.shape))
        for key, value in opened.tensors.items()
        if key not in named
    ]
    return LoadReport(
        source=opened.name,
        sha256=opened.sha256,
        entries=tuple(entries),
        coverage=found.elements,
        layers=found.layers,
        statistics=found.statistics,
        encoder=encoder,
        renamed=opened.renamed,
        allowed=found.allowed,
    )


def _check_coverage(report: LoadReport, found: Coverage, known: Source | None) -> None:
    if not found.unfilled:
        return
    fitting = (
        f"build the network with {dict(known.options)}"
        if known is not None and known.options
        else "choose other weights, give a key map (--key_map), or name what may stay random (--allow_missing)"
    )
    hows = {entry.name: entry.how for entry in report.entries}
    reasons = [f"{key} ({hows[key]})" if "shape" in hows[key] else key for key in found.unfilled]
    raise UserError(
        f"{report.source} fills only {as_share(found.elements)} of the network outside its head, {found.layers[0]} of "
        f"{found.layers[1]} layers and the statistics of {found.statistics[0]} of {found.statistics[1]} norms, and all "
        f"were expected: not filled are {some_of(reasons, 3)}; not used are {some_of(report.names('unused'), 3)}: "
        f"{fitting}."
    )


def _check_finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse numbers that are none, and variances below 0: the network would answer nothing but NaN."""
    for key, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            count = int((~value.isfinite()).sum())
            raise UserError(
                f"{name}: {count:,} of the {value.numel():,} values of {key} are no finite numbers (NaN or infinite): "
                "the weights are damaged: take another file."
            )
        if key.endswith("running_var") and (value < 0).any():
            raise UserError(f"{name}: {key} holds variances below 0: the weights are damaged: take another file.")


def _check_rows(name: str, filled: Mapping[str, Tensor], head: str, rows: Mapping[int, int] | None) -> None:
    if rows and not any(is_under(key, [head]) for key in filled):
        raise UserError(f"{name} has no rows of {head} that the class map could choose from: leave the class map out.")
