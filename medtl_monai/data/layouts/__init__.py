"""The folders of public data sets, as their authors publish them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
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

__all__ = ["LAYOUTS", "read_layout"]

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
"""By name; each module has ``matches(root)`` and ``read(root, **options)``."""


def read_layout(
    root: Path, layout: str = "auto", options: Mapping[str, Any] | None = None, boxes: bool = False
) -> Cases | None:
    """The cases of a known data set; ``None`` if ``layout`` is ``auto`` and the folder looks like none.

    With ``boxes`` those layouts that can give each item ``box``, a list of x, y, width and height in pixels.

    Raises:
        UserError: an unknown layout or option, or a folder that does not hold what the layout asks for.
    """
    if layout == "auto":
        layout = next((name for name, module in LAYOUTS.items() if module.matches(root)), "")
        if not layout:
            return None
    elif not LAYOUTS[layout].matches(root):
        purpose = (LAYOUTS[layout].matches.__doc__ or "").removeprefix("Whether ").rstrip(".")
        raise UserError(f"{root} does not look like {layout}: expected that {purpose}.")
    known = [name for name in inspect.signature(LAYOUTS[layout].read).parameters if name not in ("root", "boxes")]
    unknown = [name for name in options or {} if name not in known]
    if unknown:
        raise UserError(f"the layout {layout} has no option {unknown[0]}: it has {', '.join(known) or 'none'}.")
    read = LAYOUTS[layout].read
    asked = {"boxes": boxes} if "boxes" in inspect.signature(read).parameters else {}
    return read(root, **asked, **(options or {}))
