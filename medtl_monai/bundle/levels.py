"""Scores of views and patients from those of their slices."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import header, is_dicom, split_frame
from ..metrics import part_metrics, render_metrics
from ..model import Model
from ..predictions import Predictions, read_predictions, write_predictions
from ..utils import first_process, write_json

__all__ = ["score_patients", "suspicion"]

_log = logging.getLogger("medtl_monai")


def suspicion(probabilities: NDArray[np.float64], share: float = 0.1) -> NDArray[np.float64]:
    """Class probabilities of a whole from those of its parts ``(N, C)``: the mean over the most suspicious ones.

    Suspicious is what has a low probability of class 0, the healthy one. ``share`` of the parts, at least one, are
    averaged; 0 takes the most suspicious alone. A share, and not a number, so that wholes with many parts are not more
    suspicious for that.

    Example:
        >>> suspicion(np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]), share=0.5).round(3).tolist()
        [0.3, 0.7]
    """
    order = probabilities[:, 0].argsort(kind="stable")
    return probabilities[order[: max(1, round(share * len(order)))]].mean(0)


def score_patients(output_dir: str, model: Model, root: str, *, seed: int = 0) -> None:
    """Write ``views.csv`` and ``patients.csv`` beside ``predictions.csv``, and their metrics into ``metrics.json``.

    A view (a file) has the mean probabilities of the most suspicious share of its slices (:func:`suspicion`), a
    patient those of the most suspicious view; the label is the highest among the slices. The metrics stand under
    ``levels``, by part.

    Args:
        output_dir: of a finished run.
        model: which says what share of a view's slices counts.
        root: folder of the images.
        seed: of the bootstrap.
    """
    if not first_process():
        return
    folder = Path(output_dir)
    slices = read_predictions(folder / "predictions.csv")
    files = [split_frame(image)[0] for image in slices.images]
    patients = [name or _patient(file, root) for name, file in zip(slices.patients, files, strict=True)]
    views = _merge(slices._replace(images=files, patients=patients), files, model, model.slice_share)
    wholes = _merge(views, views.patients, model, 0.0)
    wholes = wholes._replace(images=wholes.patients)
    for name, found in (("views", views), ("patients", wholes)):
        write_predictions(folder / f"{name}.csv", *found)
    if (folder / "metrics.json").is_file():
        _add_metrics(folder / "metrics.json", _metrics(views, wholes, seed))
    _log.info(f"scored {len(views.images)} views and {len(wholes.images)} patients: {folder / 'patients.csv'}")


def _add_metrics(path: Path, levels: dict[str, dict[str, dict]]) -> None:
    """Into the file of the slices' metrics, and to the screen."""
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "levels": levels})
    scored = [(part, both) for part, both in levels.items() if part != "train"]
    if scored:
        table = {f"{part}, {level}": found for part, both in scored for level, found in both.items()}
        print(f"\n{render_metrics(table)}\n")


def _merge(parts: Predictions, keys: Sequence[str], model: Model, share: float) -> Predictions:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        groups[key].append(index)
    first = [group[0] for group in groups.values()]
    probabilities = np.stack([suspicion(parts.probabilities[group], share) for group in groups.values()])
    return Predictions(
        [parts.images[i] for i in first],
        [parts.patients[i] for i in first],
        [parts.parts[i] for i in first],
        np.array([parts.labels[group].max() for group in groups.values()]),
        model.predicted(probabilities),
        probabilities,
        parts.classes,
    )


def _metrics(views: Predictions, patients: Predictions, seed: int) -> dict[str, dict[str, dict]]:
    found: dict[str, dict[str, dict]] = defaultdict(dict)
    for part in dict.fromkeys(views.parts):
        for level, scores in (("views", views), ("patients", patients)):
            rows = [i for i, name in enumerate(scores.parts) if name == part]
            of = (scores.probabilities[rows], scores.labels[rows], [scores.patients[i] for i in rows])
            found[part][level] = part_metrics(*of, scores.classes, seed=seed)
    return dict(found)


def _patient(file: str, root: str) -> str:
    path = Path(root).expanduser()
    path = (path.parent if path.is_file() else path) / file
    return (header(str(path)).patient if is_dicom(str(path)) else "") or file
