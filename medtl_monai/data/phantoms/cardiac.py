"""A synthetic cohort of cardiac cine MRI, short-axis stacks at two times of the beat, in the layout of ACDC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils import with_bar
from ..stacks import write_nifti
from .cohort import cached_cohort, make_cohort
from .draw import smooth, step

__all__ = ["GROUPS", "cardiac_cohort", "make_cardiac_cohort"]

GROUPS = ("NOR", "DCM", "HCM", "MINF", "RV")
"""Normal, dilated and hypertrophic cardiomyopathy, infarction with low ejection fraction, abnormal right ventricle."""

_VERSION = 1  # of the pictures: a cached cohort of another version is not used
_FRAMES = {"ED": 1, "ES": 10}
_SLICE = 10.0  # distance of slices in mm

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _Heart:
    """One patient: shapes in mm, and the scanner."""

    cavity: float  # radius of the left ventricle's cavity in diastole, at the base
    wall: float
    ejected: float  # share of the left ventricle's volume
    right: float  # size of the right ventricle relative to a normal one
    right_ejected: float
    septum: float  # additional thickness of the septum, relative to the wall
    scar: float  # angle of a thin wall segment that does not move; NaN: none
    length: float
    centre: tuple[float, float]
    turn: float
    oval: float
    pixel: float
    domain: str
    fat: float
    blood: float
    muscle: float
    blur: float
    noise: float
    bias: tuple[float, float]


def cardiac_cohort() -> str:
    """Folder of the default cohort, made on first use in the user's cache folder."""
    return cached_cohort(f"cardiac-v{_VERSION}", make_cardiac_cohort)


def make_cardiac_cohort(
    folder: str | Path, *, patients: int = 30, slices: int = 8, size: int = 128, seed: int = 0, progress: bool = True
) -> Path:
    """Draw a cohort in the layout of ACDC: ``patientNNN/Info.cfg`` and, for ED and ES, NIfTI frames and their ``_gt``.

    Labels are 1 right ventricle, 2 myocardium, 3 left ventricle. Groups take turns (:data:`GROUPS`) and change the
    shapes: DCM is wide, thin and hardly contracts, HCM thick (the septum most), MINF has a thin wall segment that does
    not move, RV a large right ventricle. Two scanners (``Domain`` in Info.cfg) differ in pixel size, contrast, blur and
    noise. The wall keeps its area over the beat; the right ventricle ends above the apex.

    Args:
        folder: made whole or not at all; kept if it holds this very cohort, replaced if it holds another.
        patients: number of patients.
        slices: of a stack, from base to apex.
        size: side of a slice in pixels, of about 2 mm at 128.
        seed: the same seed gives the same files.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds something else than a cohort.
    """
    about = {"version": _VERSION, "patients": patients, "slices": slices, "size": size, "seed": seed}

    def draw(part: Path) -> None:
        for number in with_bar(range(patients), "drawing phantoms", progress):
            rng = np.random.default_rng([seed, number])
            group, name = GROUPS[number % len(GROUPS)], f"patient{number + 1:03d}"
            heart = _heart(group, size, rng)
            (part / name).mkdir()
            affine = np.diag([-heart.pixel, -heart.pixel, _SLICE, 1.0])
            for frame, time in _FRAMES.items():
                image, label = _stack(heart, slices, size, frame == "ES", rng)
                for content, suffix in ((np.round(255 * image).astype(np.int16), ""), (label, "_gt")):
                    write_nifti(part / name / f"{name}_frame{time:02d}{suffix}.nii.gz", content, affine)
            info = {**_FRAMES, "Group": group, "Domain": heart.domain, "NbFrame": 20}
            lines = "".join(f"{key}: {value}\n" for key, value in info.items())
            (part / name / "Info.cfg").write_text(lines, encoding="utf-8")

    return make_cohort(folder, about, draw)


def _heart(group: str, size: int, rng: np.random.Generator) -> _Heart:
    def about(mean: float, spread: float = 0.07) -> float:
        return mean * float(np.exp(rng.normal(0, spread)))

    domain = "AB"[int(rng.integers(2))]
    # cavity, wall, ejected, right, its ejected share, septum
    shape = {
        "NOR": (26, 9, 0.62, 1.0, 0.58, 0.0),
        "DCM": (33, 8, 0.25, 1.1, 0.40, 0.0),
        "HCM": (20, 14, 0.72, 0.9, 0.62, 0.5),
        "MINF": (28, 9, 0.38, 1.0, 0.50, 0.0),
        "RV": (23, 9, 0.58, 1.6, 0.35, 0.0),
    }[group]
    cavity, wall, ejected, right, right_ejected, septum = (about(x) for x in shape)
    return _Heart(
        cavity=cavity,
        wall=wall,
        ejected=min(ejected, 0.85),
        right=right,
        right_ejected=min(right_ejected, 0.85),
        septum=septum,
        scar=rng.uniform(0, 2 * np.pi) if group == "MINF" else np.nan,
        length=about(85),
        centre=(rng.normal(8, 6), rng.normal(0, 6)),
        turn=rng.normal(0.3, 0.25),
        oval=rng.normal(0, 0.04),
        pixel=(1.9 if domain == "A" else 2.2) * 128 / size,
        domain=domain,
        fat=rng.uniform(0.5, 0.9),
        blood=rng.uniform(0.65, 0.8) if domain == "A" else rng.uniform(0.5, 0.65),
        muscle=rng.uniform(0.18, 0.26) if domain == "A" else rng.uniform(0.24, 0.32),
        blur=(0.5 if domain == "A" else 0.8) * size / 128,
        noise=rng.uniform(0.015, 0.03) if domain == "A" else rng.uniform(0.03, 0.05),
        bias=(rng.normal(0, 0.15), rng.normal(0, 0.15)),
    )


