"""Cases segmented and scored: the end of a segmentation's run."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import nn

from .. import figures
from ..data import (
    stack_of,
    tells_spacing,
)
from ..metrics.segmentation import SEGMENTATION_METRICS, ejection_fractions, measure, summarize, volumes_ml
from ..model import Model
from ..predictions import relative
from ..utils import with_bar, write_table
from .domains import tell_domains
from .report import Report
from .segmentation import ventricles

__all__ = ["SegmentationReport", "Segmented", "segment"]

_log = logging.getLogger("medtl_monai")

_RESAMPLES = 1000
_DICE, _HD95 = (SEGMENTATION_METRICS.index(name) for name in ("dice", "hd95"))


def segment(
    network: nn.Module, item: Mapping[str, Any], model: Model, preparation: Compose, *, device: torch.device | str
) -> dict[str, Any]:
    """One prepared case with its label map ``pred`` and the maps ``probability``, in the image's own space."""
    batch, _ = model.prepare_batch()({"image": item["image"][None]}, device)
    tell_domains(network, item.get("domain"))
    with torch.no_grad():
        logits = model.inferer()(batch, network)[0].float().cpu()
    source = item["image"]
    pred = MetaTensor(logits, meta=source.meta, applied_operations=source.applied_operations)
    return model.postprocessing(preparation)({**item, "pred": pred})


class _Masks(NamedTuple):
    """True and predicted label maps ``(1, X, Y, Z)`` of a case: compressed, as only a few of all cases are shown."""

    shape: tuple[int, ...]
    label: bytes
    pred: bytes

    @classmethod
    def of(cls, case: Mapping[str, Any]) -> _Masks:
        label, pred = (case[key].as_tensor().to(torch.int16).numpy() for key in ("label", "pred"))
        return cls(label.shape, *(zlib.compress(mask.tobytes(), 1) for mask in (label, pred)))

    def slice(self, z: int) -> list[NDArray[Any]]:
        """Both, of one slice, as pictures show it."""
        masks = (np.frombuffer(zlib.decompress(mask), np.int16).reshape(self.shape) for mask in self[1:])
        return [mask[0, ..., z].T for mask in masks]


@dataclass(frozen=True)
class Segmented:
    """The cases of one part, as they were measured.

    Attributes:
        items: N datalist items.
        cases: ``(N, K, M)``, the metrics of each case as a whole.
        slices: ``(S, K, M)``, of each slice.
        where: S pairs, the case and the slice in it.
        volumes: ``(N, 2, K)``, true and predicted, in ml; NaN without a spacing.
        unit: of distances, ``mm`` or ``pixels``.
        masks: of each case.
    """

    items: list[dict[str, Any]]
    cases: NDArray[Any]
    slices: NDArray[Any]
    where: list[tuple[int, int]]
    volumes: NDArray[Any]
    unit: str
    masks: list[_Masks]

    @property
    def patients(self) -> list[str]:
        """The patient of each case."""
        return [str(item["patient"]) for item in self.items]


