"""An interrupted training goes on, and equals the uninterrupted one."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..model import Model, read_checkpoint
from ..utils import MonaiEngine, UserError, atomic_path, unwrap
from .folder import is_finished
from .handlers import Checkpoints

__all__ = ["Resume"]

_log = logging.getLogger("medtl_monai")


class Resume:
    """Load ``last.pt`` of an interrupted run when training starts, after the strategy has prepared the network.

    Args:
        path: the checkpoint; ``None`` does nothing.
        checkpoints: the handler that wrote it; its objects are loaded.

    Raises:
        UserError: the file is missing or is no such checkpoint, or belongs to other settings or a finished run.
    """

    def __init__(self, path: str | None, checkpoints: Checkpoints) -> None:
        if path is not None and not Path(path).is_file():
            raise UserError(f"resume: there is no checkpoint {path}: give checkpoints/last.pt of an earlier run.")
        self.path, self.checkpoints = path, checkpoints

    def attach(self, engine: Engine) -> None:
        """Load at ``STARTED``."""
        if self.path is not None:
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: MonaiEngine) -> None:
        content = self._content()
        targets = {**self.checkpoints.state, "checkpoints": self.checkpoints}
        self._check(engine, content, targets)
        try:
            for name, target in targets.items():
                (unwrap(target) if name == "model" else target).load_state_dict(content[name])
        except _UNFIT as error:
            raise UserError(
                f"resume: {self.path} is of a run with another strategy or optimizer: give the same."
            ) from error
        if engine.state.rank == 0:
            self._take_models()
        engine.load_state_dict({key: content["trainer"][key] for key in ("iteration", "epoch_length", "max_epochs")})
        _log.info(f"going on after epoch {engine.state.epoch} of {engine.state.max_epochs}, from {self.path}")

    def _content(self) -> dict[str, Any]:
        """Of the checkpoint, or of the one before where it is damaged."""
        path = Path(str(self.path))
        previous = path.with_name("previous.pt")
        try:
            return read_checkpoint(path)
        except UserError as error:
            if path.name != "last.pt" or not previous.is_file():
                raise
            _log.warning(f"{error} It goes on from {previous.name}, of the epoch before.")
            return read_checkpoint(previous)

    def _check(self, engine: MonaiEngine, content: Mapping[str, Any], targets: Mapping[str, Any]) -> None:
        """Refuse a file that is no ``last.pt``, or is of another training."""
        missing = [name for name in (*targets, "trainer", "about") if name not in content]
        if missing:
            raise UserError(f"resume: {self.path} has no {', '.join(missing)}: give checkpoints/last.pt of a run.")
        if not _is_whole(content):
            raise UserError(
                f"resume: {self.path} holds something else than a training wrote there: give checkpoints/last.pt of a "
                "run, or begin anew in another --output_dir."
            )
        ours, theirs = _compared(self.checkpoints.about), _compared(content["about"])
        differ = [key for key, value in ours.items() if theirs.get(key) != value]
        if differ:
            raise UserError(
                f"resume: {self.path} was trained with other settings ({', '.join(differ)}): give the same."
            )
        self._check_length(engine, content["trainer"])

    def _check_length(self, engine: MonaiEngine, their: Mapping[str, int]) -> None:
        """Refuse a training of another length, and one that is over."""
        epochs, length = engine.state.max_epochs, engine.state.epoch_length
        if their["epoch_length"] != length or their["max_epochs"] != epochs:
            raise UserError(
                f"resume: {self.path} is of a run of {their['max_epochs']} epochs of {their['epoch_length']} steps, "
                f"this run has {epochs} of {length}: give the same data, batch_size and epochs."
            )
        if their["iteration"] >= epochs * length and is_finished(Path(str(self.path)).resolve().parent.parent):
            raise UserError(
                f"resume: {self.path} is of a finished run ({epochs} epochs): there is nothing to go on with."
            )

    def _take_models(self) -> None:
        """Copy the best model so far, and snapshots, into this run's folder: no later epoch may be better."""
        there, folder = Path(str(self.path)).parent, self.checkpoints.folder
        if self.checkpoints.best:
            self._check_best(there / "best.pt")
        for model in (there / "best.pt", *there.glob("snapshot*.pt")):
            if model.is_file() and there.resolve() != folder.resolve():
                with atomic_path(folder / model.name) as part:
                    shutil.copyfile(model, part)

    def _check_best(self, best: Path) -> None:
        """The best model so far must be there to the end."""
        try:
            Model.read(best)
        except UserError as error:
            raise UserError(
                f"resume: {best}, the best model so far, is missing or damaged: begin anew in another --output_dir."
            ) from error


_UNFIT = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)
"""What objects raise at a state that is not of their kind."""


def _is_whole(content: Mapping[str, Any]) -> bool:
    """Whether the parts of a checkpoint that are looked into are of the kind that a training writes."""
    trainer = content["trainer"]
    mappings = all(isinstance(content[name], Mapping) for name in ("about", "trainer", "checkpoints"))
    counts = ("iteration", "epoch_length", "max_epochs")
    numbers = mappings and all(isinstance(trainer.get(key), int) and trainer[key] >= 0 for key in counts)
    return numbers and isinstance(content["about"].get("origin", {}), Mapping)


def _compared(about: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs of one training have in common: of the origin the strategy and the weights, wherever they lie."""
    origin = about.get("origin", {})
    return {**about, "origin": {key: origin.get(key) for key in ("strategy", "weights_sha256")}}
