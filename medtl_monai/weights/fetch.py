"""Downloads that can be interrupted: resumed, checked, and only then given their name."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..utils import UserError

__all__ = ["download"]

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without an answer


def download(url: str, path: Path, *, sha256: str | None = None) -> None:
    """Download ``url`` to ``path`` with a progress bar.

    What has arrived is kept beside it as ``<name>.part``, one for each process of torchrun; the next call goes on from
    there.

    Args:
        url: of the file.
        path: where it goes once it is whole and has the right hash.
        sha256: the expected digest, or its first digits.

    Raises:
        UserError: the server cannot be reached or refuses, the file is cut short, or its hash is another.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rank = os.environ.get("RANK", "0")  # the processes of torchrun must not write into the same part
    part = path.with_name(path.name + (".part" if rank == "0" else f".{rank}.part"))
    try:
        _fetch(url, part)
    except urllib.error.HTTPError as error:
        raise UserError(f"{url} cannot be downloaded (HTTP {error.code} {error.reason}): {_instead(path)}") from error
    except (OSError, http.client.HTTPException) as error:  # no network, time-out, connection cut
        reason = getattr(error, "reason", error)
        raise UserError(f"{url} cannot be downloaded ({reason}): {_instead(path)}") from error
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and not found.startswith(sha256):
        part.unlink()
        raise UserError(
            f"{url} is not the expected file: its SHA-256 should begin {sha256[:8]} and begins {found[:8]}; "
            f"it was not kept: {_instead(path)}"
        )
    os.replace(part, path)


def _fetch(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not have:
            raise
        _keep_whole(part, have, error)
        return
    with answer:
        _receive(answer, part, have if answer.status == 206 else 0)


def _keep_whole(part: Path, have: int, error: urllib.error.HTTPError) -> None:
    """The server has nothing to add: either the part was whole already, or it is of another file."""
    if not error.headers.get("Content-Range", "").endswith(f"/{have}"):
        part.unlink()
        raise OSError("the part that was kept is of another file; call again to start anew") from error


def _receive(answer: Any, part: Path, have: int) -> None:
    """Write the answer behind the first ``have`` bytes of the part."""
    total = int(answer.headers.get("Content-Length", 0)) + have or None
    with (
        part.open("ab" if have else "wb") as file,
        tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=f"downloading {part.stem}") as bar,
    ):
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size < total:
        raise OSError(f"the connection was cut after {size:,} of {total:,} bytes; call again to go on")


def _instead(path: Path) -> str:
    return f"check the network, or put the file at {path} by hand."
