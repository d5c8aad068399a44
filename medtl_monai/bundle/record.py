"""What a run was: ``run.json``, ``run.log`` and ``config.json`` in its folder."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import logging.handlers
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ignite
import monai
import numpy as np
import torch
from monai.bundle import ConfigParser

from .. import __version__
from ..data import Cases, find_images, write_split_csv
from ..data.find import absolute, unused
from ..model import Model
from ..predictions import class_name, relative
from ..strategies import Strategy, describe
from ..utils import first_process, write_json
from ..weights import file_hash
from .cases import Parts
from .folder import claim, release
from .keys import DECIDED
from .pretrained import Transfer
from .workflow import running

__all__ = ["begin_record", "circumstances", "close_record", "configuration", "open_output"]

_log = logging.getLogger("medtl_monai")
_clock = {"began": time.time()}
_LINE = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")


class _Log(logging.handlers.MemoryHandler):
    """Keeps lines until the folder of the run is there, then writes them, and all that follow, to its ``run.log``."""

    def __init__(self) -> None:
        super().__init__(capacity=1_000_000, flushLevel=logging.CRITICAL + 1)

    def begin(self, path: Path) -> None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(_LINE)
        self.setTarget(file)
        self.capacity = 1
        self.flush()

    def close(self) -> None:
        file = self.target
        super().close()
        if file is not None:
            file.close()


def begin_record() -> None:
    """The run's clock starts, and what is logged from now on is kept for ``run.log``.

    What an earlier run in this process kept is over.
    """
    _clock["began"] = time.time()
    for logger in (_log, logging.getLogger()):
        for handler in [handler for handler in logger.handlers if isinstance(handler, _Log)]:
            logger.removeHandler(handler)
            handler.close()
    if first_process():
        log = _Log()
        _log.addHandler(log)
        if not _log.propagate:
            logging.getLogger().addHandler(log)


def open_output(
    output_dir: str,
    bundle_root: str,
    *,
    ready: Any,
    model: Model,
    device: torch.device | str,
    parts: Parts | None = None,
    cases: Cases | None = None,
    images: str | None = None,
    strategy: Strategy | None = None,
    transfer: Transfer | None = None,
    checkpoint: str | Sequence[str] | None = None,
    resume: str | None = None,
) -> None:
    """Make the folder of this run and write what is known before it: the record, configuration, split, leakage, loaded
    weights.

    Args:
        output_dir: the folder.
        bundle_root: the bundle's folder.
        ready: whatever must have been made before, so that a run that cannot start leaves nothing behind.
        model: that is trained or used.
        device: where the network runs.
        parts: the split, if there are labels.
        cases: the labelled images, if there are any.
        images: file or folder of images without labels.
        strategy: of a training.
        transfer: what was loaded, if anything was.
        checkpoint: the trained model that is used, or several.
        resume: the checkpoint that the run goes on from.

    Raises:
        UserError: the folder cannot be written, is in use or holds another run, or ``resume`` is of another.
    """
    if not first_process():
        return
    folder, now = Path(output_dir).resolve(), running()
    config = configuration(bundle_root, strategy)
    data = _images(images) if images is not None else None if parts is None else _data(parts, cases)
    if getattr(now, "opened", None) != folder:  # MONAI's federated client initializes one workflow twice
        claim(folder, config, data, resume)
    if now is not None:
        now.opened = folder
    write_json(folder / "config.json", config)
    record: dict[str, Any] = {"state": "running", "command": _command(), "commit": _commit()}
    record["started"] = _time(_clock["began"])
    record |= _came_from(folder, strategy, transfer, checkpoint, resume)
    if data is not None:
        record["data"] = data
    if parts is not None:
        write_split_csv(folder / "split.csv", _in_words(parts, cases), parts.names)
        parts.leakage.save(folder / "leakage.json")
    write_json(folder / "run.json", {**record, "model": model.to_dict(), "machine": circumstances(device)})
    for handler in _log.handlers:
        if isinstance(handler, _Log):
            handler.begin(folder / "run.log")
    _log.info(f"everything of this run goes to {folder}")


def _came_from(
    folder: Path,
    strategy: Strategy | None,
    transfer: Transfer | None,
    checkpoint: str | Sequence[str] | None,
    resume: str | None,
) -> dict[str, Any]:
    """What the record says of the model's origin; the report of the weights becomes a file."""
    found: dict[str, Any] = {}
    if resume is not None:
        found["resumed"] = str(Path(resume).resolve())
    if strategy is not None:
        found["strategy"] = describe(strategy)
    if transfer is not None:
        report = transfer.report
        report.save(folder / "load_report.json")
        found["weights"] = {"source": report.source, "sha256": report.sha256, "coverage": report.coverage}
    if checkpoint is not None:
        found["checkpoints"] = _hashed([checkpoint] if isinstance(checkpoint, str) else checkpoint)
    return found


def _images(images: str) -> dict[str, Any]:
    """What the record says of images without labels."""
    found = find_images(images)
    left = unused(found, {str(file) for file in found.images})
    return {"folder": absolute(images), "images": len(found.images), "not_used": left}


def _hashed(checkpoints: Sequence[str]) -> list[dict[str, str]]:
    files = [Path(file).resolve() for file in checkpoints]
    return [{"file": str(file), "sha256": file_hash(file)} for file in files]


