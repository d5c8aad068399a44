"""Folders of phantoms: made whole or not at all, kept where they are what is asked for."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils import UserError, cache_dir

__all__ = ["cached_cohort", "make_cohort", "write_table"]

_log = logging.getLogger("medtl_monai")
_NOTE = "cohort.json"


def cached_cohort(name: str, make: Callable[[Path], Path]) -> str:
    """Folder of a bundle's default cohort, made by ``make`` on first use in the user's cache folder, and said so."""
    folder = cache_dir() / "phantoms" / name
    if (folder / _NOTE).is_file():
        _log.info(f"no dataset_dir given: using the embedded phantom cohort in {folder}")
    else:
        _log.info(f"no dataset_dir given: making the embedded phantom cohort in {folder}")
        make(folder)
    return str(folder)


def make_cohort(folder: str | Path, about: Mapping[str, Any], draw: Callable[[Path], None]) -> Path:
    """The folder of the cohort ``about``, which ``draw`` fills.

    Args:
        folder: made whole or not at all; kept if it holds this very cohort, replaced if it holds another.
        about: everything that the files depend on, ready for JSON.
        draw: writes the files into the folder that it is given.

    Raises:
        UserError: the folder holds something else than a cohort.
    """
    folder, about = Path(folder), dict(about)
    if _made(folder) == about:
        return folder
    if folder.exists() and _made(folder) is None and any(folder.iterdir()):
        raise UserError(f"{folder} holds files that are no phantom cohort: they are left alone; name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        draw(part)
        (part / _NOTE).write_text(json.dumps(about) + "\n", encoding="utf-8")
        os.chmod(part, 0o755)  # mkdtemp makes folders private
        if _made(folder) != about:  # another process may have been quicker, and its files may be in use
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _made(folder: Path) -> dict[str, Any] | None:
    """What the cohort in ``folder`` was made with."""
    note = folder / _NOTE
    return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
