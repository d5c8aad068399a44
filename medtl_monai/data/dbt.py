"""Views of breasts into slices: which slices of a tomosynthesis study train and score a classifier."""

from __future__ import annotations

import csv
import logging
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils import UserError
from .datasets import Cases, load_cases, unlabelled
from .dicom import header, is_dicom, split_frame

__all__ = ["GROUPS", "View", "breast_slices", "load_breasts", "read_bcs_dbt", "repeat_minority", "select_slices"]

GROUPS = {"normal": ["normal"], "tumour": ["benign", "cancer", "malignant"]}
"""Classes, the healthy one first, and the labels that belong to each; others, such as ``actionable``, are left out."""

_STATES = ("Normal", "Actionable", "Benign", "Cancer")
_KEY = ("PatientID", "StudyUID", "View")
_log = logging.getLogger("medtl_monai")


@dataclass(frozen=True)
class View:
    """One tomosynthesis volume.

    Attributes:
        image: path of the DICOM file.
        patient: identifier.
        name: ``lcc``, ``rmlo`` and so on.
        state: ``normal``, ``actionable``, ``benign`` or ``cancer``.
        boxes: slice (from 0), area in pixels and number of slices of the volume, of each annotated lesion.
    """

    image: str
    patient: str
    name: str
    state: str
    boxes: tuple[tuple[int, int, int], ...] = ()

    @property
    def area(self) -> int:
        """Of the largest box, in pixels; 0 without one."""
        return max((area for _, area, _ in self.boxes), default=0)

    @property
    def slice(self) -> int | None:
        """That of the largest box."""
        return next((number for number, area, _ in self.boxes if area == self.area), None)


def load_breasts(
    dataset_dir: str | Path,
    *,
    data_strategy: int | str = 2,
    normal_share: float = 0.15,
    seed: int = 0,
    groups: Mapping[str, Sequence[str]] | None = None,
    classes: Sequence[str] | None = None,
    **table: Any,
) -> Cases:
    """Find the labelled breast images of a folder: tomosynthesis in the layout of BCS-DBT, or mammograms.

    Args:
        dataset_dir: a folder with the tables of BCS-DBT (labels, boxes, file paths) and the DICOM files; else any
            layout of :func:`medtl_monai.data.load_cases`.
        data_strategy: which slices, see :func:`select_slices`.
        normal_share: see there.
        seed: see there.
        groups: classes and their labels, in any case, the healthy class first; default: :data:`GROUPS`.
        classes: those of a trained model; they must be the names in ``groups``.
        table: further arguments of :func:`medtl_monai.data.load_cases`.

    Raises:
        UserError: the folder or its tables do not fit, or no image is left.
    """
    groups = dict(groups or GROUPS)
    if classes is not None and list(classes) != list(groups):
        raise UserError(f"the model tells {', '.join(classes)} apart, and groups names {', '.join(groups)}: adapt it.")
    root = Path(dataset_dir).expanduser().resolve()
    if root.is_dir() and list(root.glob("*labels*.csv")):
        views = read_bcs_dbt(root)
        items = select_slices(views, groups, data_strategy=data_strategy, normal_share=normal_share, seed=seed)
        found, layout = len({item["patient"] for item in items}), "bcs_dbt"
        _log.info(f"{len(items)} slices of {found} of {len({v.patient for v in views})} patients chosen")
    else:
        cases = load_cases(dataset_dir, **table)
        if cases.task != "classification":
            raise UserError("the labels name several findings an image: expected one, such as normal or cancer.")
        labels = [_group(cases.classes[item["label"]], groups) for item in cases.items]
        items = [{**item, "label": label} for item, label in zip(cases.items, labels, strict=True) if label is not None]
        layout = cases.layout
        if not items:
            raise UserError(f"no label of {', '.join(cases.classes)} is in groups ({dict(groups)}): adapt groups.")
    return Cases(items, list(groups), root, layout)


def read_bcs_dbt(folder: str | Path) -> list[View]:
    """The views that the tables of Duke's BCS-DBT set name and whose files are there.

    The tables are ``*labels*.csv``, ``*boxes*.csv`` and ``*file-paths*.csv``, with the columns of the real set; paths
    are ``descriptive_path`` or ``classic_path``, whichever exists, from the folder.

    Raises:
        UserError: a table or a column is missing, a label is not one of the four, or no file is there.
    """
    root = Path(folder)
    boxes = defaultdict(list)
    for row in _rows(root, "boxes", (*_KEY, "Slice", "Width", "Height", "VolumeSlices")):
        box = (int(row["Slice"]), int(row["Width"]) * int(row["Height"]), int(row["VolumeSlices"]))
        boxes[tuple(row[key] for key in _KEY)].append(box)
    files = {
        tuple(row[key] for key in _KEY): [row.get("descriptive_path") or "", row.get("classic_path") or ""]
        for row in _rows(root, "file-paths", _KEY)
    }
    views, missing = [], []
    for row in _rows(root, "labels", (*_KEY, *_STATES)):
        key = tuple(row[name] for name in _KEY)
        states = [name for name in _STATES if row[name].strip() == "1"]
        if len(states) != 1:
            raise UserError(f"view {' '.join(key)} has {states or 'no label'}: expected one of {', '.join(_STATES)}.")
        path = next((root / path for path in files.get(key, ()) if path and (root / path).is_file()), None)
        if path is None:
            missing.append(" ".join(key))
            continue
        views.append(View(str(path.resolve()), key[0], key[2], states[0].lower(), tuple(boxes[key])))
    if not views:
        raise UserError(f"none of the {len(missing)} views of the tables has its file in {root}: check the paths.")
    if missing:
        _log.warning(f"{len(missing)} views of the tables have no file in {root}, such as {missing[0]}: left out.")
    return views