def close_record(output_dir: str, device: torch.device | str, **more: Any) -> None:
    """Say in ``run.json`` that the run is over, on what machine it ran, how long it took, and what else is told."""
    path = Path(output_dir) / "run.json"
    if not first_process() or not path.is_file():
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    over = {"state": "finished", "finished": _time(time.time())}
    write_json(path, {**record, **more, **over, "machine": circumstances(device)})
    release(path.parent)


def circumstances(device: torch.device | str) -> dict[str, Any]:
    """Versions, device, time and memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cuda = torch.device(device).type == "cuda"
    return {
        "versions": {
            "medtl_monai": __version__,
            "monai": monai.__version__,
            "torch": torch.__version__,
            "ignite": ignite.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": torch.cuda.get_device_name(device)
        if cuda
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "wall_seconds": round(time.time() - _clock["began"], 1),
        "peak_memory_bytes": peak,
        "peak_device_memory_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
    }


def configuration(bundle_root: str, strategy: Strategy | None = None) -> dict[str, Any]:
    """The configuration of this run with its values, with which it can be run again, as ``config.json`` holds it.

    Paths are made absolute. ``output_dir`` and ``resume`` are left at their defaults, so that the run is repeated as a
    whole and into a new folder.

    Args:
        bundle_root: the bundle's folder.
        strategy: of a training: as text it stands in the place of what it was chosen from.

    Returns:
        Plain data; nothing where no configuration is running.
    """
    now = running()
    if now is None:
        return {}
    config = copy.deepcopy(dict(cast("dict[str, Any]", now.parser.config)))
    config.pop(ConfigParser.meta_key, None)
    config |= {key: value for key, value in _decided(now.parser).items() if key in config}
    config["bundle_root"] = str(Path(bundle_root).resolve())
    if strategy is not None and isinstance(config["strategy"], str):
        config["strategy"] = describe(strategy)
    config["output_dir"] = {"_target_": "medtl_monai.bundle.new_output_dir", "bundle_root": "@bundle_root"}
    config |= {key: _absolute(config[key]) for key in _FILES if key in config}
    if "resume" in config:
        config["resume"] = None
    return json.loads(json.dumps(config, default=repr))


def _decided(parser: ConfigParser) -> dict[str, Any]:
    """What became of the keys that follow from the machine or the data, as far as a file can hold it."""
    found = {key: parser.ref_resolver.resolved_content.get(key) for key in DECIDED}
    return {key: value for key, value in found.items() if isinstance(value, (str, bool, int, float, list))}


_FILES = ("dataset_dir", "target_dir", "checkpoint", "weights")


def _absolute(value: Any) -> Any:
    """The whole name of a file or folder that is there; anything else as it is."""
    named = isinstance(value, str) and not value.startswith(("$", "@")) and os.path.exists(value)
    return os.path.abspath(value) if named else value


def _in_words(parts: Parts, cases: Cases | None) -> list[dict[str, Any]]:
    """The items with names in the folder of the data, and with classes by name."""
    root = Path("/") if cases is None else cases.root
    found = []
    for item in parts.items:
        label = item["label"]
        said = relative(label, root) if isinstance(label, str) else class_name(label, parts.classes)
        found.append({**item, "image": relative(str(item["image"]), root), "label": said})
    return found


def _data(parts: Parts, cases: Cases | None) -> dict[str, Any]:
    """What the record says of the data."""
    words = _in_words(parts, cases)
    about: dict[str, Any] = {}
    if cases is not None:
        about = {"folder": str(cases.root), "layout": cases.layout, "why": cases.why, "task": cases.task}
        about |= {"not_used": cases.unused, "doubts": cases.doubts}
    split = (f"{item['image']}\t{name}" for item, name in zip(words, parts.names, strict=True))
    told = (
        "\t".join(map(str, (word["image"], word["label"], item.get("patient"), *map(_size, _files(item)))))
        for word, item in zip(words, parts.items, strict=True)
    )
    hashes = {"split_sha256": _hash_of(split), "data_sha256": _hash_of(told)}
    return {**about, "parts": _counts(parts), **hashes, "leakage": parts.leakage.verdict}


def _hash_of(rows: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def _files(item: Mapping[str, Any]) -> list[str]:
    return [str(item[key]) for key in ("image", "label") if isinstance(item[key], (str, Path))]


def _size(name: str) -> int | None:
    """Bytes of a file, also of one that holds many images (``file#key``)."""
    path = next((name[:i] for i in (len(name), name.rfind("#")) if i > 0 and os.path.exists(name[:i])), None)
    return None if path is None else os.path.getsize(path)


def _counts(parts: Parts) -> dict[str, dict[str, int]]:
    counts = {}
    for name in dict.fromkeys(parts.names):
        items = [item for item, part in zip(parts.items, parts.names, strict=True) if part == name]
        counts[name] = {"cases": len(items), "patients": len({str(item["patient"]) for item in items})}
    return counts


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _command() -> str:
    words = sys.argv
    if words and Path(words[0]).name == "__main__.py":
        words = ["python", "-m", ".".join(Path(words[0]).parent.parts[-2:]), *words[1:]]
    return shlex.join(words)


def _commit() -> str | None:
    """Of the checkout that the package runs from, if it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
