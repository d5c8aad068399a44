"""Label maps of images without masks, written as files, with tables of volumes and ejection fractions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from tqdm import tqdm

from ..data import write_nifti
from ..data.read.kinds import kind_of
from ..data.stacks import in_file_axes
from ..metrics.segmentation import ejection_fractions, volumes_ml
from ..model import Model
from ..predictions import relative
from ..utils import MonaiEngine, atomic_path, with_bar, write_table
from .segmentation import stem, ventricles
from .unreadable import readable

__all__ = ["SaveMasks"]

_log = logging.getLogger("medtl_monai")


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

    def _save(self, engine: MonaiEngine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            if not readable(item):
                continue
            meta, mask = item["image"].meta, output["pred"].as_tensor().cpu()
            path, spacing = Path(meta["filename_or_obj"]), meta.get("spacing")
            values, affine = self._values[mask[0].long()].numpy(), output["pred"].affine.numpy()
            saved = _write_mask(self._place(path), path, *in_file_axes(values, affine, int(meta["slice_axis"])))
            volumes = volumes_ml(mask, len(self.structures), spacing) if spacing else [""] * len(self.structures)
            names = relative(str(path), self.root), relative(str(saved), self.folder.parent)
            self._rows.append([*names, item.get("patient", ""), item.get("phase", ""), *volumes])
        self._bar.update()

    def _place(self, image: Path) -> Path:
        """Where the mask goes, without its ending; names of folders are put before a name that is taken."""
        name = f"{stem(image)}_mask"
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
        write_table(
            path, [["image", "mask", "patient", "phase", *(f"{name} volume_ml" for name in names)], *self._rows]
        )
        _log.info(f"{len(self._rows)} masks in {self.folder}; volumes in {path}")
        self._write_fractions(path.with_name("ejection_fractions.csv"))

    def _write_fractions(self, path: Path) -> None:
        chambers = ventricles(list(self.structures))
        found = [ejection_fractions(self._volumes(k)) for k, _ in chambers]
        patients = sorted({patient for by_patient in found for patient in by_patient})
        if not patients:
            return
        rows = (
            [patient, *(f"{values[patient]:.4f}" if patient in values else "" for values in found)]
            for patient in patients
        )
        write_table(path, [["patient", *(name for _, name in chambers)], *rows])
        _log.info(f"ejection fractions of {len(patients)} patients: {path}")

    def _volumes(self, structure: int) -> dict[tuple[str, str], float]:
        """A structure's volume by patient and phase, where both and the volume are known."""
        column = 4 + structure
        return {(row[2], row[3]): row[column] for row in self._rows if row[3] and row[column] != ""}


def _write_mask(place: Path, image: Path, mask: NDArray[Any], affine: NDArray[Any]) -> Path:
    """``mask`` ``(X, Y, Z)`` as a picture or as NIfTI, as the image is; the path with its ending."""
    if kind_of(image) == "picture" and mask.shape[2] == 1:
        from PIL import Image

        path = place.with_name(f"{place.name}.png")
        with atomic_path(path) as part:
            Image.fromarray(mask[..., 0].T).save(part)
    else:
        path = place.with_name(f"{place.name}.nii.gz")
        write_nifti(path, mask, affine)
    return path
