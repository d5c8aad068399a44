"""``data check``: what a folder holds, whether a training would take it, and the command to run next."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.data import list_data_collate

from ..data import Cases, SliceDataset, check_cases, find_images, load_breasts, load_cases, render_check
from ..data.find import absolute, unused
from ..data.layouts import recognised
from ..model import Model
from ..utils import UserError
from .cases import Parts, read_parts
from .segmentation import read_stacks, structure_values

__all__ = ["bundle_for", "check_folder", "first_batch", "render_folder", "why_refused"]

_BREASTS = {"bcs_dbt", "mini_mias"}
_CHESTS = {"chestxray14", "chexpert", "kermany"}
_IMAGES = {"cardiac_unet_segmentation": "stacks", "breast_dbt_classification": "breasts"}
_KEYS: dict[str, Any] = {
    "layout": "auto",
    "layout_options": {},
    "table": "index.csv",
    "image_column": "image",
    "label_column": "label",
    "patient_column": "auto",
}  # of the bundles, and their defaults
_OWN: dict[str, Any] = {"split_column": "split", "domain_column": "domain", "classes": None}  # of the check alone
_USUAL = _KEYS | _OWN
_BATCH = 8


def check_folder(folder: str | Path, datalist: Path | None = None, **settings: Any) -> tuple[dict[str, Any], Cases]:
    """The report of a folder with labels or without, and its cases.

    Besides what :func:`medtl_monai.data.check_cases` says: ``refused``, the sentence with which a training would stop,
    or ``None``, and ``next``, the command to run.

    Args:
        folder: of images.
        datalist: where the cases are written, for a training to take.
        settings: of :func:`medtl_monai.data.load_cases`.

    Raises:
        UserError: nothing can be said of the folder.
    """
    with _silent():
        cases, refused, settings = _cases(folder, settings)
        report = check_cases(cases)
        if refused is None:
            refused = why_refused(cases, settings)
    command = _inference(cases, report) if cases.task == "none" else _training(cases, settings, datalist)
    return {**report, "refused": refused, "next": command}, cases


def render_folder(report: Mapping[str, Any]) -> str:
    """The report of :func:`check_folder` as text; it ends with the command to run."""
    lines = [render_check(report)]
    if report["refused"]:
        lines.append(f"a training would stop: {report['refused']}")
    lead = "next" if not report["refused"] else "next, once that is put right or as it is meant"
    return "\n".join([*lines, f"{lead}:", f"  {report['next']}"])


def why_refused(cases: Cases, settings: Mapping[str, Any] | None = None) -> str | None:
    """The sentence with which a training of the cases would stop before its second step; ``None``: it would not."""
    try:
        first_batch(cases, settings)
    except UserError as error:
        return str(error)
    except Exception as error:  # what a training would end in, too
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


def first_batch(cases: Cases, settings: Mapping[str, Any] | None = None) -> Any:
    """The first batch of a training: the cases read, split, audited and prepared as the bundles do by default.

    Args:
        cases: from :func:`medtl_monai.data.load_cases`.
        settings: those they were loaded with; breasts are loaded anew, as groups of labels are their classes.

    Raises:
        UserError: the training would stop with the same.
    """
    images = _IMAGES.get(bundle_for(cases), "slices")
    model: dict[str, Any] = {"task": cases.task, "backbone": "efficientnet_lite0", "mean": [0.5], "std": [0.5]}
    if images == "stacks":
        structures = structure_values(cases)
        parts = read_stacks(cases, structures)
        model |= {"classes": ["background", *structures], "structures": structures}
    else:
        if images == "breasts":
            cases = _breasts(cases, settings or {})
        parts = read_parts(cases)
        model["classes"] = cases.classes
    return _prepared(parts, Model(images=images, image_size=64, **model))


def _breasts(cases: Cases, settings: Mapping[str, Any]) -> Cases:
    kept = {key: value for key, value in settings.items() if key not in ("task", "classes", "box_columns")}
    return load_breasts(cases.root, **{**kept, "layout": cases.layout})


def _prepared(parts: Parts, model: Model) -> Any:
    items, steps = parts.of("train")[:_BATCH], model.preparation("train")
    if model.images == "stacks":
        slices = SliceDataset(items[:2], steps)
        return list_data_collate([slices[i] for i in range(min(_BATCH, len(slices)))])
    return list_data_collate([steps(item) for item in items])


def bundle_for(cases: Cases) -> str:
    """The bundle that such cases are trained with."""
    if cases.task == "segmentation":
        return "cardiac_unet_segmentation"
    layouts = {cases.layout, *recognised(cases.root)}  # of a table beside a public set, too
    if cases.task == "classification" and layouts & _BREASTS:
        return "breast_dbt_classification"
    chest = layouts & _CHESTS or cases.task == "multilabel"
    return "chest_xray_classification" if chest else "brain_mri_classification"


def _cases(folder: str | Path, settings: dict[str, Any]) -> tuple[Cases, str | None, dict[str, Any]]:
    """The cases, the sentence about what is missing, and the settings that they were loaded with.

    Where only labels or patients are missing there is something to say of the images nevertheless.
    """
    try:
        return load_cases(folder, **settings), None, settings
    except UserError as error:
        if error.lacks == "patients":
            settings = {**settings, "patient_column": None}
        elif error.lacks != "labels":
            raise
        try:
            cases = load_cases(folder, **settings) if error.lacks == "patients" else _without_labels(folder)
        except UserError:  # something else is wrong, too
            raise error from None
        return cases, str(error), settings


def _without_labels(folder: str | Path) -> Cases:
    found = find_images(folder)
    items = [{"image": str(file), "label": "", "patient": str(file)} for file in found.images]
    left = unused(found, {item["image"] for item in items})
    why = "neither folders nor a table say classes"
    return Cases(items, [], Path(absolute(folder)), "none", "none", why=why, unused=left)


@contextmanager
def _silent() -> Iterator[None]:
    """Without the log, whose lines are in the report."""
    log = logging.getLogger("medtl_monai")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _inference(cases: Cases, report: Mapping[str, Any]) -> str:
    """The command for images without labels."""
    volumes = any(size.count(" x ") > 1 for size in report["sizes"])
    bundle = "cardiac_unet_segmentation" if volumes else "brain_mri_classification"
    return _command(bundle, "inference", {"dataset_dir": str(cases.root), "checkpoint": "RUN/checkpoints/best.pt"})


def _training(cases: Cases, settings: Mapping[str, Any], datalist: Path | None) -> str:
    """The command of a training; where it has no keys for what was given, that which writes a datalist for it."""
    given = {key: settings[key] for key in _USUAL if settings.get(key, _USUAL[key]) != _USUAL[key]}
    if datalist is not None:
        where = Path(absolute(datalist))
        return _command(bundle_for(cases), "train", {"dataset_dir": str(where.parent), "table": where.name})
    if not any(key in given for key in _OWN):
        return _command(bundle_for(cases), "train", {"dataset_dir": str(cases.root), **given})
    words = ["python", "-m", "medtl_monai", "data", "check", str(cases.root)]
    for key, value in {**given, "datalist": str(cases.root / "cases.json")}.items():
        words += [f"--{key}", "null" if value is None else ",".join(value) if isinstance(value, list) else str(value)]
    return shlex.join(words)


def _command(bundle: str, workflow: str, keys: Mapping[str, Any]) -> str:
    here = Path(__file__).resolve().parents[2] / "bundles"
    folder = here if here.is_dir() else Path("bundles")
    words = ["python", "-m", "monai.bundle", "run", "--config_file", f"{folder}/{bundle}/configs/{workflow}.json"]
    for key, value in keys.items():
        words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)
