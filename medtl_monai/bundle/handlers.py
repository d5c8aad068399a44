"""Handlers of a training run: per-epoch seeds, live progress, checkpoints that a run can go on from."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import set_determinism
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..predictions import write_predictions
from ..utils import UserError, atomic_path, unwrap
from .transfer import read_checkpoint

__all__ = [
    "Checkpoints",
    "EpochSeed",
    "History",
    "Resume",
    "SavePredictions",
    "as_handler",
]

_log = logging.getLogger("medtl_monai")


class EpochSeed:
    """Seed all random generators at the start of every epoch from ``(seed, epoch)``.

    So an epoch does not depend on how the one before it was reached, and a resumed run equals the uninterrupted one.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed at ``EPOCH_STARTED``, before the data loader is asked for an order."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        set_determinism((self.seed * 100_003 + engine.state.epoch * 1_009 + engine.state.rank) % 2**32)


def as_handler(made: Any) -> Any:
    """``made`` itself: a list of handlers must hold dictionaries for MONAI's tools, also where one stands elsewhere."""
    return made


class History:
    """A progress bar over an epoch's steps; one line in the log, one row in ``rows`` and the same
    scalars in TensorBoard for every epoch.

    Args:
        validator: the evaluator whose metrics are recorded.
        log_dir: TensorBoard's folder; the first process writes.
    """

    def __init__(self, validator: Engine, log_dir: str) -> None:
        self.validator, self.log_dir = validator, log_dir
        self.rows: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._started = 0.0
        self._writer: SummaryWriter | None = None
        self._bar: tqdm[Any] = tqdm(disable=True)

    def attach(self, engine: Engine) -> None:
        """Follow a trainer that does not decollate; attach it after the validation handler."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the rows of a checkpoint."""
        self.rows = list(state["rows"])

    def _open(self, engine: Engine) -> None:
        if engine.state.rank == 0:
            self._writer = SummaryWriter(self.log_dir)

    def _epoch_started(self, engine: Engine) -> None:
        self._losses, self._started = [], time.perf_counter()
        name = f"epoch {engine.state.epoch}/{engine.state.max_epochs}"
        self._bar = tqdm(total=engine.state.epoch_length, desc=name, leave=False, disable=engine.state.rank > 0)

    def _iteration(self, engine: Engine) -> None:
        output = engine.state.output
        self._losses.append(output["loss"].item())
        self._bar.set_postfix(loss=f"{self._losses[-1]:.3f}", refresh=False)
        self._bar.update()
        first = (engine.state.iteration - 1) % engine.state.epoch_length == 0
        if first and self._writer is not None and output["image"].ndim == 4 and not output["image"].is_meta:
            image = output["image"][:8].detach().float().cpu()
            image = image[:, : 3 if image.shape[1] == 3 else 1]  # of a pair, the first
            low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
            self._writer.add_images(
                "train/as_the_network_sees_them", (image - low) / (high - low + 1e-6), engine.state.epoch
            )

    def _epoch_completed(self, engine: Engine) -> None:
        self._bar.close()
        state, network = engine.state, unwrap(engine.network)
        row = {
            "epoch": state.epoch,
            "train_loss": sum(self._losses) / len(self._losses),
            **{name: float(value) for name, value in self.validator.state.metrics.items()},
            "lr": max(group["lr"] for group in engine.optimizer.param_groups),
            "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "seconds": time.perf_counter() - self._started,
        }
        self.rows.append(row)
        metrics = ", ".join(f"{name} {row[name]:.3f}" for name in row if name.startswith(("train_", "val_")))
        if state.rank == 0:
            _log.info(f"epoch {state.epoch}/{state.max_epochs}: {metrics} ({row['seconds']:.0f} s)")
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name.replace("_", "/", 1), value, state.epoch)
            self._writer.flush()

    def _close(self, engine: Engine) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Checkpoints:
    """Write ``last.pt`` after every epoch and ``best.pt`` whenever the key metric is higher than ever.

    ``last.pt`` holds everything a run needs to go on. ``best.pt`` holds what a model needs to be used: its weights and
    its settings (architecture, classes, input size and scale). Both are written beside and renamed, so that a killed
    run leaves whole files. MONAI's ``CheckpointSaver`` does neither fixed names an epoch nor atomic writes.

    Args:
        folder: where the files go.
        state: what a run goes on from: name to object with ``state_dict``; ``model`` is the network.
        settings: stored beside the weights under their names; numbers, text and lists of these.
        validator: the evaluator that has the key metric.
        key_metric: its name among the evaluator's metrics; higher is better.
        snapshot_every: also keep the model of every so many epochs, as ``snapshot1.pt``, ``snapshot2.pt`` and so on.
    """

    def __init__(
        self,
        folder: str,
        state: Mapping[str, Any],
        settings: Mapping[str, Any],
        validator: Engine,
        key_metric: str,
        snapshot_every: int | None = None,
    ) -> None:
        self.snapshot_every = snapshot_every
        self.folder, self.state, self.settings = Path(folder), dict(state), dict(settings)
        self.validator, self.key_metric = validator, key_metric
        self.best: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Follow a trainer; attach it last."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far."""
        return dict(self.best)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the best epoch of a checkpoint."""
        self.best = dict(state)

    def __call__(self, engine: Engine) -> None:
        value = float(self.validator.state.metrics.get(self.key_metric, float("nan")))
        highest = self.best.get("value", float("nan"))
        if math.isnan(highest) or value > highest:  # before the first validation: the newest
            self.best = {"epoch": engine.state.epoch, "value": value}
        if engine.state.rank > 0:
            return
        model = {"model": unwrap(self.state["model"]).state_dict(), "epoch": engine.state.epoch}
        model |= {"settings": self.settings, self.key_metric: value}
        if self.best["epoch"] == engine.state.epoch:
            _save(model, self.folder / "best.pt")
        if self.snapshot_every and engine.state.epoch % self.snapshot_every == 0:
            _save(model, self.folder / f"snapshot{engine.state.epoch // self.snapshot_every}.pt")
        states = {name: unwrap(x).state_dict() if name == "model" else x.state_dict() for name, x in self.state.items()}
        own = {"checkpoints": self.state_dict(), "settings": self.settings}
        at = {key: getattr(engine.state, key) for key in ("epoch", "iteration", "epoch_length", "max_epochs")}
        _save({**states, **own, "trainer": at}, self.folder / "last.pt")


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

    def __call__(self, engine: Engine) -> None:
        content = read_checkpoint(self.path)
        targets = {**self.checkpoints.state, "checkpoints": self.checkpoints}
        missing = [name for name in (*targets, "trainer", "settings") if name not in content]
        if missing:
            raise UserError(f"resume: {self.path} has no {', '.join(missing)}: give checkpoints/last.pt of a run.")
        if content["settings"] != self.checkpoints.settings:
            differ = [key for key, value in self.checkpoints.settings.items() if content["settings"].get(key) != value]
            raise UserError(
                f"resume: {self.path} was trained with other settings ({', '.join(differ)}): give the same."
            )
        epochs, length = engine.state.max_epochs, engine.state.epoch_length
        done, its_length = content["trainer"]["iteration"], content["trainer"]["epoch_length"]
        if its_length != length or content["trainer"]["max_epochs"] != epochs:
            raise UserError(
                f"resume: {self.path} is of a run of {content['trainer']['max_epochs']} epochs of {its_length} steps, "
                f"this run has {epochs} of {length}: give the same data, batch_size and epochs."
            )
        if done >= epochs * length:
            raise UserError(
                f"resume: {self.path} is of a finished run ({epochs} epochs): there is nothing to go on with."
            )
        try:
            for name, target in targets.items():
                (unwrap(target) if name == "model" else target).load_state_dict(content[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"resume: {self.path} is of a run with another strategy or optimizer: give the same."
            ) from error
        engine.load_state_dict({"iteration": done, "epoch_length": length, "max_epochs": epochs})
        _log.info(f"going on after epoch {engine.state.epoch} of {epochs}, from {self.path}")


class SavePredictions:
    """Write the probabilities of an evaluator's images to ``predictions.csv`` when it is done.

    Args:
        path: the file.
        classes: names of the probability columns.
    """

    def __init__(self, path: str, classes: Sequence[str]) -> None:
        self.path, self.classes = path, list(classes)
        self._images: list[str] = []
        self._rows: list[Tensor] = []
        self._bar: tqdm[Any] = tqdm(disable=True)

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator whose postprocessing gives probabilities."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._bar = tqdm(total=engine.state.epoch_length, desc="predicting", leave=False)

    def _collect(self, engine: Engine) -> None:
        self._images += [str(case["image"].meta["filename_or_obj"]) for case in engine.state.batch]
        self._rows += [torch.as_tensor(case["pred"]).cpu() for case in engine.state.output]
        self._bar.update()

    def _write(self, engine: Engine) -> None:
        self._bar.close()
        probabilities = torch.stack(self._rows).numpy()
        unlabelled = [-1] * len(self._images)
        write_predictions(self.path, self._images, [""] * len(self._images), unlabelled, probabilities, self.classes)
        _log.info(f"{len(self._images)} predictions: {self.path}")


def _save(content: Mapping[str, Any], path: Path) -> None:
    with atomic_path(path) as part:
        torch.save(content, part)
