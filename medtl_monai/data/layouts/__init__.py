"""The folders of public data sets, as their authors publish them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ...utils import UserError
from ..cases import Cases
from . import (
    acdc,
    bcs_dbt,
    brats,
    chestxray14,
    chexpert,
    decathlon,
    figshare_brain,
    kermany,
    medmnist,
    mini_mias,
    mnms,
    sunnybrook,
    sunnybrook_contours,
)

__all__ = ["LAYOUTS", "about_files", "read_layout", "recognised"]

LAYOUTS: dict[str, ModuleType] = {
    "chestxray14": chestxray14,
    "chexpert": chexpert,
    "kermany": kermany,
    "medmnist": medmnist,
    "bcs_dbt": bcs_dbt,
    "mini_mias": mini_mias,
    "figshare_brain": figshare_brain,
    "brats": brats,
    "acdc": acdc,
    "mnms": mnms,
    "sunnybrook": sunnybrook,
    "sunnybrook_contours": sunnybrook_contours,
    "decathlon": decathlon,
}
"""By name; each has ``matches(root)``, ``read(root, **options)`` and perhaps ``ABOUT``, see :func:`about_files`."""


def recognised(root: Path) -> list[str]:
    """The names of the data sets that the folder looks like, the likeliest first."""
    return [name for name, module in LAYOUTS.items() if module.matches(root)]


def about_files(layout: str) -> tuple[str, ...]:
    """Patterns of the names of files that a layout reads besides images and masks, such as its tables."""
    return getattr(LAYOUTS[layout], "ABOUT", ())


def read_layout(root: Path, layout: str, options: Mapping[str, Any] | None = None, boxes: bool = False) -> Cases:
    """The cases of a known data set.

    With ``boxes`` those layouts that can give each item ``box``, a list of x, y, width and height in pixels.

    Raises:
        UserError: an unknown option, or a folder that does not hold what the layout asks for.
    """
    module, given = LAYOUTS[layout], dict(options or {})
    if not module.matches(root):
        purpose = (module.matches.__doc__ or "").removeprefix("Whether ").rstrip(".")
        held = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
        shown = ", ".join(held[:5]) + " ..." * (len(held) > 5)
        raise UserError(f"{root} does not look like {layout}: expected that {purpose}; found {shown or 'nothing'}.")
    takes = inspect.signature(module.read).parameters
    known = [name for name in takes if name not in ("root", "boxes")]
    _refuse_unknown(layout, list(given), known)
    return module.read(root, **({"boxes": boxes} if "boxes" in takes else {}), **given)


def _refuse_unknown(layout: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(f"the layout {layout} has no option {unknown[0]}: it has {', '.join(known) or 'none'}.")
