"""Views of breasts into slices: which slices of a tomosynthesis study train and score a classifier."""

from __future__ import annotations

import logging
import math
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..utils import UserError
from .boxes import CORNER, read_box
from .breast import pair_sides
from .cases import Cases
from .datasets import load_cases, unlabelled
from .find import absolute
from .layouts.common import has_columns, read_table
from .read.dicom_header import header, is_dicom, split_frame

__all__ = ["GROUPS", "breast_slices", "load_breasts", "repeat_minority", "select_slices"]

_log = logging.getLogger("medtl_monai")

GROUPS = {"normal": ["normal"], "tumour": ["benign", "cancer", "malignant"]}
"""Classes, the healthy one first, and the labels that belong to each; others, such as ``actionable``, are left out."""

_KEYS = ("image", "other", "label", "patient", "view", "laterality", "split", "domain", "box", "box_side")

Item = Mapping[str, Any]
AnyItem = TypeVar("AnyItem", bound=Item)


def load_breasts(
    dataset_dir: str | Path,
    *,
    data_strategy: int | str = 2,
    normal_share: float = 0.15,
    seed: int = 0,
    groups: Mapping[str, Sequence[str]] | None = None,
    classes: Sequence[str] | None = None,
    compare_sides: bool = False,
    boxes: bool = False,
    **table: Any,
) -> Cases:
    """Find the labelled breast images of a folder: slices of tomosynthesis in the layout of BCS-DBT, or mammograms.

    Args:
        dataset_dir: in any layout of :func:`medtl_monai.data.load_cases`.
        data_strategy: which slices of tomosynthesis, see :func:`select_slices`.
        normal_share: see there.
        seed: see there.
        groups: classes and their labels, in any case, the healthy class first; default: :data:`GROUPS`.
        classes: those of a trained model; they must be the names in ``groups``.
        compare_sides: give each item its ``other`` side, see :func:`medtl_monai.data.pair_sides`.
        boxes: give each item ``box``, those of its lesions, the largest first (of slices: of the nearest ones), as
            :class:`medtl_monai.data.FaceBreastd` takes it: from the layout, or from the columns x, y, width and height,
            in pixels from the top left, of the table.
        table: further arguments of :func:`medtl_monai.data.load_cases`.

    Raises:
        UserError: the folder or its tables do not fit, no image is left, or none has another side to compare with, or a
            box.
    """
    groups = dict(groups or GROUPS)
    if classes is not None and list(classes) != list(groups):
        raise UserError(f"the model tells {', '.join(classes)} apart, and groups names {', '.join(groups)}: adapt it.")
    cases = load_cases(dataset_dir, task="classification", keep=CORNER if boxes else (), **table)
    of_duke = cases.layout == "bcs_dbt"
    items = _grouped(cases, groups)
    if of_duke:
        items = select_slices(items, data_strategy=data_strategy, normal_share=normal_share, seed=seed)
    if compare_sides:
        items = _paired(items, cases.items)
    items = [item for item in items if item["label"] is not None]
    if not items:
        raise UserError(f"no label of {', '.join(cases.classes)} is in groups ({groups}): adapt groups.")
    if boxes:
        items = _with_boxes(items, "box_side" if of_duke else None)
    return replace(cases, items=[_only(item, _KEYS) for item in items], classes=list(groups))


