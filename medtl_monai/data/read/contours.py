"""Masks that are drawn as contours, in the text files of the Sunnybrook Cardiac Data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils import UserError

__all__ = ["INNER", "OUTER", "is_contour", "read_contour"]

INNER, OUTER = "-icontour-manual.txt", "-ocontour-manual.txt"
"""How the files of the left ventricle's inner (endocardial) and outer (epicardial) contour end."""


def is_contour(path: str | Path) -> bool:
    """Whether the file is named as an inner or an outer contour."""
    return str(path).endswith((INNER, OUTER))


def read_contour(path: str | Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The mask ``(H, W)`` that a contour bounds: 1 in the cavity, and 2 in the myocardium around it.

    An inner contour gives the cavity alone; an outer one both, with the inner contour of the same slice beside it.

    Args:
        path: a text file of points, a line ``x y`` each, in pixels to the right of and below the centre of the first
            pixel; the last is joined to the first. Pixels whose centre lies within are in the mask.
        shape: of the image, ``(H, W)``.

    Raises:
        UserError: a line that is no point, fewer than three points, a point outside the image, no inner contour.
    """
    path = Path(path)
    mask = np.zeros(shape, dtype=np.uint8)
    if path.name.endswith(OUTER):
        mask[_inside(path, shape)] = 2
        path = path.with_name(path.name.removesuffix(OUTER) + INNER)
    mask[_inside(path, shape)] = 1
    return mask


def _inside(path: Path, shape: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    from skimage.draw import polygon

    points = _points(path)
    height, width = shape
    inside = ((points >= -0.5) & (points <= [width - 0.5, height - 0.5])).all(1)
    if not inside.all():
        x, y = points[~inside][0]
        raise UserError(
            f"{path} has the point {x:g} {y:g} outside its image of {width} x {height} pixels: expected pixels of the "
            "slice of the same number; check that contours and images are of one patient."
        )
    return polygon(points[:, 1], points[:, 0], shape)


def _points(path: Path) -> NDArray[np.float64]:
    if not path.is_file():
        raise UserError(f"there is no contour {path}: expected it beside the others of the slice.")
    points = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if line.strip():
            try:
                x, y = map(float, line.split())
            except ValueError:
                raise UserError(
                    f"line {number} of {path} is {line.strip()[:40]!r}: expected a point 'x y' in pixels; "
                    "repair or remove the file."
                ) from None
            points.append((x, y))
    if len(points) < 3:
        raise UserError(
            f"{path} has {len(points)} points: expected a contour of three or more; repair or remove the file."
        )
    return np.array(points)
