"""What all synthetic cohorts share: a folder written whole or not at all, made once for each user, smooth fields."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils import UserError, cache_dir

__all__ = ["cached_cohort", "smooth", "step", "write_cohort"]

Array = NDArray[np.float64]
_log = logging.getLogger("medtl_monai")


def cached_cohort(name: str, make: Callable[[Path], Any]) -> str:
    """Folder of a default cohort, made on first use in the user's cache folder."""
    folder = cache_dir() / "phantoms" / name
    if not (folder / "cohort.json").is_file():
        _log.info(f"no dataset_dir given: making the embedded phantom cohort in {folder}")
        make(folder)
    else:
        _log.info(f"no dataset_dir given: using the embedded phantom cohort in {folder}")
    return str(folder)


def write_cohort(folder: str | Path, about: dict[str, Any], draw: Callable[[Path], None]) -> Path:
    """Let ``draw`` fill a folder, and put it in place with a note of what it was made with.

    Args:
        folder: made whole or not at all; kept if it holds this very cohort, replaced if it holds another.
        about: what the cohort was made with.
        draw: writes the files into the folder that it is given.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds something else than a cohort.
    """
    folder = Path(folder)
    if _made(folder) == about:
        return folder
    if folder.exists() and _made(folder) is None and any(folder.iterdir()):
        raise UserError(f"{folder} holds files that are no phantom cohort: they are left alone; name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        draw(part)
        (part / "cohort.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
        os.chmod(part, 0o755)  # mkdtemp makes folders private
        if _made(folder) != about:  # another process may have been quicker, and its files may be in use
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def step(x: Array, width: float) -> Array:
    """From 0 to 1 around ``x = 0``."""
    return 0.5 * (1 + np.tanh(x / width))


def smooth(image: Array, sigma: float) -> Array:
    """Gaussian filter of a picture through the Fourier transform; ``sigma`` in pixels."""
    kernels = [np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(n)) ** 2) for n in image.shape]
    return np.fft.ifft2(np.fft.fft2(image) * kernels[0][:, None] * kernels[1][None]).real


def _made(folder: Path) -> dict[str, Any] | None:
    """What the cohort in ``folder`` was made with."""
    note = folder / "cohort.json"
    return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