def _grouped(cases: Cases, groups: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The items with the class of their label, ``None`` for none."""
    places = [_group(name, groups) for name in cases.classes]
    return [{**item, "label": places[item["label"]]} for item in cases.items]


def _only(item: Item, keys: Sequence[str]) -> dict[str, Any]:
    return {key: item[key] for key in keys if key in item}


def _paired(items: Sequence[Item], views: Sequence[Item]) -> list[dict[str, Any]]:
    items = pair_sides(items, views)
    if not any("other" in item for item in items):
        raise UserError(
            "compare_sides needs images of both breasts: no image has a patient, a laterality (L or R) and another "
            "image of the same view and the other side; give compare_sides false."
        )
    return items


def select_slices(
    views: Sequence[Item], *, data_strategy: int | str = 2, normal_share: float = 0.15, seed: int = 0
) -> list[dict[str, Any]]:
    """Slices of views as datalist items: by one of the two strategies of the Duke study, or all.

    Strategy 1: of every view with a tumour all slices; of the views of healthy patients a random share of the slices.
    Strategy 2: one slice a patient. With a tumour, the slice of the largest box (the middle one where there is none).
    Healthy patients get the view and the relative depth of a box that is drawn at random, so that neither view nor
    depth tells the classes apart.
    ``all``: every slice of every view, by one rule for all patients, as scores of patients need it.

    A patient is healthy if all his views are. Normal views of other patients are left out (with ``all``: of those who
    have no tumour), and so are views of no class.

    Args:
        views: with ``image`` (the DICOM file), ``patient``, ``view``, ``label`` (0 healthy, above with a tumour,
            ``None`` of no class) and ``boxes`` (each with ``slice``, ``width`` and ``height``).
        data_strategy: 1, 2 or ``all``.
        normal_share: of the slices of healthy patients, above 0 and at most 1; for strategy 1.
        seed: of the draws; each patient's are his own, whatever other patients there are.

    Returns:
        The views' items with ``file.dcm#slice`` as their image.

    Raises:
        UserError: another strategy or share.
    """
    if data_strategy not in (1, 2, "all"):
        raise UserError(f"data_strategy must be 1 (many slices), 2 (one a patient) or all, got {data_strategy!r}.")
    if not 0 < normal_share <= 1:
        raise UserError(f"normal_share must be above 0 and at most 1, got {normal_share!r}.")
    patients: dict[str, list[Item]] = defaultdict(list)
    for view in views:
        patients[view["patient"]].append(view)
    boxes = _depths(views) if data_strategy == 2 else []
    chosen: list[tuple[Item, int]] = []
    for name, own in patients.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if data_strategy == 2:
            chosen += _one_slice(own, boxes, rng)
        else:
            chosen += _many_slices(own, data_strategy == "all", normal_share, rng)
    return [{**view, "image": f"{view['image']}#{number}"} for view, number in chosen]


def _depths(views: Sequence[Item]) -> list[tuple[str, float]]:
    """The view and the relative depth of every box of an ill patient."""
    found = [(view, box) for view in views if view["label"] for box in view["boxes"]]
    return sorted((view["view"], box["slice"] / header(view["image"]).frames) for view, box in found)


def _one_slice(
    own: Sequence[Item], boxes: Sequence[tuple[str, float]], rng: np.random.Generator
) -> list[tuple[Item, int]]:
    """Strategy 2, of one patient."""
    if all(view["label"] == 0 for view in own):
        return [_like_a_box(own, boxes, rng)]
    ill = [view for view in own if view["label"]]
    return [_largest_box(ill)] if ill else []


def _many_slices(
    own: Sequence[Item], every: bool, normal_share: float, rng: np.random.Generator
) -> list[tuple[Item, int]]:
    """Strategy 1, or ``every`` slice, of one patient."""
    ill = [view for view in own if view["label"]]
    healthy = all(view["label"] == 0 for view in own)
    if not healthy and not ill:
        return []
    used = ill or own
    if every:
        used = [view for view in own if view["label"] is not None]
    share = normal_share if healthy and not every else 1.0
    return [(view, number) for view in used for number in _some_slices(view, share, rng)]


def breast_slices(path: str | Path, *, compare_sides: bool = False) -> list[dict[str, Any]]:
    """Images for inference: those of :func:`medtl_monai.data.unlabelled`, files of several frames slice by slice.

    With ``compare_sides`` images get their ``other`` side: DICOM files by what their headers say of patient, study and
    view, others by a table ``index.csv`` in the folder with the columns image, patient and laterality, as in training.

    Raises:
        UserError: no image has another side to compare with.
    """
    told = _sides(Path(path)) if compare_sides else {}
    items: list[dict[str, Any]] = []
    views = []
    for item in unlabelled(path):
        view, frames = _view({**item, **told.get(item["image"], {})}, compare_sides)
        items += [view] if frames is None else [view | {"image": f"{view['image']}#{k}"} for k in range(frames)]
        views.append(view)
    return _with_others(items, views) if compare_sides else items


def _with_others(items: Sequence[Item], views: Sequence[Item]) -> list[dict[str, Any]]:
    items = pair_sides(items, views)
    alone = sum("other" not in item for item in items)
    if alone == len(items):
        raise UserError(
            "the model compares both breasts, and no image has another side: give DICOM files, or a table index.csv "
            "with the columns image, patient and laterality (L or R)."
        )
    if alone:
        _log.warning(
            f"{alone} of {len(items)} images have no other side to be compared with: compared with themselves, they "
            "stay undecided"
        )
    return [_only(item, ("image", "other")) for item in items]


def _view(item: dict[str, Any], compare_sides: bool) -> tuple[dict[str, Any], int | None]:
    """An image with what its header tells, and its number of frames; ``None`` where it is one by itself."""
    image = item["image"]
    if not is_dicom(image) or split_frame(image)[1] is not None:
        return item, None
    try:
        head = header(image)
    except UserError:  # a damaged file, which whoever reads its pixels names
        return item, None
    if compare_sides:
        item = item | {key: getattr(head, key) for key in ("patient", "study", "view", "laterality")}
    return item, head.frames if head.frames > 1 else None


def _sides(folder: Path) -> dict[str, dict[str, str]]:
    """What a table in the folder says of its images' patients and sides, by path."""
    table, columns = folder / "index.csv", ("image", "patient", "laterality")
    rows = read_table(table, columns) if has_columns(table, columns) else []
    keys = ("patient", "laterality", "view", "study")
    return {absolute(folder / row["image"]): {k: row[k] for k in keys if row.get(k)} for row in rows}


def repeat_minority(items: Sequence[AnyItem]) -> list[AnyItem]:
    """Items with those of smaller classes repeated, in turn, until all classes are as large as the largest.

    With random augmentation, each copy is another picture. For training items only: after the split, so that no copy
    of an image stands in two parts.

    Example:
        >>> [item["label"] for item in repeat_minority([{"label": 0}, {"label": 0}, {"label": 1}])]
        [0, 0, 1, 1]
    """
    classes = defaultdict(list)
    for item in items:
        classes[item["label"]].append(item)
    most = max((len(group) for group in classes.values()), default=0)
    return [*items, *(group[i % len(group)] for group in classes.values() for i in range(len(group), most))]


def _some_slices(view: Item, share: float, rng: np.random.Generator) -> list[int]:
    frames = _frames(view["image"]) or 1
    return sorted(rng.choice(frames, max(1, round(share * frames)), replace=False).tolist())


def _frames(image: str) -> int:
    """How many a file has; 0 of one without a header, which is named where all images are read."""
    try:
        return header(image).frames
    except UserError:
        return 0


def _with_boxes(items: Sequence[Item], side: str | None) -> list[dict[str, Any]]:
    """Each item with ``box``, and its laterality under the name ``side``.

    The boxes of the nearest slice that has any, the largest first; as many for each item, the others not numbers.
    """
    found = [[box for away, _, box in boxes if away == boxes[0][0]] for boxes in map(sorted, map(_boxes, items))]
    most = max(map(len, found), default=0)
    if not most:
        raise UserError(
            "crop_size, lesion_map and localization need to know where lesions are: no image has a box; give the table "
            f"the columns {', '.join(CORNER)} (in pixels from the top left, empty where there is none), or BCS-DBT its "
            "table of boxes, or leave them out."
        )
    sides = [{side: item["laterality"]} if side else {} for item in items]
    filled = [boxes + [[math.nan] * 4] * (most - len(boxes)) for boxes in found]
    return [{**item, "box": boxes, **drawn} for item, boxes, drawn in zip(items, filled, sides, strict=True)]


def _boxes(item: Item) -> list[tuple[float, float, list[float]]]:
    """Every lesion that the layout or the table names: slices between, negative area, and x, y, width and height."""
    if "boxes" in item:
        number = split_frame(item["image"])[1] or 0
        marked = [(abs(box["slice"] - number), [box[name] for name in CORNER]) for box in item["boxes"]]
    elif "lesions" in item:
        circles = [(lesion["x"], lesion["y"], lesion["radius"]) for lesion in item["lesions"]]
        marked = [(0, [x - r, y - r, 2 * r, 2 * r]) for x, y, r in circles]
    else:
        box = read_box(item, least=1)
        marked = [(0, box)] if box else []
    return [(away, -box[2] * box[3], box) for away, box in marked]


def _largest_box(views: Sequence[Item]) -> tuple[Item, int]:
    boxes = [(box["width"] * box["height"], -i, box["slice"]) for i, view in enumerate(views) for box in view["boxes"]]
    if not boxes:
        return views[0], header(views[0]["image"]).frames // 2
    _, place, number = max(boxes)
    return views[-place], number


def _like_a_box(
    views: Sequence[Item], boxes: Sequence[tuple[str, float]], rng: np.random.Generator
) -> tuple[Item, int]:
    name, depth = boxes[int(rng.integers(len(boxes)))] if boxes else ("", 0.5)
    view = next((view for view in views if view["view"] == name), views[int(rng.integers(len(views)))])
    return view, round(depth * header(view["image"]).frames)


def _group(label: str, groups: Mapping[str, Sequence[str]]) -> int | None:
    """Index of the class that a label belongs to."""
    for index, (name, labels) in enumerate(groups.items()):
        if label.lower() in {name.lower(), *(str(one).lower() for one in labels)}:
            return index
    return None
