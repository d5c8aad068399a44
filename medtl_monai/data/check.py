"""What a set of images holds, and what in it looks wrong: every file is read once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils import UserError, with_bar
from .cases import Cases, present_classes
from .find import render_unused
from .leakage import audit
from .look import Look, look_at, shape_of
from .masks import FractionsError, MaskValues
from .readable import why_not
from .stacks import check_shapes, stack_of

__all__ = ["check_cases", "render_check"]

Array = NDArray[Any]

_STOPS = "reasons for which a training stops"
_OUTLIER = 2.0  # a side this many times longer or shorter than usual
_SHOWN = 5  # examples and kinds that are listed


def check_cases(cases: Cases, *, progress: bool = True) -> dict[str, Any]:
    """Read all images and masks.

    Args:
        cases: from :func:`medtl_monai.data.load_cases`.
        progress: show a bar, if the error output is a terminal.

    Returns:
        For JSON: ``folder``, ``layout`` and ``why`` that, ``task``, ``cases``, ``patients``; ``classes``, ``split``
        and ``domains`` with their numbers of images and patients (for masks: those that hold the structure);
        ``sizes``, ``spacings`` (mm) and ``depths`` with their numbers of images, the most frequent first;
        ``intensities``, the least and the largest value; ``not_used``, what else lies in the folder, counted by kind;
        ``doubts`` about names and tables, a sentence each; ``suspicious``, a list of kinds with their number, text and
        examples; ``leakage`` between the parts of the data's own split, or ``None``.
    """
    read: dict[int, Look] = {}
    values: dict[int, set[int]] = {}
    masks = MaskValues()
    doubts: dict[str, list[str]] = defaultdict(list)
    for i, item in enumerate(with_bar(cases.items, "reading", progress)):
        name = _name(item, cases.root)
        try:
            read[i] = look_at(item, stacks=cases.task == "segmentation", views=cases.layout == "bcs_dbt")
            if cases.task == "segmentation":
                values[i] = _mask(item, name, masks, doubts)
        except FractionsError as error:
            doubts[_STOPS].append(str(error))
        except Exception as error:  # every reader has its own kinds
            doubts["cannot be read"].append(f"{name} ({why_not(error, _first(item))})")
            read.pop(i, None)
    problem = masks.problem(dict(zip(cases.classes, cases.label_values, strict=False)))
    if problem:
        doubts[_STOPS].append(problem)
    _doubt_images(cases, read, doubts)
    present = _present(cases, values, doubts)
    parts = [item.get("split") for item in cases.items]
    return {
        "folder": str(cases.root),
        "layout": cases.layout,
        "why": cases.why,
        "task": cases.task,
        "cases": len(cases.items),
        "patients": len({item["patient"] for item in cases.items}),
        "classes": {name: _counts(cases, [k in found for found in present]) for k, name in enumerate(cases.classes)},
        "split": _groups(cases, parts),
        "domains": _groups(cases, [item.get("domain") for item in cases.items]),
        **_ranges(list(read.values())),
        "not_used": cases.unused,
        "doubts": cases.doubts,
        "suspicious": [
            {"what": what, "count": len(names), "examples": names[:_SHOWN]} for what, names in doubts.items()
        ],
        "leakage": _leakage(cases, parts, read),
    }


def _ranges(known: Sequence[Look]) -> dict[str, Any]:
    """What sizes, spacings, types and values there are."""
    spacings = (" x ".join(f"{step:.3g}" for step in one.spacing) if one.spacing else "unknown" for one in known)
    return {
        "sizes": _frequent(_sides(one.shape) for one in known),
        "spacings": _frequent(spacings),
        "depths": _frequent(one.depth for one in known),
        "intensities": [min(one.low for one in known), max(one.high for one in known)] if known else None,
    }


def render_check(report: Mapping[str, Any]) -> str:
    """The report of :func:`check_cases` as text."""
    lines = [f"{'folder':<10}{report['folder']}", f"{'layout':<10}{report['layout']}: {report['why']}"]
    lines += [f"{'task':<10}{report['task']}", f"{'cases':<10}{report['cases']} of {report['patients']} patients"]
    for key, head in (("classes", "class"), ("split", "part"), ("domains", "domain")):
        if report[key]:
            rows = [(name, *counts.values()) for name, counts in report[key].items()]
            lines += ["", *_table((head, *next(iter(report[key].values()))), rows)]
        else:
            lines += ["", f"{key:<10}none in the data"]
    lines.append("")
    for key in ("sizes", "spacings", "depths"):
        shown = [f"{name} ({count})" for name, count in list(report[key].items())[:_SHOWN]]
        more = f" and {len(report[key]) - _SHOWN} more" if len(report[key]) > _SHOWN else ""
        lines.append(f"{key:<10}{', '.join(shown)}{more}")
    if report["intensities"]:
        lines.append(f"{'values':<10}{' to '.join(f'{value:g}' for value in report['intensities'])}")
    return "\n".join([*lines, render_unused(report["not_used"]), "", *_warnings(report)])


def _warnings(report: Mapping[str, Any]) -> list[str]:
    lines = [f"warning: {doubt}" for doubt in report["doubts"]]
    for doubt in report["suspicious"]:
        lines.append(f"warning: {doubt['count']} {doubt['what']}")
        lines += [f"  {name}" for name in doubt["examples"]] + ["  ..."] * (doubt["count"] > len(doubt["examples"]))
    lines.append(f"leakage: {report['leakage']['verdict']}" if report["leakage"] else "leakage: no split to look at.")
    return lines


def _mask(item: Mapping[str, Any], name: str, values: MaskValues, doubts: dict[str, list[str]]) -> set[int]:
    """The values of an item's mask, or the reason for which training refuses it."""
    image, mask = stack_of(item, "image"), stack_of(item, "label")
    try:
        check_shapes(item, image, mask)
    except UserError as error:
        sizes = f"{_sides(shape_of(mask))}, not {_sides(shape_of(image))}"
        doubts["masks of another size than their image"].append(f"{name} ({sizes})")
        doubts[_STOPS].append(str(error))
    return values.add(mask.numpy(), str(item["label"]), lossy=mask.meta.get("lossy", False))


