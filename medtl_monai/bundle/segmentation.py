"""What the segmentation bundles' configurations call: masks checked and split, cases segmented, scored and saved."""

from __future__ import annotations

import csv
import logging
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from .. import figures
from ..data import (
    Cases,
    perceptual_hash,
    split_patients,
    stack_of,
    suspicious_spacing,
    tells_spacing,
    unlabelled,
    write_nifti,
)
from ..data.layouts.acdc import frames
from ..data.layouts.common import has_columns, read_table
from ..metrics.segmentation import METRICS, ejection_fractions, measure, summarize, volumes_ml
from ..model import Model
from ..predictions import relative
from ..utils import UserError, atomic_path, with_bar
from .cases import Parts, audited
from .domains import tell_domains
from .report import Report

__all__ = [
    "SaveMasks",
    "SegmentationReport",
    "Segmented",
    "middle_share",
    "read_stacks",
    "segment",
    "structure_values",
    "unmasked",
]

_log = logging.getLogger("medtl_monai")

_RESAMPLES = 1000
_DICE = METRICS.index("dice")


def structure_values(
    cases: Cases,
    structures: Mapping[str, int] | Sequence[str] | None = None,
    *,
    model: Mapping[str, int] | Sequence[str] | None = None,
) -> dict[str, int]:
    """Each structure's value in the masks.

    Args:
        cases: with masks.
        structures: names, where the data tells their values, or names with values; ``None``: all that the data has.
        model: the structures of a trained model, which are wanted in this order; with the values that they had in its
            training, a name that the data does not know keeps its value, unless ``structures`` says all.

    Raises:
        UserError: a name whose value is not known, or values that are not different whole numbers above 0.
    """
    values = dict(
        structures if isinstance(structures, Mapping) else zip(cases.classes, cases.label_values, strict=True)
    )
    names = model or (values if structures is None or isinstance(structures, Mapping) else structures)
    if structures is None and isinstance(model, Mapping):
        kept = {name: value for name, value in model.items() if name not in values}
        values |= kept
        for name, value in kept.items():
            _log.info(f"{name}: the value {value} in the masks, as in the training; the data has no such name")
    unknown = [name for name in names if name not in values]
    if unknown:
        raise UserError(
            f"the masks' value of {', '.join(map(str, unknown))} is not known: known are {', '.join(values)}; give "
            f"structures with their values, such as {{'{unknown[0]}': 1}}."
        )
    values = {name: values[name] for name in names}
    whole = all(isinstance(value, int) and value > 0 for value in values.values())
    if not values or len(set(values.values())) < len(values) or not whole:
        raise UserError(f"structures must have different values, whole numbers above 0, got {values}.")
    return values


def read_stacks(
    cases: Cases,
    structures: Mapping[str, int],
    *,
    val_fraction: float = 0.2,
    fold: int | None = None,
    seed: int = 0,
    part: str | None = None,
    allow_shared_patients: bool = False,
) -> Parts:
    """Read every image and mask once, give each patient a part, and look for what the parts share.

    Args:
        cases: whose items' ``label`` is the path of a mask.
        structures: value in the masks by name.
        val_fraction: share of the cases for validation, about; patients are never divided.
        fold: which of ``round(1 / val_fraction)`` folds validates, instead of a random choice.
        seed: of the choice.
        part: put all cases in this part instead of splitting (to score a whole set).
        allow_shared_patients: go on although a patient stands in two parts (by the data's own split).

    Raises:
        UserError: files that cannot be read or do not fit each other, a structure that is in no mask, too few
            patients, patients shared by parts.
    """
    hashes, found = {}, np.zeros(len(structures), dtype=int)
    failed, doubts = [], []
    for item in with_bar(cases.items, "reading images and masks"):
        try:
            image, mask = (stack_of(item, key) for key in ("image", "label"))
        except UserError:
            raise
        except Exception as error:  # every reader has its own kinds
            failed.append(f"{item['image']} ({str(error).partition(chr(10))[0][:80] or type(error).__name__})")
            continue
        if image.shape != mask.shape:
            raise UserError(
                f"{item['image']} has the shape {tuple(image.shape[1:])} and its mask {item['label']} "
                f"{tuple(mask.shape[1:])}: they must be equal."
            )
        if tells_spacing(item["image"]):
            doubts += [reason for reason in [suspicious_spacing(image)] if reason]
        hashes[str(item["image"])] = perceptual_hash(image[0, ..., image.shape[-1] // 2].numpy())
        found += [bool((mask == value).any()) for value in structures.values()]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(cases.items)} images or masks cannot be read: {', '.join(failed[:3])}: "
            "repair or remove them."
        )
    for reason, count in Counter(doubts).items():
        _log.warning(f"{count} of {len(cases.items)} images: {reason}; volumes and distances in mm may be wrong")
    for name, count in zip(structures, found, strict=True):
        if not count:
            values = sorted({int(v) for item in cases.items[:5] for v in stack_of(item, "label").unique()} - {0})
            raise UserError(
                f"no mask holds the value {structures[name]} of the {name}: the first masks hold "
                f"{', '.join(map(str, values)) or 'none'}; give the right values with structures."
            )
    plain = [{**item, "label": 0} for item in cases.items]  # no classes to balance
    settings = {"val_fraction": val_fraction, "fold": fold, "seed": seed, "classes": ["of masks"]}
    names = [part] * len(plain) if part else split_patients(plain, **settings)
    leakage = audited(plain, names, hashes, allow_shared_patients)
    for name in dict.fromkeys(names):
        chosen = [item for item, where in zip(plain, names, strict=True) if where == name]
        _log.info(f"{name}: {len(chosen)} cases of {len({item['patient'] for item in chosen})} patients")
    return Parts(["background", *structures], cases.items, names, leakage)


