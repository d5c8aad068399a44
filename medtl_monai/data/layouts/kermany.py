"""Paediatric chest radiographs, normal or pneumonia (Kermany et al., Cell 172(5), 2018; Mendeley rscbjbr9sj)."""

from __future__ import annotations

import re
from pathlib import Path

from ...utils import UserError
from ..cases import PARTS, Cases
from ..find import below, find
from .common import found

__all__ = ["CLASSES", "matches", "read"]


CLASSES = ("NORMAL", "PNEUMONIA")
_PNEUMONIA = re.compile(r"(person\d+_(virus|bacteria))_\d+")
_NORMAL = re.compile(r"((?:NORMAL2-)?IM-\d+)-\d+(?:-\d+)?")


def matches(root: Path) -> bool:
    """Whether there are folders NORMAL and PNEUMONIA, at the top or in each part, with files named by person."""
    folders = _folders(root)
    pneumonia = [path for path, label, _ in folders if label == 1]
    return len(folders) >= 2 and any(_PNEUMONIA.match(file.stem) for path in pneumonia for file in below(path, 1))


def read(root: Path) -> Cases:
    """The images of all parts; the patient and the ``subtype`` (virus, bacteria or normal) from the file names.

    The numbers of the persons are counted anew for viral and bacterial pneumonia, so that a patient is a number and a
    subtype. Whether one number is one child is not known.

    Raises:
        UserError: its images are missing, or an option is none of the layout's.
    """
    items = []
    for folder, label, part in _folders(root):
        for path in find(folder).images:
            name = (_PNEUMONIA if label else _NORMAL).fullmatch(path.stem)
            if name is None:
                raise UserError(
                    f"{path.relative_to(root)} tells no patient: expected a name such as "
                    f"{'person1_virus_6' if label else 'IM-0115-0001'}.jpeg, or a table."
                )
            subtype = name[2] if label else "normal"
            items.append({"image": path, "label": label, "patient": name[1], "split": part, "subtype": subtype})
    return found(root, "kermany", items, CLASSES)


def _folders(root: Path) -> list[tuple[Path, int, str | None]]:
    parts = [(root, None), *((path, PARTS.get(path.name)) for path in sorted(root.iterdir()) if path.name in PARTS)]
    paths = [(path / name, label, part) for path, part in parts for label, name in enumerate(CLASSES)]
    return [entry for entry in paths if entry[0].is_dir()]
