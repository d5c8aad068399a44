"""BraTS (Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 benchmark, 2021), 2017 to 2023: a folder for each case."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...utils import UserError
from ..cases import Cases
from ..find import glob
from .common import found

__all__ = ["ABOUT", "CLASSES", "matches", "read"]

ABOUT = ("*survival*.csv", "*mapping*.csv")

CLASSES = ("necrotic core", "oedema", "enhancing tumour")
_SEQUENCES = {"_": ("t1", "t1ce", "t2", "flair"), "-": ("t1n", "t1c", "t2w", "t2f")}  # to 2021, and from 2023
_ENHANCING = {"_": 4, "-": 3}
_SITED = re.compile(r"(brats1[789]_([a-z]+\d*|2013)_.+)_\d+", re.IGNORECASE)  # Brats18_CBICA_AAB_1
_TIMED = re.compile(r"(BraTS-\w+-\d+)-(\d+)")  # BraTS-GLI-00000-000
_SEGMENTATION = re.compile(r"(.+)([-_])seg\.nii(?:\.gz)?")


def matches(root: Path) -> bool:
    """Whether a folder of a case, at the top or below HGG and LGG, is named BraTS... and holds its segmentation."""
    return bool(_cases(root))


def read(root: Path, *, sequence: str | None = None) -> Cases:
    """One item a case, whose ``image`` lists T1, contrast-enhanced T1, T2 and FLAIR, or is one of them.

    The patient is the case without its last number (2017 to 2019, and from 2023 the time point), ``domain`` the
    hospital where the name tells it (2017 to 2019), ``group`` HGG or LGG where there are such folders.

    Args:
        root: the folder.
        sequence: ``t1``, ``t1ce``, ``t2`` or ``flair``: this one alone, as bundles for single images take it.

    Raises:
        UserError: no such sequence, or a case's files are missing.
    """
    if sequence is not None and sequence not in _SEQUENCES["_"]:
        raise UserError(f"sequence must be one of {', '.join(_SEQUENCES['_'])}, got {sequence!r}.")
    items: list[dict[str, Any]] = []
    mark = "_"  # all cases of a set are named alike
    for path, name, mark in _cases(root):
        suffix = path.name.removeprefix(f"{name}{mark}seg")
        files = [path.parent / f"{name}{mark}{sequence}{suffix}" for sequence in _SEQUENCES[mark]]
        sited, timed = _SITED.fullmatch(name), _TIMED.fullmatch(name)
        group = path.parent.parent.name
        items.append(
            {
                "image": _chosen(files, sequence),
                "label": path,
                "patient": (sited or timed or [name, name])[1],
                "domain": sited[2] if sited else None,
                "group": group if group in ("HGG", "LGG") else None,
            }
        )
    return found(root, "brats", items, CLASSES, "segmentation", [1, 2, _ENHANCING[mark]])


def _chosen(files: list[Path], sequence: str | None) -> Path | list[str] | None:
    """All four files, or the one of a sequence; ``None`` unless they are there."""
    if sequence is not None:
        file = files[_SEQUENCES["_"].index(sequence)]
        return file if file.is_file() else None
    return [str(file) for file in files] if all(file.is_file() for file in files) else None


def _cases(root: Path) -> list[tuple[Path, str, str]]:
    """Segmentations, with the name of the case and the mark before ``seg``."""
    files = glob(root, "*/*seg.nii*", "*/*/*seg.nii*")
    named = [(path, _SEGMENTATION.fullmatch(path.name)) for path in files if path.name.lower().startswith("brats")]
    return [(path, name[1], name[2]) for path, name in named if name]
