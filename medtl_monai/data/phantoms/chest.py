"""A synthetic cohort of frontal chest radiographs with focal and diffuse opacities, in the layouts of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...utils import UserError, with_bar
from .cohort import cached_cohort, make_cohort, write_table
from .draw import field, grid, smooth, step

__all__ = ["CLASSES", "FINDINGS", "chest_cohort", "make_chest_cohort"]

CLASSES = ("diffuse", "focal", "normal")
FINDINGS = ("Cardiomegaly", "Effusion", "Infiltration", "Nodule")
_SHOWN = {"diffuse": ("Infiltration",), "focal": ("Nodule",), "normal": ()}
_VERSION = 1  # of the pictures: a cached cohort of another version is not used

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Thorax:
    """What the radiographs of one patient share."""

    width: float
    lung: tuple[float, float]  # half axes
    heart: tuple[float, float]
    ribs: tuple[float, float]  # distance and brightness
    dome: float  # height of the diaphragm
    vessels: Array
    domain: str
    gamma: float
    blur: float
    noise: float
    tilt: float


def chest_cohort() -> str:
    """Folder of the default cohort, made on first use in the user's cache folder."""
    return cached_cohort(f"chest-v{_VERSION}", make_chest_cohort)


def make_chest_cohort(
    folder: str | Path,
    *,
    layout: str = "table",
    patients: int = 90,
    images: tuple[int, int] = (1, 3),
    size: int = 160,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Draw a cohort and write it as 8-bit PNG.

    Body, ribs, heart, exposure, noise and device (domain A or B) differ between patients; the radiographs of a patient
    differ in breathing and position. Focal opacities are round, anywhere in a lung; diffuse ones are patchy and faint.

    Args:
        folder: made whole or not at all; kept if it holds this very cohort, replaced if it holds another.
        layout: ``table``: an ``index.csv`` of image, label (normal, focal or diffuse), patient and domain.
            ``chestxray14``: ``Data_Entry_2017.csv``, ``images`` and the two lists of the official split, with
            findings (Cardiomegaly, Effusion, Infiltration, Nodule) that may stand together.
        patients: number of patients.
        images: least and largest number of radiographs of a patient.
        size: side of the square pictures, in pixels.
        seed: the same seed gives the same files.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        UserError: an unknown layout, or the folder holds something else than a cohort.
    """
    if layout not in ("table", "chestxray14"):
        raise UserError(f"layout must be table or chestxray14, got {layout!r}.")
    about = {"version": _VERSION, "layout": layout, "patients": patients, "images": list(images), "size": size}
    about["seed"] = seed
    write = _write_table if layout == "table" else _write_chestxray14

    def draw(part: Path) -> None:
        write(part, with_bar(range(patients), "drawing phantoms", progress), images, size, seed)

    return make_cohort(folder, about, draw)


def _write_table(folder: Path, numbers: Sequence[int], images: tuple[int, int], size: int, seed: int) -> None:
    rows = []
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        label, thorax = CLASSES[number % len(CLASSES)], _thorax(size, rng)
        (folder / label).mkdir(exist_ok=True)
        for i in range(int(rng.integers(images[0], images[1] + 1))):
            path = f"{label}/C{number:03d}_{i}.png"
            _save(_radiograph(thorax, _SHOWN[label], rng), folder / path)
            rows.append([path, label, f"C{number:03d}", thorax.domain])
    write_table(folder / "index.csv", ["image", "label", "patient", "domain"], rows)


def _write_chestxray14(folder: Path, numbers: Sequence[int], images: tuple[int, int], size: int, seed: int) -> None:
    rows, lists = [], {"train_val_list.txt": [], "test_list.txt": []}  # type: ignore[var-annotated]
    (folder / "images").mkdir()
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        shown = [finding for finding in FINDINGS if rng.random() < 0.3]
        thorax = _thorax(size, rng, large_heart="Cardiomegaly" in shown)
        for i in range(int(rng.integers(images[0], images[1] + 1))):
            name = f"{number + 1:08d}_{i:03d}.png"
            _save(_radiograph(thorax, shown, rng), folder / "images" / name)
            age, sex = 30 + number % 50, "MF"[number % 2]
            rows.append(
                [name, "|".join(shown) or "No Finding", i, number + 1, age, sex, "PA", size, size, 0.143, 0.143]
            )
            lists["test_list.txt" if number % 5 == 4 else "train_val_list.txt"].append(name)
    columns = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    columns += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"  # as in the real table
    write_table(folder / "Data_Entry_2017.csv", columns.split(","), rows)
    for name, names in lists.items():
        (folder / name).write_text("\n".join(names) + "\n", encoding="utf-8")


def _save(picture: Array, path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.round(255 * picture).astype(np.uint8)).save(path)


def _thorax(size: int, rng: np.random.Generator, *, large_heart: bool = False) -> _Thorax:
    domain = "AB"[int(rng.integers(2))]
    heart = rng.uniform(0.36, 0.44) if large_heart else rng.uniform(0.22, 0.30)
    return _Thorax(
        width=rng.uniform(0.85, 0.97),
        lung=(rng.uniform(0.29, 0.35), rng.uniform(0.58, 0.70)),
        heart=(heart, rng.uniform(0.26, 0.34)),
        ribs=(rng.uniform(0.17, 0.21), rng.uniform(0.05, 0.10)),
        dome=rng.uniform(0.08, 0.16),
        vessels=field(size, 2.5, rng),
        domain=domain,
        gamma=rng.normal(0.9 if domain == "A" else 1.2, 0.08),
        blur=rng.uniform(0.4, 0.7) if domain == "A" else rng.uniform(0.7, 1.1),
        noise=rng.uniform(0.008, 0.02) if domain == "A" else rng.uniform(0.015, 0.035),
        tilt=rng.normal(0, 0.15),
    )


def _radiograph(thorax: _Thorax, shown: Sequence[str], rng: np.random.Generator) -> Array:
    """One picture in [0, 1]; the patient's right is on the left."""
    x, y = grid(len(thorax.vessels))
    x, y = x - rng.normal(0, 0.03), y - rng.normal(0, 0.03)
    breath = rng.uniform(0.92, 1.05)
    a, b = thorax.lung[0], thorax.lung[1] * breath
    body = step(1 - np.hypot(x / thorax.width, y / 1.6), 0.03)
    side = np.abs(x)
    floor = 0.5 * breath - thorax.dome * (1 - ((side - 0.42) / 0.35) ** 2)  # the diaphragm's domes
    lungs = step(1 - np.hypot((side - 0.44) / a, (y + 0.08) / b), 0.06) * step(floor - y, 0.02)
    heart = step(1 - np.hypot((x - 0.10) / thorax.heart[0], (y - 0.24) / thorax.heart[1]), 0.08)
    lungs = lungs * (1 - 0.85 * heart)  # what is left of air
    picture = 0.62 * body - 0.40 * lungs * body
    hilum = np.exp(-(((side - 0.22) / 0.22) ** 2) - (y / 0.35) ** 2)
    picture = picture + lungs * (0.02 + 0.07 * hilum) * thorax.vessels + 0.10 * hilum * lungs
    spine = step(0.09 - side, 0.03)
    picture = picture + 0.14 * spine * body + 0.05 * heart
    gap, bright = thorax.ribs
    phase = (y + 0.9 * (side - 0.1) ** 2 + 0.1 * side) / gap
    chest = step(0.80 - side, 0.02) * step(side - 0.10, 0.03) * step(0.62 - np.abs(y + 0.05), 0.05)
    picture = picture + bright * step(np.cos(2 * np.pi * phase) - 0.55, 0.15) * chest
    picture = picture + 0.10 * step(0.025 - np.abs(y + 0.62 - 0.25 * (side - 0.4)), 0.01) * step(0.75 - side, 0.05)
    for finding in shown:
        picture = picture + _opacity(finding, x, y, lungs, floor, (a, b), rng)
    picture = picture * (1 + thorax.tilt * x)
    picture = np.clip(smooth(picture, thorax.blur), 0, 1.2) ** thorax.gamma
    return np.clip(picture + rng.normal(0, thorax.noise, picture.shape), 0, 1)


def _opacity(
    finding: str, x: Array, y: Array, lungs: Array, floor: Array, axes: tuple[float, float], rng: np.random.Generator
) -> Array:
    """What a finding adds to the picture; a large heart is part of the body."""
    half = rng.choice([-1.0, 1.0])
    if finding == "Nodule":
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.75)
        cx, cy = half * 0.46 + reach * axes[0] * np.cos(angle), -0.1 + reach * 0.75 * axes[1] * np.sin(angle)
        radius = rng.uniform(0.05, 0.12)
        return rng.uniform(0.14, 0.30) * step(1 - np.hypot(x - cx, y - cy) / radius, 0.15) * lungs
    if finding == "Infiltration":
        patches = step(field(len(lungs), 7.0, rng) - rng.uniform(-0.4, 0.3), 0.5)
        centre = rng.uniform(-0.3, 0.3)
        region = np.exp(-(((y - centre) / 0.45) ** 2)) * (1 if rng.random() < 0.5 else step(half * x, 0.05))
        return rng.uniform(0.12, 0.24) * patches * region * lungs
    if finding == "Effusion":
        level = rng.uniform(0.05, 0.25)
        rise = 0.5 * np.clip(np.abs(x) - 0.45, 0, None)  # the meniscus climbs along the chest wall
        return 0.34 * step(y - floor + level + rise, 0.02) * step(half * x, 0.03) * lungs
    return np.zeros_like(lungs)