def _stack(
    heart: _Heart, slices: int, size: int, systole: bool, rng: np.random.Generator
) -> tuple[Array, NDArray[np.uint8]]:
    """Pictures in [0, 1] and labels, ``(X, Y, slices)``, x towards the patient's left, y towards the back."""
    images, labels = np.empty((size, size, slices)), np.empty((size, size, slices), dtype=np.uint8)
    for i in range(slices):
        image, labels[..., i] = _slice(heart, (i + 0.5) / slices, size, systole, rng)
        real, imaginary = rng.normal(0, heart.noise, (2, *image.shape))
        images[..., i] = np.clip(np.hypot(image + real, imaginary), 0, 1)  # magnitude images have Rician noise
    return images, labels


def _slice(
    heart: _Heart, level: float, size: int, systole: bool, rng: np.random.Generator
) -> tuple[Array, NDArray[np.uint8]]:
    """One slice; ``level`` runs from the base (0) to just past the apex (1)."""
    line = (np.arange(size) + 0.5 - size / 2) * heart.pixel
    x, y = line[:, None] - heart.centre[0], line[None, :] - heart.centre[1]
    cos, sin = np.cos(heart.turn), np.sin(heart.turn)
    u, v = (cos * x + sin * y) * (1 + heart.oval), (cos * y - sin * x) / (1 + heart.oval)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)  # the septum lies at an angle of pi, towards the right ventricle
    endo, epi = _contours(heart, level, angle, systole)
    left = step(endo - radius, 0.6)
    whole = step(epi - radius, 0.6)
    right = _right_ventricle(heart, level, u, v, systole) * (1 - whole)
    image = _chest(heart, x, y, size, rng)
    image = image * (1 - right) + 0.95 * heart.blood * right
    image = image * (1 - whole) + heart.muscle * whole
    image = image * (1 - left) + heart.blood * left
    for side in (0.7, -0.9):  # papillary muscles, which belong to the cavity
        cu, cv = 0.6 * endo.mean() * np.cos(side), 0.6 * endo.mean() * np.sin(side)
        spot = step(0.16 * endo.mean() - np.hypot(u - cu, v - cv), 0.6) * left * (level < 0.75)
        image = image * (1 - spot) + heart.muscle * spot
    image = image * (1 + (heart.bias[0] * x + heart.bias[1] * y) / 100)
    label = np.select([left > 0.5, whole > 0.5, right > 0.5], [3, 2, 1], 0).astype(np.uint8)
    return np.clip(smooth(image, heart.blur), 0, 1), label


def _contours(heart: _Heart, level: float, angle: Array, systole: bool) -> tuple[Array, Array]:
    """Radii of the inner and outer border of the left ventricle's wall at each angle, in mm; 0 beyond the apex."""
    septal = np.clip(-np.cos(angle), 0, None) ** 2
    still = np.zeros_like(angle) if np.isnan(heart.scar) else step(np.cos(angle - heart.scar) - 0.5, 0.15)
    wall = heart.wall * (1 + heart.septum * septal) * (1 - 0.45 * still)
    inner = heart.cavity * np.sqrt(max(0.0, 1 - (level / 0.92) ** 2)) + 0 * angle
    outer = (heart.cavity + wall) * np.sqrt(max(0.0, 1 - level**2))
    if systole:
        area = outer**2 - inner**2
        inner = inner * np.sqrt(1 - heart.ejected * (1 - 0.8 * still))
        outer = np.sqrt(inner**2 + area)
    return inner, outer


def _right_ventricle(heart: _Heart, level: float, u: Array, v: Array, systole: bool) -> Array:
    """A crescent: a disc behind the septum, from which the left ventricle is cut out by the caller."""
    size = 34 * np.sqrt(heart.right) * np.sqrt(max(0.0, 1 - (level / 0.8) ** 2))
    if systole:
        size *= np.sqrt(1 - 0.75 * heart.right_ejected)
    centre = -(0.55 * heart.cavity + 0.4 * heart.wall + 0.35 * size)
    return step(size - np.hypot((u - centre) * 1.15, v / 1.1), 0.6) * (size > 4)


def _chest(heart: _Heart, x: Array, y: Array, size: int, rng: np.random.Generator) -> Array:
    """Chest wall, lungs, liver and fat around the heart."""
    body = step(1 - np.hypot(x / 150, y / 115), 0.01)
    lungs = step(1 - np.hypot((np.abs(x) - 75) / 55, (y - 10) / 85), 0.04)
    liver = step(1 - np.hypot((x + 45) / 75, (y - 75) / 45), 0.05)
    skin = body * step(np.hypot(x / 150, y / 115) - 0.93, 0.01)
    near = step(1 - np.hypot(x / 70, y / 60), 0.1)  # fat and vessels between lungs and heart
    texture = smooth(rng.normal(size=(size, size)), 3 * size / 128)
    image = body * (0.3 + 0.15 * heart.fat * near) * (1 + 0.15 * texture / texture.std())
    image = image * (1 - 0.8 * lungs * (1 - near)) * (1 - 0.5 * liver) + 0.22 * liver * body
    return np.clip(image + heart.fat * 0.6 * skin, 0, None)
