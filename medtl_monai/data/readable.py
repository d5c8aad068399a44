"""One pass over all images that finds what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..utils import UserError, with_bar
from .leakage import perceptual_hash
from .read.limits import UnreadableError
from .upright import read_grey

__all__ = ["check_readable", "raise_unreadable", "read_all", "why_not"]


def check_readable(items: Sequence[Mapping[str, Any]], *, progress: bool = True) -> dict[str, int]:
    """Read every image once and hash it.

    Args:
        items: with ``image``.
        progress: show a bar.

    Returns:
        The perceptual hash by path.

    Raises:
        UserError: naming the images that cannot be read.
    """
    hashes, failed = read_all(items, progress=progress)
    raise_unreadable(failed, len(items), "images")
    return hashes


def read_all(
    items: Sequence[Mapping[str, Any]], *, progress: bool = True
) -> tuple[dict[str, int], dict[str, Exception]]:
    """Read every image once and hash it; of those that cannot be read, why.

    Args:
        items: with ``image``.
        progress: show a bar.

    Returns:
        The perceptual hash by path, and the error by path.
    """
    hashes: dict[str, int] = {}
    failed: dict[str, Exception] = {}
    for item in with_bar(items, "reading images", progress):
        path = str(item["image"])
        try:
            hashes[path] = perceptual_hash(read_grey(path))
        except Exception as error:  # every reader has its own kinds
            failed[path] = error
    return hashes, failed


def raise_unreadable(failed: Mapping[str, Exception], count: int, what: str) -> None:
    """Stop where files failed; one that says by itself what to do is repeated as it is.

    Raises:
        UserError: naming some of them, with the reasons.
    """
    if not failed:
        return
    only = next(iter(failed.values()))
    if len(failed) == 1 and isinstance(only, UserError) and not isinstance(only, UnreadableError):
        raise only
    shown = ", ".join(f"{path} ({why_not(error, path)})" for path, error in list(failed.items())[:3])
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    raise UserError(
        f"{len(failed)} of {count} {what} cannot be read: {shown}{more}: repair or remove them, and their rows in the "
        "table."
    )


def why_not(error: Exception, path: str) -> str:
    """Why a file cannot be read, in a few words, without its name: the same in training, check and inference."""
    if isinstance(error, UnreadableError):
        return error.reason if error.name == path else f"{error.name}: {error.reason}"  # its mask, say
    words = str(error).partition("\n")[0]
    for name in (path, path.rpartition("#")[0]):  # of an image in a file of several
        words = words.replace(repr(name), "").replace(name, "") if name else words
    words = words.strip(" .:")
    return words[:400] or type(error).__name__