def middle_share(items: Sequence[Mapping[str, Any]], structures: Mapping[str, int], margin: float = 1.2) -> float:
    """The side of the middle square that holds every structure of these masks, as a share of the slice's shorter side.

    Args:
        items: of a datalist, with ``label``.
        structures: value in the masks by name.
        margin: times the square that just holds them; the result is rounded up to a multiple of 0.05, and at most 1.
    """
    farthest = 0.0
    for item in with_bar(items, "looking where the structures lie"):
        mask = stack_of(item, "label")[0]
        size = torch.tensor(mask.shape[:2])
        inside = torch.isin(mask.as_tensor(), torch.tensor(list(structures.values()))).any(-1).nonzero()
        if len(inside):
            farthest = max(farthest, float(2 * (inside + 0.5 - size / 2).abs().max() / size.min()))
    share = min(1.0, math.ceil(round(20 * margin * farthest, 6)) / 20)
    _log.info(f"crop: the middle {share:g} of each slice; the training masks' structures lie within {farthest:.2f}")
    return share


def unmasked(path: str | Path) -> list[dict[str, str]]:
    """Images for inference: one file, or all below a folder that are neither masks (``_gt``) nor whole beats (``_4d``).

    ``patient`` and ``phase`` (``ED`` or ``ES``) are there where a table ``index.csv`` in the folder has columns of
    these names beside ``image``, or ACDC's ``Info.cfg`` lies beside the image.

    Raises:
        UserError: there is none.
    """
    left_out = ("_gt", "_4d")
    items = [item for item in unlabelled(path) if not Path(item["image"]).name.split(".")[0].endswith(left_out)]
    table = Path(path) / "index.csv"
    columns = ("image", "patient", "phase")
    rows = read_table(table, columns) if has_columns(table, columns) else []
    told = {str((table.parent / row["image"]).resolve()): (row["patient"], row["phase"]) for row in rows}
    for folder in {Path(item["image"]).parent for item in items}:
        phases = frames(folder) if (folder / "Info.cfg").is_file() else {}
        told |= {str(file): (folder.name, phases[name]) for file in folder.iterdir() if (name := _name(file)) in phases}
    return [{**item, **dict(zip(columns[1:], told.get(item["image"], ()), strict=False))} for item in items]


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
        known = all(tells_spacing(item["image"]) for item in items)
        cases, slices, where, volumes, masks = [], [], [], [], []
        for index in with_bar(range(len(items)), f"segmenting {name}"):
            case = segment(network, dataset[index], self.model, dataset.transform, device=self.device)
            masks.append(_Masks.of(case))
            pred, label, probability = (case[key].as_tensor() for key in ("pred", "label", "probability"))
            spacing = case["image"].meta["spacing"] if known else None
            flat = {"spacing": spacing[:2], "thickness": spacing[2]} if spacing else {}
            each = measure(pred[0].movedim(-1, 0), label[0].movedim(-1, 0), probability.movedim(-1, 0), **flat)
            cases.append(each if len(each) == 1 else measure(pred, label, probability[None], spacing=spacing))
            slices.append(each)
            where += [(index, z) for z in range(len(each))]
            n = len(self.structures)
            volumes.append([volumes_ml(mask, n, spacing) if spacing else [np.nan] * n for mask in (label, pred)])
        unit = "mm" if known else "pixels"
        return Segmented(items, np.concatenate(cases), np.concatenate(slices), where, np.array(volumes), unit, masks)

    def _metrics(self, part: Segmented) -> dict[str, Any]:
        of_slice = [part.patients[case] for case, _ in part.where]
        settings = {"seed": self.seed, "n_bootstrap": _RESAMPLES}
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
        for k, name in _ventricles(self.structures):
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
        with (
            atomic_path(self.folder / "predictions.csv") as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(
                ["image", "patient", "part", "label", "phase", *(f"{n} {x}" for n in self.structures for x in per)]
            )
            for name, part in found.items():
                for item, values, (true, pred) in zip(part.items, part.cases, part.volumes, strict=True):
                    image, label = (relative(item[key], self.root) for key in ("image", "label"))
                    row = [image, item["patient"], name, label, item.get("phase", "")]
                    for k in range(len(self.structures)):
                        numbers = [values[k, METRICS.index("dice")], values[k, METRICS.index("hd95")], pred[k], true[k]]
                        row += ["" if np.isnan(x) else f"{x:.6g}" for x in numbers]
                    writer.writerow(row)

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
                stacks[index] = stack_of(item, "image")
            images.append(stacks[index][0, ..., z].numpy().T)
            masks.append(part.masks[index].slice(z))
            dice = part.slices[part.where.index((index, z)), :, _DICE]
            scores = ", ".join("-" if np.isnan(x) else f"{x:.2f}" for x in dice)
            captions.append(f"{Path(item['image']).name}, slice {z}\nDice {scores}")
        figures.contour_grid(images, masks, captions, self.structures, path, title=title)


def _ventricles(structures: Sequence[str]) -> list[tuple[int, str]]:
    """The structures that hold blood, with their places: all but the myocardium."""
    return [(k, name) for k, name in enumerate(structures) if "myocard" not in name.lower()]


class SaveMasks:
    """Write the label maps of an evaluator's images, and tables of volumes and ejection fractions, into a folder.

    A picture's mask is a PNG, another's a NIfTI file with the image's affine; both hold the values that the structures
    had in the training's masks. ``predictions.csv`` has a line an image with each structure's volume, where the
    spacing is known, and ``ejection_fractions.csv`` one a patient whose volumes in diastole and systole are known.

    Args:
        model: whose structures say the values in the masks.
        folder: for the masks; the table goes beside it.
        root: folder of the images.
    """

    def __init__(self, model: Model, folder: str, root: str) -> None:
        self.folder, self.structures, self.root = Path(folder), dict(model.structures), root
        kind = torch.uint8 if max(self.structures.values()) < 256 else torch.int16
        self._values = torch.tensor([0, *self.structures.values()], dtype=kind)
        self._places: set[Path] = set()
        self._rows: list[list[Any]] = []
        self._bar: tqdm[Any] = tqdm(disable=True)

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator whose postprocessing gives label maps ``pred`` in the images' own space."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._bar = with_bar(None, "segmenting", total=engine.state.epoch_length)

    def _save(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            meta, mask = item["image"].meta, output["pred"].as_tensor().cpu()
            path, spacing = Path(meta["filename_or_obj"]), meta.get("spacing")
            saved = _write_mask(self._place(path), path, self._values[mask[0].long()], output["pred"].affine.numpy())
            volumes = volumes_ml(mask, len(self.structures), spacing) if spacing else [""] * len(self.structures)
            names = relative(str(path), self.root), relative(str(saved), self.folder.parent)
            self._rows.append([*names, item.get("patient", ""), item.get("phase", ""), *volumes])
        self._bar.update()

    def _place(self, image: Path) -> Path:
        """Where the mask goes, without its ending; names of folders are put before a name that is taken."""
        name = f"{_name(image)}_mask"
        for parent in image.parents:
            if self.folder / name not in self._places:
                break
            name = f"{parent.name}_{name}"
        self._places.add(self.folder / name)
        return self.folder / name

    def _write(self, engine: Engine) -> None:
        self._bar.close()
        names = list(self.structures)
        path = self.folder.parent / "predictions.csv"
        with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "mask", "patient", "phase", *(f"{name} volume_ml" for name in names)])
            writer.writerows(self._rows)
        _log.info(f"{len(self._rows)} masks in {self.folder}; volumes in {path}")
        self._write_fractions(path.with_name("ejection_fractions.csv"))

    def _write_fractions(self, path: Path) -> None:
        ventricles = _ventricles(list(self.structures))
        found = [
            ejection_fractions({(row[2], row[3]): row[4 + k] for row in self._rows if row[3] and row[4 + k] != ""})
            for k, _ in ventricles
        ]
        patients = sorted({patient for by_patient in found for patient in by_patient})
        if not patients:
            return
        with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["patient", *(name for _, name in ventricles)])
            writer.writerows(
                [patient, *(f"{values[patient]:.4f}" if patient in values else "" for values in found)]
                for patient in patients
            )
        _log.info(f"ejection fractions of {len(patients)} patients: {path}")


def _name(file: Path) -> str:
    """Without the ending."""
    return file.name.removesuffix(".gz").rsplit(".", 1)[0]


def _write_mask(place: Path, image: Path, mask: Tensor, affine: NDArray[Any]) -> Path:
    """``mask`` ``(X, Y, Z)`` as a picture or as NIfTI, as the image is; the path with its ending."""
    if image.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"):
        from PIL import Image

        path = place.with_name(f"{place.name}.png")
        with atomic_path(path) as part:
            Image.fromarray(mask[..., 0].T.numpy()).save(part)
    else:
        path = place.with_name(f"{place.name}.nii.gz")
        write_nifti(path, mask.numpy(), affine)
    return path