def _doubt_images(cases: Cases, read: Mapping[int, Look], doubts: dict[str, list[str]]) -> None:
    twins: dict[bytes, list[int]] = defaultdict(list)
    sides = _usual_sides(list(read.values()))
    for i, one in read.items():
        name, usual = _name(cases.items[i], cases.root), sides[len(one.shape)]
        if one.low == one.high:
            doubts["constant images"].append(name)
        else:
            twins[one.digest].append(i)
        if max((one.shape / usual).max(), (usual / one.shape).max()) > _OUTLIER:
            doubts["images of an unusual size"].append(f"{name} ({_sides(one.shape)})")
        if one.doubt:
            doubts["volumes of doubtful spacing"].append(f"{name}: {one.doubt}")
    doubts_of_twins = [_twins(cases, group) for group in twins.values() if len(group) > 1]
    if doubts_of_twins:
        doubts["groups of identical images"] += doubts_of_twins


def _usual_sides(read: Sequence[Look]) -> dict[int, Array]:
    """The median of the sides, by the number of dimensions."""
    shapes: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for one in read:
        shapes[len(one.shape)].append(one.shape)
    return {dimensions: np.median(found, axis=0) for dimensions, found in shapes.items()}


def _twins(cases: Cases, group: Sequence[int]) -> str:
    items = [cases.items[i] for i in group]
    differ = [key for key in ("patient", "label", "split") if len({str(item.get(key)) for item in items}) > 1]
    note = f" (different {' and '.join(differ)})" if differ and cases.task != "segmentation" else ""
    return " = ".join(_name(item, cases.root) for item in items[:3]) + note


def _present(cases: Cases, values: Mapping[int, set[int]], doubts: dict[str, list[str]]) -> list[set[int]]:
    """The classes of each item."""
    if cases.task != "segmentation":
        present = [set(present_classes(item["label"])) for item in cases.items]
    else:
        present = _structures(cases, values, doubts)
    empty = [name for k, name in enumerate(cases.classes) if not any(k in found for found in present)]
    if empty:
        doubts["classes without images"] += empty
    return present


def _structures(cases: Cases, values: Mapping[int, set[int]], doubts: dict[str, list[str]]) -> list[set[int]]:
    present = []
    single = len(cases.classes) == 1 and len({value for found in values.values() for value in found}) == 1
    for i, item in enumerate(cases.items):
        found = values.get(i, set())
        present.append({0} if single and found else _among(cases.label_values, found))
        unnamed = [] if single else sorted(found - set(cases.label_values))
        if unnamed:
            shown = ", ".join(map(str, unnamed[:_SHOWN]))
            doubts["masks with values without a name"].append(f"{_name(item, cases.root)} ({shown})")
        if i in values and not found:
            doubts["empty masks"].append(_name(item, cases.root))
    return present


def _among(values: Sequence[int], found: set[int]) -> set[int]:
    return {k for k, value in enumerate(values) if value in found}


def _leakage(cases: Cases, parts: Sequence[str | None], read: Mapping[int, Look]) -> dict[str, Any] | None:
    named = [i for i, part in enumerate(parts) if part and i in read]
    where = [str(parts[i]) for i in named]
    if len(set(where)) < 2:
        return None
    items = [{**cases.items[i], "image": _first(cases.items[i])} for i in named]
    hashes = {item["image"]: read[i].hash for item, i in zip(items, named, strict=True)}
    if len({(item["image"], part) for item, part in zip(items, where, strict=True)}) > len(hashes):
        return _shared(items, where, [read[i].digest for i in named])
    return asdict(audit(items, where, hashes))


def _shared(items: Sequence[Mapping[str, Any]], where: Sequence[str], digests: Sequence[bytes]) -> dict[str, Any]:
    """What parts share that have one file: images have no paths then, by which the audit tells them."""
    patients, copies = defaultdict(set), defaultdict(set)
    for item, part, digest in zip(items, where, digests, strict=True):
        patients[item["patient"]].add(part)
        copies[digest].add(part)
    shared = sorted(patient for patient, found in patients.items() if len(found) > 1)
    count = sum(len(found) > 1 for found in copies.values())
    verdict = f"{len(shared) or 'no'} patients and {count or 'no'} identical images are shared by the parts."
    return {"shared_patients": shared, "verdict": verdict}


def _groups(cases: Cases, names: Sequence[str | None]) -> dict[str, dict[str, int]] | None:
    found = dict.fromkeys(name for name in names if name)
    return {name: _counts(cases, [one == name for one in names]) for name in found} or None


def _counts(cases: Cases, chosen: Sequence[bool]) -> dict[str, int]:
    patients = [item["patient"] for item, take in zip(cases.items, chosen, strict=True) if take]
    return {"images": len(patients), "patients": len(set(patients))}


def _frequent(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _name(item: Mapping[str, Any], root: Path) -> str:
    return _first(item).removeprefix(f"{root}/")


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _first(item: Mapping[str, Any]) -> str:
    return item["image"] if isinstance(item["image"], str) else item["image"][0]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[k]) for row in texts) for k in range(len(head))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in texts
    ]
