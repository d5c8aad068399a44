"""Where an image lies in space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Place"]


class Place(NamedTuple):
    """The grid of an image's voxels, in the axes of its file.

    Attributes:
        shape: numbers of voxels along three axes.
        affine: from their indices to mm in RAS+, ``(4, 4)``; ``None`` where nothing tells it.
        spacing: mm along the axes; ``None`` where nothing tells it.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None
    spacing: tuple[float, ...] | None
