"""A synthetic cohort of contrast-enhanced T1 brain slices with three kinds of tumour, in the layout of a real one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...utils import with_bar
from .cohort import cached_cohort, make_cohort, write_table
from .draw import field, grid, smooth, step

__all__ = ["CLASSES", "brain_cohort", "make_brain_cohort"]

CLASSES = ("glioma", "meningioma", "pituitary")
_VERSION = 1  # of the pictures: a cached cohort of another version is not used

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Anatomy:
    """What the slices of one patient share."""

    axes: tuple[float, float]  # half the head's width and length, as a fraction of half the picture
    turn: float  # radians
    centre: tuple[float, float]
    skull: float  # thickness
    ventricles: float  # size
    folds: Array  # smooth field that shapes the cortex
    texture: Array
    domain: str
    gamma: float
    blur: float
    noise: float
    bias: Array


def brain_cohort() -> str:
    """Folder of the default cohort, made on first use in the user's cache folder."""
    return cached_cohort(f"brain-v{_VERSION}", make_brain_cohort)


def make_brain_cohort(
    folder: str | Path,
    *,
    patients: int = 60,
    slices: tuple[int, int] = (3, 6),
    size: int = 160,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Draw a cohort and write it as 8-bit PNG with an ``index.csv`` (image, label, patient, domain).

    Anatomy, lesion, bias field, noise and scanner (``domain`` A or B) differ between patients; slices of one patient
    are near copies of each other, as in real cohorts, so that only a split by patient is honest. The classes differ in
    place, margin and enhancement: gliomas lie inside the brain, with an irregular ring and oedema; meningiomas sit on
    the dura, round, sharp and evenly bright; pituitary tumours lie in the midline at the base. Small bright vessels
    are in all of them.

    Args:
        folder: made whole or not at all; kept if it holds this very cohort, replaced if it holds another.
        patients: number of patients, the classes in turn.
        slices: least and largest number of slices of a patient.
        size: side of the square pictures, in pixels.
        seed: the same seed gives the same files.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds something else than a cohort.
    """
    about = {"version": _VERSION, "patients": patients, "slices": list(slices), "size": size, "seed": seed}

    def draw(part: Path) -> None:
        rows = []
        for number in with_bar(range(patients), "drawing phantoms", progress):
            rng = np.random.default_rng([seed, number])
            rows += _patient(part, f"P{number:03d}", CLASSES[number % len(CLASSES)], slices, size, rng)
        write_table(part / "index.csv", ["image", "label", "patient", "domain"], rows)

    return make_cohort(folder, about, draw)


def _patient(
    folder: Path, name: str, label: str, slices: tuple[int, int], size: int, rng: np.random.Generator
) -> list[list[str]]:
    from PIL import Image

    anatomy = _anatomy(size, rng)
    lesion = _Lesion(label, rng, size)
    count = int(rng.integers(slices[0], slices[1] + 1))
    middle = lesion.level
    (folder / label).mkdir(exist_ok=True)
    rows = []
    for i, offset in enumerate(np.linspace(-1, 1, count) if count > 1 else [0.0]):
        picture = _slice(anatomy, lesion, middle + 0.08 * offset, offset, rng)
        path = f"{label}/{name}_{i}.png"
        Image.fromarray(np.round(255 * picture).astype(np.uint8)).save(folder / path)
        rows.append([path, label, name, anatomy.domain])
    return rows


def _anatomy(size: int, rng: np.random.Generator) -> _Anatomy:
    domain = "AB"[int(rng.integers(2))]
    x, y = grid(size)
    c = rng.normal(0, 0.12, 5)
    return _Anatomy(
        axes=(rng.uniform(0.62, 0.74), rng.uniform(0.76, 0.88)),
        turn=rng.normal(0, 0.10),
        centre=(rng.normal(0, 0.03), rng.normal(0, 0.03)),
        skull=rng.uniform(0.045, 0.075),
        ventricles=rng.uniform(0.7, 1.4),
        folds=field(size, rng.uniform(4.0, 5.5), rng),
        texture=field(size, 2.0, rng),
        domain=domain,
        gamma=rng.normal(0.95 if domain == "A" else 1.25, 0.08),
        blur=rng.uniform(0.4, 0.7) if domain == "A" else rng.uniform(0.8, 1.3),
        noise=rng.uniform(0.010, 0.025) if domain == "A" else rng.uniform(0.02, 0.045),
        bias=1 + c[0] * x + c[1] * y + c[2] * x * y + c[3] * (x**2 - 0.3) + c[4] * (y**2 - 0.3),
    )


class _Lesion:
    """One tumour: where it sits, and how it looks; drawn smaller towards its ends."""

    def __init__(self, label: str, rng: np.random.Generator, size: int) -> None:
        self.label = label
        self.level = rng.uniform(-0.55, 0.5) if label != "pituitary" else rng.uniform(-0.6, -0.2)
        self.radius = rng.uniform(0.07, 0.22) if label != "pituitary" else rng.uniform(0.06, 0.17)
        self.stretch = rng.uniform(0.8, 1.25)
        self.outline = field(size, 7.0 if label == "glioma" else 12.0, rng)
        self.inside = field(size, 3.0, rng)
        self.bright = {"glioma": rng.uniform(0.62, 0.9), "meningioma": rng.uniform(0.7, 0.95)}.get(
            label, rng.uniform(0.58, 0.85)
        )
        self.core = rng.uniform(0.15, 0.5) if rng.random() < 0.75 else 0.55
        self.angle = rng.uniform(0, 2 * np.pi)
        self.depth = rng.uniform(0.25, 0.72)
        self.falx = rng.random() < 0.25
        self.side = rng.choice([-1.0, 1.0])
        self.shift = rng.normal(0, 0.03, 2)

    def centre(self, width: float, length: float) -> tuple[float, float]:
        """In the head's own coordinates, given the brain's half axes in this slice."""
        if self.label == "glioma":
            return self.depth * width * np.cos(self.angle), self.depth * length * np.sin(self.angle)
        if self.label == "meningioma":
            if self.falx:
                return self.side * 0.8 * self.radius, 0.75 * length * np.sin(self.angle)
            reach = 1 - 0.65 * self.radius / min(width, length)
            return reach * width * np.cos(self.angle), reach * length * np.sin(self.angle)
        return self.shift[0], -0.18 * length + self.shift[1]

    def draw(self, brain: Array, u: Array, v: Array, inside: Array, axes: tuple[float, float], offset: float) -> Array:
        """``brain`` with the tumour, ``offset`` from -1 to 1 through it."""
        radius = self.radius * np.sqrt(1 - 0.5 * offset**2)
        cu, cv = self.centre(*axes)
        rough = {"glioma": 0.30, "meningioma": 0.07, "pituitary": 0.10}[self.label]
        distance = np.hypot((u - cu) * self.stretch, (v - cv) / self.stretch) / radius * (1 + rough * self.outline)
        soft = {"glioma": 0.14, "meningioma": 0.05, "pituitary": 0.08}[self.label]
        mass = step(1 - distance, soft) * inside
        if self.label != "glioma":
            texture = self.bright * (1 + (0.03 if self.label == "meningioma" else 0.10) * self.inside)
            return brain * (1 - mass) + texture * mass
        oedema = step(1.9 - distance, 0.5) * inside
        brain = brain * (1 - 0.35 * oedema)
        core = step(0.62 + 0.15 * self.inside - distance, 0.12)
        ring = self.bright * (1 + 0.12 * self.inside)
        return brain * (1 - mass) + (ring * (1 - core) + self.core * core) * mass


def _slice(anatomy: _Anatomy, lesion: _Lesion, level: float, offset: float, rng: np.random.Generator) -> Array:
    """One picture in [0, 1]; ``level`` runs from the base of the brain (-1) to the vertex (1)."""
    x, y = grid(len(anatomy.folds))
    x, y = x - anatomy.centre[0], y - anatomy.centre[1]
    cos, sin = np.cos(anatomy.turn), np.sin(anatomy.turn)
    u, v = cos * x + sin * y, cos * y - sin * x
    shrink = np.sqrt(1 - 0.55 * max(level, -0.3) ** 2)
    a, b = anatomy.axes[0] * shrink, anatomy.axes[1] * shrink
    head = 1 - np.hypot(u / a, v / b)  # 0 at the skin, 1 in the middle
    depth = head - 1.4 * anatomy.skull - 0.05  # below the inner table of the skull
    inside = step(depth, 0.012)
    brain = _tissue(anatomy, u, v, depth, level)
    width, length = a * (1 - 1.4 * anatomy.skull - 0.05), b * (1 - 1.4 * anatomy.skull - 0.05)
    brain = lesion.draw(brain, u, v, inside, (width, length), offset)
    brain = _vessels(brain, u, v, (width, length), rng)
    scalp = 0.85 * step(head, 0.01) * step(0.05 - head, 0.012)
    picture = scalp + 0.06 * step(head, 0.01) + brain * inside
    picture = smooth(np.clip(picture * anatomy.bias, 0, None), anatomy.blur)
    picture = np.clip(picture, 0, 1.2) ** anatomy.gamma
    real, imaginary = rng.normal(0, anatomy.noise, (2, *picture.shape))
    return np.clip(np.hypot(picture + real, imaginary), 0, 1)  # magnitude images have Rician noise


def _tissue(anatomy: _Anatomy, u: Array, v: Array, depth: Array, level: float) -> Array:
    folds = anatomy.folds
    white = step(depth - 0.10 - 0.07 * folds, 0.02)
    sulci = step(0.05 - depth, 0.02) * step(folds - 0.5, 0.3) + step(0.012 - depth, 0.008)
    brain = (0.36 + 0.13 * white) * (1 + 0.03 * anatomy.texture)
    brain = brain * (1 - 0.75 * np.clip(sulci, 0, 1))
    deep = step(1 - np.hypot((np.abs(u) - 0.16) / 0.09, (v - 0.02) / 0.16), 0.15)  # basal ganglia and thalamus
    brain = brain - 0.09 * deep * (1 - abs(level))
    size = anatomy.ventricles * max(0.0, 1 - (level / 0.75) ** 2)
    if size > 0.05:
        for centre_v, half in ((-0.17, 0.15), (0.17, 0.18)):  # frontal and occipital horns
            bend = 0.055 + 0.35 * (v - 0.0) ** 2
            horn = 1 - np.hypot((np.abs(u) - bend) / (0.045 * size + 1e-3), (v - centre_v) / (half * np.sqrt(size)))
            brain = brain * (1 - 0.75 * step(horn, 0.2))
    if level < -0.2:  # basal cisterns and temporal fossae
        cistern = step(1 - np.hypot(u / 0.20, (v + 0.16) / 0.12), 0.3) * min(1.0, -level)
        brain = brain * (1 - 0.6 * cistern)
    falx = step(0.008 - np.abs(u), 0.006) * step(np.abs(v) - 0.35, 0.05)
    return brain + 0.18 * falx


def _vessels(brain: Array, u: Array, v: Array, axes: tuple[float, float], rng: np.random.Generator) -> Array:
    """Small enhancing vessels and choroid plexus, of no meaning for the class."""
    for _ in range(int(rng.integers(2, 7))):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.95)
        cu, cv, radius = reach * axes[0] * np.cos(angle), reach * axes[1] * np.sin(angle), rng.uniform(0.012, 0.035)
        spot = step(1 - np.hypot(u - cu, v - cv) / radius, 0.3)
        brain = brain + rng.uniform(0.15, 0.45) * spot
    return brain
