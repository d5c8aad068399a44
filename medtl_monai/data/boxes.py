"""Boxes around lesions: read from tables, and drawn as maps."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.box_utils import convert_box_mode
from monai.transforms import MapTransform
from torch import Tensor

from ..utils import UserError
from .cases import Cases

__all__ = [
    "BOX_COLUMNS",
    "MarkLesiond",
    "check_inside",
    "draw_boxes",
    "gather_boxes",
    "marked",
    "read_box",
    "with_boxes",
    "without_boxes",
]

CORNER = ("x", "y", "width", "height")
BOX_COLUMNS = {CORNER: "xywh", ("box_xc", "box_yc", "box_w", "box_h"): "ccwh"}
"""Columns that are taken for boxes, and MONAI's name of their order: the top left corner first, or the centre."""

_MODES = ("xywh", "ccwh", "xyxy")
_GATHERED = "box rows"


def read_box(
    item: Mapping[str, Any], columns: Sequence[str] = CORNER, mode: str = "xywh", least: float = 0.0
) -> list[float]:
    """The box that four columns of an item's row tell: x and y of the top left, width and height; nothing if empty.

    Args:
        item: with the columns' text.
        columns: their names.
        mode: their order, in MONAI's words: ``xywh``, ``ccwh`` (the centre first) or ``xyxy``.
        least: that width and height must be, if not above 0.

    Raises:
        UserError: there are fewer numbers, or they make no box.
    """
    texts = [item.get(name, "") for name in columns]
    if not any(texts):
        return []
    try:
        numbers = torch.tensor([[float(text) for text in texts]], dtype=torch.float64)
        box = convert_box_mode(numbers, mode, "xywh")[0].tolist()
    except (ValueError, AssertionError):  # no number; the right before the left edge
        box = [math.nan] * 4
    if not (all(map(math.isfinite, box)) and min(box[2:]) > 0 and min(box[2:]) >= least):
        named = ", ".join(f"{name} {text!r}" for name, text in zip(columns, texts, strict=True))
        raise UserError(
            f"the box of {item['image']} is none ({named}): give four numbers{' in pixels' * (least >= 1)}, or none."
        )
    return box


def gather_boxes(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows with these columns, where there are any, in one entry: all rows' of the same image, each once."""
    if not rows or not set(columns) & set(rows[0]):
        return list(rows)
    found: dict[str, list[dict[str, str]]] = {row["image"]: [] for row in rows}
    for row in rows:
        text = {name: row[name] for name in columns if name in row}
        if text not in found[row["image"]]:
            found[row["image"]].append(text)
    return [{**_without(row, columns), _GATHERED: found[row["image"]]} for row in rows]


def with_boxes(cases: Cases, columns: str | Sequence[str], mode: str) -> Cases:
    """The cases with ``box``, a list of :func:`read_box`, in place of what :func:`gather_boxes` made of the columns.

    Args:
        cases: of a table; those of a layout, or a datalist, that has boxes of its own stay as they are.
        columns: names, or ``auto``: the first of :data:`BOX_COLUMNS` that are there, if any.
        mode: of the columns named; those of :data:`BOX_COLUMNS` bring their own.

    Raises:
        UserError: another mode, not four columns, or a column or a row's number is missing.
    """
    named = columns != "auto"
    _check_columns(columns, mode)
    if "box" in cases.items[0]:
        return cases
    known: Mapping[Any, str] = {tuple(columns): mode} if named else BOX_COLUMNS
    first = cases.items[0].get(_GATHERED, [{}])[0]
    there = next((names for names in known if set(names) <= set(first)), None)
    if there is not None:
        return replace(cases, items=[_with_box(item, there, known[there]) for item in cases.items])
    if named:
        raise UserError(f"box_columns: the table does not have the four columns {', '.join(columns)}: check the names.")
    return replace(cases, items=[_without(item, (_GATHERED,)) for item in cases.items])


def _check_columns(columns: str | Sequence[str], mode: str) -> None:
    named = columns != "auto"
    four = not isinstance(columns, str) and len(columns) == 4
    if (named and not four) or mode not in (_MODES if named else _MODES[:1]):
        raise UserError(
            f"box_columns takes auto, null or a list of four columns, and with such a list box_mode "
            f"{', '.join(_MODES)}: got {columns!r} and {mode!r}."
        )


def _with_box(item: Mapping[str, Any], columns: Sequence[str], mode: str) -> dict[str, Any]:
    bare = _without(item, (_GATHERED,))
    boxes = [read_box({**bare, **row}, columns, mode) for row in item[_GATHERED]]
    return {**bare, "box": [box for box in boxes if box]}


def _without(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}


def without_boxes(cases: Cases) -> Cases:
    """The cases without ``box``."""
    return replace(cases, items=[{key: value for key, value in item.items() if key != "box"} for item in cases.items])


class MarkLesiond(MapTransform):
    """A map of where lesions are, ``lesion`` ``(1, H, W)``: 1 within an item's ``box``, which is taken out, else 0.

    There may be several boxes, or none: x, y, width and height in pixels, or as fractions of the image, which are at
    most 1. Those of which cropping left nothing are left out; items without the entry stay as they are.

    Args:
        keys: of the upright image ``(C, H, W)``; follows :class:`medtl_monai.data.ToSliced`.
        draw: whether there is to be a map; without, the boxes are only taken out.

    Raises:
        UserError: a box lies outside its image.
    """

    def __init__(self, keys: Sequence[Hashable] | Hashable, draw: bool = True) -> None:
        super().__init__(keys)
        self.draw = draw

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, with the map."""
        result = dict(data)
        box = result.pop("box", None)
        if box is None or not self.draw:
            return result
        image, box = result[self.keys[0]], marked(box)
        box = box[(box[:, 2:] > 0).all(1)]
        if box.numel() and box.max() <= 1:
            box = box * torch.tensor([image.shape[-1], image.shape[-2]] * 2)
        check_inside(box, image)
        return {**result, "lesion": draw_boxes(box, image.shape[-2:])}


def draw_boxes(box: Tensor, shape: Sequence[int], value: int = 1) -> Tensor:
    """``(1, H, W)``, ``value`` in every pixel that a box ``(n, 4)``, in pixels, touches, and 0 elsewhere."""
    where = torch.zeros(1, *shape, dtype=torch.uint8)
    low, high = box[:, :2].floor().int().clamp_min(0), (box[:, :2] + box[:, 2:]).ceil().int()
    for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True):
        where[:, top:bottom, left:right] = value
    return where


def check_inside(box: Tensor, image: Tensor) -> None:
    """Raise if one of the boxes ``(n, 4)``, in pixels, lies outside the ``image`` ``(C, H, W)``."""
    size = torch.tensor([image.shape[-1], image.shape[-2]])
    outside = ((box[:, :2] >= size) | (box[:, :2] + box[:, 2:] <= 0)).any(1)
    if bool(outside.any()):
        meta = image.meta if isinstance(image, MetaTensor) else {}
        raise UserError(
            f"the box {box[outside][0].tolist()} (x, y, width, height) lies outside its image, which is {size[0]} x "
            f"{size[1]}: correct the row of {meta.get('filename_or_obj', 'this image')}."
        )


def marked(boxes: Any) -> Tensor:
    """Those of ``boxes`` that are numbers, ``(n, 4)``."""
    rows = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return rows[~rows.isnan().any(1)]
