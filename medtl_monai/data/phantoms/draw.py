"""What the phantoms are drawn with: coordinates, soft edges, random fields."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["field", "grid", "smooth", "step"]

Array = NDArray[np.float64]


def grid(size: int) -> tuple[Array, Array]:
    """Coordinates x ``(1, size)`` and y ``(size, 1)`` from -1 to 1, y pointing down."""
    line = (np.arange(size) + 0.5) / size * 2 - 1
    return line[None, :], line[:, None]


def step(x: Array, width: float) -> Array:
    """From 0 to 1 around ``x = 0``, of any shape."""
    return 0.5 * (1 + np.tanh(x / width))


def field(size: int, sigma: float, rng: np.random.Generator) -> Array:
    """Smooth random field ``(H, W)`` of zero mean and unit variance; ``sigma`` in pixels of a picture of 160."""
    values = smooth(rng.normal(size=(size, size)), sigma * size / 160)
    return (values - values.mean()) / values.std()


def smooth(image: NDArray[np.floating[Any]], sigma: float) -> Array:
    """Gaussian filter of ``(H, W)`` through the Fourier transform; ``sigma`` in pixels."""
    rows, columns = (np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(n)) ** 2) for n in image.shape)
    return np.fft.ifft2(np.fft.fft2(image) * rows[:, None] * columns[None]).real
