"""One pass over all images that finds what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..utils import UserError, with_bar
from .leakage import perceptual_hash
from .upright import read_grey

__all__ = ["check_readable"]


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
    hashes: dict[str, int] = {}
    failed: list[str] = []
    for item in with_bar(items, "reading images", progress):
        path = str(item["image"])
        try:
            hashes[path] = perceptual_hash(read_grey(path))
        except UserError:
            raise
        except Exception as error:  # every reader has its own kinds
            reason = str(error).partition("\n")[0].replace(repr(path), "").replace(path, "").strip(" .:")
            failed.append(f"{path} ({reason[:80] or type(error).__name__})")
    if failed:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise UserError(
            f"{len(failed)} of {len(items)} images cannot be read: {', '.join(failed[:3])}{more}: "
            "repair or remove them, and their rows in the table."
        )
    return hashes
