"""The one finder: what below a folder is an image, what is a mask, and what is neither.

Hidden files and folders are left out, DICOM is known by its content, endings count in any case, and links are followed
but keep their own names, as stores give their files names without an ending.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

from ..utils import UserError
from .read.arrays import stored_in

__all__ = [
    "EXTENSIONS",
    "Found",
    "Names",
    "absolute",
    "below",
    "find",
    "glob",
    "is_file",
    "is_there",
    "kinds",
    "looks_like_mask",
    "render_unused",
    "unused",
]

PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm")
EXTENSIONS = (*PICTURES, ".nii", ".nii.gz", ".dcm", ".dicom", ".ima", ".nrrd", ".mha")
"""File names that are taken for images, in any case; besides, DICOM files of any name."""

_SYSTEMS = {
    *("__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "dicomdir"),
}
_MASKS = {
    *("mask", "masks", "label", "labels", "labelmap", "labelmaps", "seg", "segs", "segmentation", "segmentations"),
    *("gt", "groundtruth", "annotation", "annotations", "contour", "contours"),
}
_NOT = {"no", "non", "not", "un", "with", "without"}  # with_mask, no-contour: what an image shows
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NUMBERED_CLASS = re.compile(r"label[ _-]?\d+", re.IGNORECASE)
_NO_IMAGE = re.compile(  # SOP classes: a directory; segmentations; reports, plans and the like
    rb"1\.2\.840\.10008\.(?:1\.3\.10|5\.1\.4\.1\.1\.(?:66(?!\.)|66\.[1356]|11\.|88\.|104\.|481\.[3-9]|9\.))"
)
_SEGMENTATION = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.4")
_META = 1024  # bytes; DICOM's meta information comes first


@dataclass(frozen=True)
class Found:
    """What lies below a folder.

    Attributes:
        images: by their own names, sorted.
        masks: likewise: files whose name, or that of a folder, says so.
        others: files that are neither, likewise.
        hidden: number of hidden files and folders, those of systems and editors, and links to nothing or in a circle.
    """

    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    hidden: int = 0


def find(folder: Path) -> Found:
    """All files below ``folder``, told apart."""
    found, hidden = Found(), Counter[str]()
    for path in below(folder, hidden=hidden):
        kind = _kind(path, folder)
        (found.images if kind == "image" else found.masks if kind == "mask" else found.others).append(path)
    return Found(found.images, found.masks, found.others, hidden.total())


def below(folder: Path, depth: int | None = None, hidden: Counter[str] | None = None) -> list[Path]:
    """The files below ``folder`` that are not hidden, sorted; links are followed, but not in circles.

    Args:
        folder: any.
        depth: how many folders deep, 1 for the folder itself; default: all.
        hidden: counts what is left out.
    """
    return sorted(_walk(folder, depth, Counter() if hidden is None else hidden, ()))


def glob(folder: Path, *patterns: str, deep: bool = False) -> list[Path]:
    """The files below ``folder`` that fit one of the ``patterns`` in any case of letters, sorted.

    Args:
        folder: any.
        patterns: ``*/*seg.nii*`` looks one folder deep.
        deep: match the file's name alone, at any depth.
    """
    wanted = [pattern.lower() for pattern in patterns]
    depth = None if deep else max(pattern.count("/") for pattern in wanted) + 1
    start = len(str(folder).rstrip("/")) + 1
    result = []
    for path in below(folder, depth) if folder.is_dir() else ():
        name = path.name if deep else str(path)[start:].replace(os.sep, "/")
        if any(pattern.count("/") == name.count("/") and fnmatchcase(name.lower(), pattern) for pattern in wanted):
            result.append(path)
    return result


def _walk(folder: Path, depth: int | None, hidden: Counter[str], above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    place = folder.stat()
    above = (*above, (place.st_dev, place.st_ino))
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be opened ({error.strerror}): allow reading it.") from error
    for entry in entries:
        if _is_hidden(entry, above):
            hidden["hidden"] += 1
        elif not entry.is_dir():
            yield Path(entry.path)
        elif depth is None or depth > 1:
            yield from _walk(Path(entry.path), None if depth is None else depth - 1, hidden, above)


def _is_hidden(entry: os.DirEntry[str], above: Collection[tuple[int, int]]) -> bool:
    """Whether it is to be passed over: by its name, or as it is no file, or a link to nothing or to where it lies."""
    if entry.name.startswith((".", "~$")) or entry.name.lower() in _SYSTEMS:
        return True
    try:
        if entry.is_symlink() and entry.is_dir():
            place = entry.stat()
            return (place.st_dev, place.st_ino) in above
        return not (entry.is_dir() or entry.is_file())
    except OSError:  # links that lead to each other
        return True


def _kind(path: Path, root: Path) -> str:
    """``image``, ``mask`` or ``other``, by the ending or, where that says nothing, by the content."""
    name = path.name.lower()
    known = name.endswith(EXTENSIONS)
    if not known or name.endswith((".dcm", ".dicom", ".ima")):
        start = _start(path)
        dicom = start[128:132] == b"DICM"
        if dicom and _SEGMENTATION.search(start):
            return "mask"
        if (dicom and _NO_IMAGE.search(start)) or not (dicom or known):
            return "other"
    return "mask" if looks_like_mask(path.relative_to(root)) else "image"


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_META)
    except OSError:  # what cannot be opened is reported where it is read
        return b""


def looks_like_mask(path: Path) -> bool:
    """Whether a relative path names a mask, or lies in a folder of masks.

    Example:
        >>> [looks_like_mask(Path(p)) for p in ("labelsTr/a.nii.gz", "a/b_GT.png", "unlabeled/a.png", "label_1/a.png")]
        [True, True, False, False]
    """
    folders = (name for name in path.parts[:-1] if not _NUMBERED_CLASS.fullmatch(name))
    return _says_mask(path.name.partition(".nii")[0]) or any(map(_says_mask, folders))


def _says_mask(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    before = ["", *words]
    named = any(word in _MASKS and previous not in _NOT for word, previous in zip(words, before, strict=False))
    return named or ("ground", "truth") in pairwise(words)


class Names:
    """The images below a folder by their names, for tables that do not write them as they are.

    A name is understood if it says one image and no other: with backslashes for slashes; with the folder's own name
    before it; without the ending, or with that of another format; without the folders.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_stem: dict[str, list[Path]] | None = None

    def locate(self, name: str) -> str:
        """The absolute path of ``name``, what follows a ``#`` kept; as the name says where nothing fits."""
        turned = name.replace("\\", "/")
        parts = Path(turned).parts
        ways = [name, turned]
        if self.root.name in parts:  # written from another folder, or on another machine
            ways.append("/".join(parts[parts.index(self.root.name) + 1 :]))
        found = next((place for way in ways if is_there(place := absolute(self.root / way))), None)
        if found is not None:
            return found
        fits = self._alike(turned)
        return str(fits[0]) if len(fits) == 1 else absolute(self.root / turned)

    def near(self, name: str) -> Path | None:
        """An image whose name is like this one."""
        return next(iter(self._alike(name)), None)

    def _alike(self, name: str) -> list[Path]:
        """Images of the same stem: those in the folder that the name says, else in any."""
        file = Path(name)
        if self._by_stem is None:
            self._by_stem = {}
            for path in find(self.root).images:
                self._by_stem.setdefault(stem_of(path.name), []).append(path)
        same = self._by_stem.get(stem_of(file.name), [])
        within = [path for path in same if path.parent == self.root / file.parent]
        return within if within or file.parent != Path(".") else same


def stem_of(name: str) -> str:
    """A file's name without its ending, if that is an image's."""
    ending = next((end for end in sorted(EXTENSIONS, key=len, reverse=True) if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def is_file(path: Path) -> bool:
    """Whether there is such a file; also of names that no file can have, as they are too long or hold NUL."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_there(path: str) -> bool:
    """Whether there is such an image: a file, or a folder that holds a series of DICOM files."""
    file = stored_in(path)
    return is_file(file) or (os.path.isdir(file) and any(map(_is_dicom, below(file, 1))))  # a series


def _is_dicom(path: Path) -> bool:
    return _start(path)[128:132] == b"DICM"


def absolute(path: str | Path) -> str:
    """The path from the root of the file system; links stay as they are named."""
    return os.path.abspath(path)


def unused(found: Found, used: Collection[str], about: Sequence[str] = ()) -> dict[str, int]:
    """What was found and is not used, counted by kind.

    Args:
        found: below a folder.
        used: absolute paths of the files that are used.
        about: patterns of the names of files that tell about the images, such as tables.
    """
    counts: Counter[str] = Counter({"hidden files or folders": found.hidden})
    taken = {str(stored_in(name)) for name in used}
    series = {name for name in taken if os.path.isdir(name)}

    def left(path: Path) -> bool:
        return str(path) not in taken and str(path.parent) not in series

    counts["images"] = sum(map(left, found.images))
    counts["masks"] = sum(map(left, found.masks))
    for path in filter(left, found.others):
        if not any(fnmatchcase(path.name.lower(), pattern.lower()) for pattern in about):
            counts[f"{path.suffix.lower()} files" if path.suffix else "files without an ending"] += 1
    return {kind: count for kind, count in counts.items() if count}


def render_unused(counts: dict[str, int]) -> str:
    """One line for people, of what :func:`unused` counted.

    Example:
        >>> render_unused({"hidden files or folders": 4, "masks": 12})
        'not used: 4 hidden files or folders, 12 masks'
    """
    return f"not used: {', '.join(f'{count} {kind}' for kind, count in counts.items()) or 'nothing'}"


def kinds() -> str:
    """The endings of images, for messages."""
    return ", ".join(extension.removeprefix(".") for extension in EXTENSIONS)