def select_slices(
    views: Sequence[View],
    groups: Mapping[str, Sequence[str]] = GROUPS,
    *,
    data_strategy: int | str = 2,
    normal_share: float = 0.15,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Slices of views as datalist items: by one of the two strategies of the Duke study, or all.

    Strategy 1: of every view with a tumour all slices; of the views of healthy patients a random share of the slices.
    Strategy 2: one slice a patient. With a tumour, the slice of the largest box (the middle one where there is none).
    Healthy patients get the view and the relative depth of a box that is drawn at random, so that neither view nor
    depth tells the classes apart.

    ``all``: every slice of every view, by one rule for all patients, as scores of patients need it.

    A patient is healthy if all his views are. Normal views of other patients are left out (with ``all``: of those who
    have a view of no group), and so are views whose state is in no group.

    Args:
        views: of :func:`read_bcs_dbt`.
        groups: classes and their states, the healthy class first.
        data_strategy: 1, 2 or ``all``.
        normal_share: of the slices of healthy patients, above 0 and at most 1; for strategy 1.
        seed: of the draws; each patient's are his own, whatever other patients there are.

    Returns:
        Items with ``image`` (``file.dcm#slice``), ``label``, ``patient``, ``view`` and ``laterality``.

    Raises:
        UserError: another strategy or share, or no view is left.
    """
    if data_strategy not in (1, 2, "all"):
        raise UserError(f"data_strategy must be 1 (many slices), 2 (one a patient) or all, got {data_strategy!r}.")
    if not 0 < normal_share <= 1:
        raise UserError(f"normal_share must be above 0 and at most 1, got {normal_share!r}.")
    patients: dict[str, list[tuple[View, int | None]]] = defaultdict(list)
    for view in views:
        patients[view.patient].append((view, _group(view.state, groups)))
    boxes = sorted(
        (v.name, at / n) for pairs in patients.values() for v, group in pairs if group for at, _, n in v.boxes
    )
    items = []
    for name, pairs in patients.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        ill = [pair for pair in pairs if pair[1]]
        healthy = all(group == 0 for _, group in pairs)
        chosen: list[tuple[View, int, int]] = []
        if data_strategy == 2 and healthy:
            chosen = [(*_like_a_box([v for v, _ in pairs], boxes, rng), 0)]
        elif data_strategy == 2 and ill:
            view, group = max(ill, key=lambda pair: pair[0].area)
            chosen = [(view, header(view.image).frames // 2 if view.slice is None else view.slice, group)]
        elif healthy or ill:
            used = [pair for pair in pairs if pair[1] is not None] if data_strategy == "all" else ill or pairs
            share = normal_share if data_strategy == 1 and healthy else 1.0
            chosen = [(v, number, group) for v, group in used for number in _some_slices(v, share, rng)]
        items += [
            {"image": f"{v.image}#{number}", "label": label, "patient": name, "view": v.name,
             "laterality": v.name[0].upper()}
            for v, number, label in chosen
        ]  # fmt: skip
    if not items:
        raise UserError(f"no view is in groups ({dict(groups)}): adapt groups to the labels.")
    return items


def breast_slices(path: str | Path) -> list[dict[str, str]]:
    """Images for inference: those of :func:`medtl_monai.data.unlabelled`, files of several frames slice by slice."""
    items = []
    for item in unlabelled(path):
        image = item["image"]
        whole = is_dicom(image) and split_frame(image)[1] is None
        frames = header(image).frames if whole else 1
        items += [item] if frames == 1 else [{"image": f"{image}#{number}"} for number in range(frames)]
    return items


def repeat_minority(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
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


def _some_slices(view: View, share: float, rng: np.random.Generator) -> list[int]:
    frames = header(view.image).frames
    return sorted(rng.choice(frames, max(1, round(share * frames)), replace=False).tolist())


def _like_a_box(
    views: Sequence[View], boxes: Sequence[tuple[str, float]], rng: np.random.Generator
) -> tuple[View, int]:
    name, depth = boxes[int(rng.integers(len(boxes)))] if boxes else ("", 0.5)
    view = next((view for view in views if view.name == name), views[int(rng.integers(len(views)))])
    return view, int(depth * header(view.image).frames)


def _group(label: str, groups: Mapping[str, Sequence[str]]) -> int | None:
    """Index of the class that a label belongs to."""
    for index, (name, labels) in enumerate(groups.items()):
        if label.lower() in {name.lower(), *(str(one).lower() for one in labels)}:
            return index
    return None


def _rows(root: Path, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    tables = sorted(root.glob(f"*{name}*.csv"))
    if not tables:
        raise UserError(f"there is no *{name}*.csv in {root}: expected the labels, boxes and file-paths of BCS-DBT.")
    rows = []
    for table in tables:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lacking = [column for column in columns if column not in (reader.fieldnames or ())]
            if lacking:
                raise UserError(f"{table.name} has no column {', '.join(lacking)}: expected those of BCS-DBT.")
            rows += list(reader)
    return rows