class SegmentationReport(Report):
    """Everything that a finished training, or an evaluation, of a segmentation writes into ``output_dir``.

    Args:
        args: of :class:`Report`; its loaders' data sets give single cases with ``image`` and ``label``.
        kwargs: likewise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.structures = self.classes[1:]

    def score(self, network: nn.Module) -> dict[str, Any]:
        """The metrics of every part; its tables and figures are written on the way."""
        found = {name: self._segment(network, loader.dataset, name) for name, loader in self.loaders.items()}
        self._write_cases(found)
        for name, part in found.items():
            if name != "train":
                self._figures(name, part)
        return {name: self._metrics(part) for name, part in found.items()}

    def _segment(self, network: nn.Module, dataset: Any, name: str) -> Segmented:
        items = [dict(item) for item in dataset.data]
        known = self.model.spacing is not None or all(tells_spacing(item["image"]) for item in items)
        cases, slices, where, volumes, masks = [], [], [], [], []
        for index in with_bar(range(len(items)), f"segmenting {name}"):
            case = segment(network, dataset[index], self.model, dataset.transform, device=self.device)
            masks.append(_Masks.of(case))
            each, whole, of_case = self._measure(case, case["image"].meta["spacing"] if known else None)
            cases.append(whole)
            slices.append(each)
            where += [(index, z) for z in range(len(each))]
            volumes.append(of_case)
        unit = "mm" if known else "pixels"
        return Segmented(items, np.concatenate(cases), np.concatenate(slices), where, np.array(volumes), unit, masks)

    def _measure(self, case: Mapping[str, Any], spacing: Sequence[float] | None) -> tuple[Any, Any, list[Any]]:
        """The metrics of each slice and of the case as a whole, and true and predicted volumes."""
        pred, label, probability = (case[key].as_tensor() for key in ("pred", "label", "probability"))
        flat: dict[str, Any] = {"spacing": spacing[:2], "thickness": spacing[2]} if spacing else {}
        each = measure(pred[0].movedim(-1, 0), label[0].movedim(-1, 0), probability.movedim(-1, 0), **flat)
        whole = each if len(each) == 1 else measure(pred, label, probability[None], spacing=spacing)
        n = len(self.structures)
        return each, whole, [volumes_ml(mask, n, spacing) if spacing else [np.nan] * n for mask in (label, pred)]

    def _metrics(self, part: Segmented) -> dict[str, Any]:
        of_slice = [part.patients[case] for case, _ in part.where]
        settings: dict[str, Any] = {"seed": self.seed, "n_bootstrap": _RESAMPLES}
        return {
            "images": len(part.items),
            "slices": len(part.slices),
            "patients": len(set(part.patients)),
            "seed": self.seed,
            "resamples": _RESAMPLES,
            "unit_of_distances": part.unit,
            **summarize(part.cases, part.patients, self.structures, by_patient=True, **settings),
            "per_slice": summarize(part.slices, of_slice, self.structures, **settings),
            "ejection_fraction": self._ejection(part),
        }

    def _ejection(self, part: Segmented) -> dict[str, Any]:
        """True and predicted, of each ventricle, by patient."""
        result: dict[str, Any] = {}
        times = [(str(item["patient"]), item.get("phase", "")) for item in part.items]
        for k, name in ventricles(self.structures):
            pair = [ejection_fractions(dict(zip(times, part.volumes[:, i, k], strict=True))) for i in (0, 1)]
            both = sorted(set(pair[0]) & set(pair[1]))
            if not both:
                result[name] = {"value": None, "reason": "no patient has ED and ES frames of known spacing"}
                continue
            errors = [pair[1][p] - pair[0][p] for p in both]
            result[name] = {
                "value": float(np.mean(np.abs(errors))),
                "bias": float(np.mean(errors)),
                "patients": {p: {"true": pair[0][p], "predicted": pair[1][p]} for p in both},
            }
        return result

    def _write_cases(self, found: Mapping[str, Segmented]) -> None:
        per = ("dice", "hd95", "volume_ml", "true_volume_ml")
        header = ["image", "patient", "part", "label", "phase", *(f"{n} {x}" for n in self.structures for x in per)]
        rows = [self._row(name, part, index) for name, part in found.items() for index in range(len(part.items))]
        write_table(self.folder / "predictions.csv", [header, *rows])

    def _row(self, name: str, part: Segmented, index: int) -> list[str]:
        item, values, (true, pred) = part.items[index], part.cases[index], part.volumes[index]
        image, label = (relative(item[key], self.root) for key in ("image", "label"))
        row = [image, item["patient"], name, label, item.get("phase", "")]
        for k in range(len(self.structures)):
            numbers = [values[k, _DICE], values[k, _HD95], pred[k], true[k]]
            row += ["" if np.isnan(x) else f"{x:.6g}" for x in numbers]
        return row

    def _figures(self, name: str, part: Segmented) -> None:
        folder = self.folder / "figures"
        title = f"{name}: {len(part.items)} cases, {len(set(part.patients))} patients"
        figures.dice_strips(part.slices[..., _DICE], self.structures, folder / f"{name}_dice.png", title=title)
        if part.unit == "mm":
            figures.bland_altman(part.volumes, self.structures, folder / f"{name}_volumes.png", title=title)
        defined = ~np.isnan(part.slices[..., _DICE])
        with_any = np.flatnonzero(defined.any(1))
        score = np.nanmean(part.slices[with_any, :, _DICE], axis=1)
        order = with_any[score.argsort(kind="stable")]
        middle = len(order) // 2
        chosen = {"worst": order[:8], "typical": order[max(0, middle - 4) : middle + 4]}
        for kind, slices in chosen.items() if len(order) else ():
            self._draw_slices(part, slices, folder / f"{name}_{kind}_cases.png", f"{kind} of {title}")

    def _draw_slices(self, part: Segmented, slices: Sequence[int], path: Path, title: str) -> None:
        images, masks, captions = [], [], []
        stacks: dict[int, Any] = {}
        for index, z in (part.where[i] for i in slices):
            item = part.items[index]
            if index not in stacks:
                stacks[index] = stack_of(item, "image", slice_axis=self.model.slice_axis)
            images.append(stacks[index][0, ..., z].numpy().T)
            masks.append(part.masks[index].slice(z))
            dice = part.slices[part.where.index((index, z)), :, _DICE]
            scores = ", ".join("-" if np.isnan(x) else f"{x:.2f}" for x in dice)
            captions.append(f"{Path(item['image']).name}, slice {z}\nDice {scores}")
        figures.contour_grid(images, masks, captions, self.structures, path, title=title)
