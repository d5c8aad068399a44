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
from collections.abc import Sequence
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
from ..utils import UserError, first_process, write_json
from ..weights import file_hash
from .cases import Parts
from .keys import DECIDED
from .transfer import Transfer
from .workflow import running

__all__ = ["circumstances", "close_record", "keep_log", "open_output", "write_config"]

_log = logging.getLogger("medtl_monai")
_STARTED, _BEGAN = time.perf_counter(), time.strftime("%Y-%m-%d %H:%M:%S")
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


def keep_log() -> None:
    """Keep what is logged from now on for ``run.log``; what an earlier run in this process kept is over."""
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
        UserError: the folder holds another run's results.
    """
    if not first_process():
        return
    folder, now = Path(output_dir).resolve(), running()
    goes_on = resume is not None and Path(resume).resolve().parent.parent == folder
    again = getattr(now, "opened", None) == folder  # MONAI's federated client initializes a workflow twice
    if (folder / "config.json").exists() and not goes_on and not again:
        raise UserError(
            f"{folder} already holds a run: give another --output_dir, or --resume its checkpoints/last.pt."
        )
    if now is not None:
        now.opened = folder
    write_config(output_dir, bundle_root, strategy)
    record: dict[str, Any] = {"state": "running", "command": _command(), "commit": _commit(), "started": _BEGAN}
    if strategy is not None:
        record["strategy"] = describe(strategy)
    if transfer is not None:
        report = transfer.report
        record["weights"] = {"source": report.source, "sha256": report.sha256, "coverage": report.coverage}
        report.save(folder / "load_report.json")
    if checkpoint is not None:
        files = [Path(file).resolve() for file in ([checkpoint] if isinstance(checkpoint, str) else checkpoint)]
        record["checkpoints"] = [{"file": str(file), "sha256": file_hash(file)} for file in files]
    if parts is not None:
        write_split_csv(folder / "split.csv", _in_words(parts, cases), parts.names)
        parts.leakage.save(folder / "leakage.json")
        record["data"] = _data(parts, cases)
    elif images is not None:
        found = find_images(images)
        left = unused(found, {str(file) for file in found.images})
        record["data"] = {"folder": absolute(images), "images": len(found.images), "not_used": left}
    write_json(folder / "run.json", {**record, "model": model.to_dict(), "machine": circumstances(device)})
    for handler in _log.handlers:
        if isinstance(handler, _Log):
            handler.begin(folder / "run.log")
    _log.info(f"everything of this run goes to {folder}")


def close_record(output_dir: str, device: torch.device | str, **more: Any) -> None:
    """Say in ``run.json`` that the run is over, on what machine it ran, how long it took, and what else is told."""
    path = Path(output_dir) / "run.json"
    if not first_process() or not path.is_file():
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    over = {"state": "finished", "finished": time.strftime("%Y-%m-%d %H:%M:%S")}
    write_json(path, {**record, **more, **over, "machine": circumstances(device)})


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
        "wall_seconds": round(time.perf_counter() - _STARTED, 1),
        "peak_memory_bytes": peak,
        "peak_device_memory_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
    }


def write_config(output_dir: str, bundle_root: str, strategy: Strategy | None = None) -> None:
    """Write ``config.json``: the configuration of this run with its values, with which it can be run again.

    Paths are made absolute. ``output_dir`` and ``resume`` are left at their defaults, so that the run is repeated as a
    whole and into a new folder.

    Args:
        output_dir: the folder.
        bundle_root: the bundle's folder.
        strategy: of a training: as text it stands in the place of what it was chosen from.
    """
    now = running()
    if now is None:
        return
    config = copy.deepcopy(dict(cast("dict[str, Any]", now.parser.config)))
    config.pop(ConfigParser.meta_key, None)
    for key in DECIDED:
        decided = now.parser.ref_resolver.resolved_content.get(key)
        if key in config and isinstance(decided, (str, bool, int, float, list)):
            config[key] = decided
    config["bundle_root"] = str(Path(bundle_root).resolve())
    if strategy is not None and isinstance(config["strategy"], str):
        config["strategy"] = describe(strategy)
    config["output_dir"] = {"_target_": "medtl_monai.bundle.new_output_dir", "bundle_root": "@bundle_root"}
    for key in ("dataset_dir", "target_dir", "checkpoint", "weights"):
        value = config.get(key)
        if isinstance(value, str) and not value.startswith(("$", "@")) and os.path.exists(value):
            config[key] = os.path.abspath(value)
    if "resume" in config:
        config["resume"] = None
    write_json(Path(output_dir) / "config.json", json.loads(json.dumps(config, default=repr)))


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
    counts = {}
    for name in dict.fromkeys(parts.names):
        items = [item for item, part in zip(parts.items, parts.names, strict=True) if part == name]
        counts[name] = {"cases": len(items), "patients": len({str(item["patient"]) for item in items})}
    about: dict[str, Any] = {}
    if cases is not None:
        about = {"folder": str(cases.root), "layout": cases.layout, "why": cases.why, "task": cases.task}
        about |= {"not_used": cases.unused, "doubts": cases.doubts}
    words = _in_words(parts, cases)
    rows = (f"{item['image']}\t{name}" for item, name in zip(words, parts.names, strict=True))
    split = hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()
    return {**about, "parts": counts, "split_sha256": split, "leakage": parts.leakage.verdict}


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
