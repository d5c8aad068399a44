"""The folder of a run: whose it is, what is in it already, and whether there is room."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..utils import UserError

__all__ = ["check_room", "claim", "is_finished", "last_checkpoint", "release"]

_log = logging.getLogger("medtl_monai")
_locks: dict[Path, int] = {}

_FREE = (
    *("bundle_root", "output_dir", "resume", "dataset_dir", "weights", "device", "num_workers", "cache_dir"),
    "save_to_models",
)
"""Keys that may differ when a training goes on: data and weights are compared by their hashes."""

_HASHES = ("split_sha256", "data_sha256")
_OURS = ("run.json", "split.csv", "leakage.json", "load_report.json", "predictions.csv", "metrics.json", "failed.csv")
"""Files that a run writes after its ``config.json``."""


def claim(folder: Path, config: Mapping[str, Any], data: Mapping[str, Any] | None, resume: str | None) -> None:
    """Make ``folder`` this run's own: nobody else writes into it, and what it holds is of this very run, unfinished.

    Args:
        folder: of the run.
        config: as ``config.json`` holds it.
        data: what ``run.json`` says of the data, if there are labels.
        resume: the checkpoint that the run goes on from.

    Raises:
        UserError: the folder cannot be written, another process writes into it, it holds another run or files of the
            user's that a run would replace, or ``resume`` is of a run with other settings or data.
    """
    _refuse_results(folder, resume)
    if resume is not None or (folder / "config.json").exists():
        source = folder if resume is None else Path(resume).resolve().parent.parent
        _compare(source, config)
        if data is not None:
            _compare_data(source, data)
    _lock(folder)
    for part in _left_over(folder):
        part.unlink(missing_ok=True)


def _refuse_results(folder: Path, resume: str | None) -> None:
    """Refuse a folder whose files would be replaced: of a run that does not go on, or of the user."""
    if (folder / "config.json").exists():
        if is_finished(folder) or (resume is None and last_checkpoint(folder) is not None):
            raise UserError(
                f"{folder} already holds a run: give another --output_dir, or --resume its checkpoints/last.pt."
            )
        return
    foreign = [name for name in _OURS if (folder / name).exists()]
    if foreign:
        raise UserError(
            f"output_dir {folder} holds no run, but files that one would replace ({', '.join(foreign)}): give another."
        )


def is_finished(folder: Path) -> bool:
    """Whether a run has come to its end: a training is over once its metrics are written."""
    record = _read(folder / "run.json")
    trained = (folder / "checkpoints").is_dir()
    return record.get("state") == "finished" and not (trained and not (folder / "metrics.json").is_file())


def last_checkpoint(folder: Path) -> Path | None:
    """What an unfinished training goes on from."""
    found = (folder / "checkpoints" / name for name in ("last.pt", "previous.pt"))
    return next((path for path in found if path.is_file()), None)


def release(folder: Path) -> None:
    """Let others write into a run's folder."""
    handle = _locks.pop(folder.resolve(), None)
    if handle is not None:
        (folder / ".lock").unlink(missing_ok=True)
        os.close(handle)


def check_room(folder: Path, needed: int) -> None:
    """Refuse to begin what would fill the disk.

    Args:
        folder: where the files go.
        needed: bytes.

    Raises:
        UserError: there are fewer.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has room for {free / 1e6:.0f} MB, and the checkpoints of this run take {needed / 1e6:.0f} MB: "
            "make room, or give another --output_dir."
        )


def _lock(folder: Path) -> None:
    if folder in _locks:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _open(folder / ".lock")
    except OSError as error:
        raise UserError(
            f"output_dir {folder} cannot be written to ({error.strerror}): give the name of another folder."
        ) from error
    if handle is None:
        raise UserError(f"another process is writing into {folder}: wait for its end, or give another --output_dir.")
    _locks[folder] = handle


def _open(path: Path) -> int | None:
    """The file of a lock, which this process has from now on; nothing where another one has it.

    The lock is of this process alone: one that loads images, and outlives it for a moment, does not hold it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = path.stat().st_ino == os.fstat(handle).st_ino  # and not taken away by the one who had it
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.ENOENT):
            return None
        raise
    if there:
        return handle
    os.close(handle)
    return None


def _left_over(folder: Path) -> Iterator[Path]:
    """Files that a killed process had not given their names yet; what the user may keep there is called otherwise."""
    for path in (*folder.glob(".*"), *folder.glob("*/.*")):
        if re.fullmatch(r"\..+(\.\w+)\.[a-z0-9_]{8}\1", path.name) and path.is_file():
            yield path


def _compare(source: Path, config: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under other settings."""
    if not (source / "config.json").is_file():
        raise UserError(f"resume: {source} has no config.json: give checkpoints/last.pt in the folder of its run.")
    begun = _read(source / "config.json")
    if not begun:
        raise UserError(
            f"resume: {source / 'config.json'} is damaged, so that nothing says which run it is: give another "
            "--output_dir for a new run."
        )
    differ = _differences(begun, config)
    if differ:
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise UserError(
            f"resume: the run in {source} has other settings ({', '.join(differ[:4])}{more}): give the same, or "
            "another --output_dir for a new run."
        )


def _compare_data(source: Path, data: Mapping[str, Any]) -> None:
    """Refuse to go on with a run on other data."""
    if not (source / "run.json").exists() and last_checkpoint(source) is None:
        return  # it was ended before it had begun
    theirs = _read(source / "run.json").get("data")
    if not isinstance(theirs, dict) or not {*_HASHES} & {*data} <= {*theirs}:
        raise UserError(
            f"resume: {source / 'run.json'} is missing or damaged, so that nothing says of what data the run is: give "
            "another --output_dir for a new run."
        )
    if any(theirs[key] != data[key] for key in _HASHES if key in data):
        raise UserError(
            f"resume: images, labels, patients or parts are not those of the run in {source}: give the same data, or "
            "another --output_dir for a new run."
        )


_TYPED = "strategy_def::exact"  # whether the strategy, which is compared itself, was typed


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two configurations say otherwise, in words."""
    old, new = (dict(_leaves({key: one[key] for key in one if key not in _FREE})) for one in (then, now))
    differ = (key for key in {**old, **new} if old.get(key) != new.get(key) and key != _TYPED)
    return [f"{key} {_short(new.get(key))} instead of {_short(old.get(key))}" for key in differ]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _leaves(one, f"{name}::{key}" if name else str(key))
    else:
        yield name, value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:37]}..."


def _read(path: Path) -> dict[str, Any]:
    """A file of JSON; nothing where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
