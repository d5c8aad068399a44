"""Handlers of a training run: per-epoch seeds, live progress, checkpoints that a run can go on from."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import set_determinism
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..losses import smoothing_part
from ..model import Model
from ..predictions import relative, write_predictions
from ..utils import MonaiEngine, unwrap, with_bar, write_torch
from .folder import check_room
from .unreadable import readable

__all__ = [
    "Checkpoints",
    "EpochSeed",
    "History",
    "Patience",
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

    def __call__(self, engine: MonaiEngine) -> None:
        set_determinism((self.seed * 100_003 + engine.state.epoch * 1_009 + engine.state.rank) % 2**32)


def as_handler(made: Any) -> Any:
    """``made`` itself: a list of handlers must hold dictionaries for MONAI's tools, also where one stands elsewhere."""
    return made


class History:
    """A progress bar over an epoch's steps; one line in the log, one row in ``rows`` and the same
    scalars in TensorBoard for every epoch.

    The training's loss is told with its parts: the task's own, what label smoothing adds to it, and what each strategy
    adds, so that it can be compared with the validation's, which has none of these. What is not defined, such as the
    AUC of a class that no image has, is ``None``.

    Args:
        validator: the evaluator whose metrics are recorded.
        log_dir: TensorBoard's folder; the first process writes.
        loss: the task's, of logits and labels, a scalar.
    """

    def __init__(self, validator: Engine, log_dir: str, loss: Callable[..., Tensor] | None = None) -> None:
        self.validator, self.log_dir, self.loss = validator, log_dir, loss
        self._parts: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []
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

    def _open(self, engine: MonaiEngine) -> None:
        if engine.state.rank == 0:
            self._writer = SummaryWriter(self.log_dir)

    def _epoch_started(self, engine: Engine) -> None:
        self._losses, self._parts, self._started = [], {}, time.perf_counter()
        self.validator.state.metrics = {}  # an epoch that is not validated has no scores, and not those of one before
        name = f"epoch {engine.state.epoch}/{engine.state.max_epochs}"
        self._bar = with_bar(None, name, total=engine.state.epoch_length)

    def _iteration(self, engine: MonaiEngine) -> None:
        output = engine.state.output
        self._losses.append(output["loss"].item())
        for name, value in self._parts_of(output).items():
            self._parts[name] = self._parts.get(name, 0.0) + float(value)
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

    def _parts_of(self, output: Mapping[str, Any]) -> dict[str, Tensor]:
        """The loss of an iteration by what made it: empty where it is the task's alone."""
        parts = dict(output.get("loss_parts", {}))
        task = parts.pop("task", output["loss"].detach())
        smoothing = None
        if self.loss is not None and not output["image"].is_meta:
            smoothing = smoothing_part(self.loss, output["pred"], output["label"])
        if smoothing is not None:
            parts = {"smoothing": smoothing.mean(), **parts}
            task = task - parts["smoothing"]
        return {"task": task, **parts} if parts else {}

    def _epoch_completed(self, engine: MonaiEngine) -> None:
        self._bar.close()
        state, network = engine.state, unwrap(engine.network)
        count = len(self._losses)
        row = {
            "epoch": state.epoch,
            "train_loss": sum(self._losses) / count,
            **{f"train_loss_{name.replace(' ', '_')}": value / count for name, value in self._parts.items()},
            **{name: _defined(value) for name, value in self.validator.state.metrics.items()},
            "lr": max(group["lr"] for group in engine.optimizer.param_groups),
            "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "seconds": time.perf_counter() - self._started,
        }
        self.rows.append(row)
        if state.rank == 0:
            _log.info(f"epoch {state.epoch}/{state.max_epochs}: {self._said(row)} ({row['seconds']:.0f} s)")
        if self._writer is not None:
            for name, value in row.items():
                if value is not None:
                    self._writer.add_scalar(name.replace("_", "/", 1), value, state.epoch)
            self._writer.flush()

    def _said(self, row: Mapping[str, Any]) -> str:
        parts = " + ".join(f"{name} {row[f'train_loss_{name.replace(chr(32), chr(95))}']:.3f}" for name in self._parts)
        loss = f"train_loss {row['train_loss']:.3f}" + (f" ({parts})" if parts else "")
        scores = [f"{name} {'-' if row[name] is None else f'{row[name]:.3f}'}" for name in row if name[:4] == "val_"]
        return ", ".join([loss, *scores])

    def _close(self, engine: Engine) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Checkpoints:
    """Write ``last.pt`` after every epoch and ``best.pt`` whenever the key metric is higher than ever.

    ``last.pt`` holds everything a run needs to go on; ``previous.pt`` is that of the epoch before. ``best.pt`` holds
    what a model needs to be used: its weights and what it is (:class:`medtl_monai.model.Model`). All are written beside
    and renamed, so that a killed run leaves whole files. Ignite's ``Checkpoint``, on which MONAI's ``CheckpointSaver``
    stands, removes the file of a name before it writes the next one: killed in between, a run would have neither.

    Args:
        folder: where the files go.
        state: what a run goes on from: name to object with ``state_dict``; ``model`` is the network.
        model: what the network is, stored beside its weights.
        validator: the evaluator that has the key metric.
        key_metric: its name among the evaluator's metrics; higher is better.
        snapshot_every: also keep the model of every so many epochs, as ``snapshot1.pt``, ``snapshot2.pt`` and so on.
    """

    def __init__(
        self,
        folder: str,
        state: Mapping[str, Any],
        model: Model,
        validator: Engine,
        key_metric: str,
        snapshot_every: int | None = None,
    ) -> None:
        self.snapshot_every = snapshot_every
        self.folder, self.state, self.about = Path(folder), dict(state), model.to_dict()
        self.validator, self.key_metric = validator, key_metric
        self.best: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Follow a trainer; attach it last."""
        engine.add_event_handler(Events.STARTED, self._check_room)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _check_room(self, engine: MonaiEngine) -> None:
        """``last.pt``, ``previous.pt`` and the next one hold weights and twice as much of the optimizer."""
        if engine.state.rank == 0:
            size = sum(t.numel() * t.element_size() for t in unwrap(self.state["model"]).state_dict().values())
            self.folder.mkdir(parents=True, exist_ok=True)
            check_room(self.folder, (3 * 3 + 1) * size)

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far."""
        return dict(self.best)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the best epoch of a checkpoint."""
        self.best = dict(state)

    def __call__(self, engine: MonaiEngine) -> None:
        value = _defined(self.validator.state.metrics.get(self.key_metric))
        highest = self.best.get("value")
        if highest is None or (value is not None and value > highest):  # before the first validation: the newest
            self.best = {"epoch": engine.state.epoch, "value": value}
        if engine.state.rank == 0:
            self._write(engine, value)

    def _write(self, engine: MonaiEngine, value: float | None) -> None:
        epoch = engine.state.epoch
        model = {"model": unwrap(self.state["model"]).state_dict(), "epoch": epoch}
        model |= {"about": self.about, "key_metric": {"name": self.key_metric, "value": value}}
        if self.best["epoch"] == epoch:
            write_torch(self.folder / "best.pt", model)
        if self.snapshot_every and epoch % self.snapshot_every == 0:
            write_torch(self.folder / f"snapshot{epoch // self.snapshot_every}.pt", model)
        states = {name: unwrap(x).state_dict() if name == "model" else x.state_dict() for name, x in self.state.items()}
        own = {"checkpoints": self.state_dict(), "about": self.about}
        at = {key: getattr(engine.state, key) for key in ("epoch", "iteration", "epoch_length", "max_epochs")}
        last = self.folder / "last.pt"
        if last.is_file():
            _copy(last, last.with_name("previous.pt"))
        write_torch(last, {**states, **own, "trainer": at})


class Patience:
    """Stop a training after some epochs in a row without a better validation.

    Args:
        epochs: how many; ``None``: never.
        checkpoints: which know the best epoch; attach it after them.
    """

    def __init__(self, epochs: int | None, checkpoints: Checkpoints) -> None:
        self.epochs, self.checkpoints = epochs, checkpoints

    def attach(self, engine: Engine) -> None:
        """Look after every epoch, and when a run goes on; attach it after :class:`Resume`, too."""
        if self.epochs is not None:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: MonaiEngine) -> None:
        if self.checkpoints.best and engine.state.epoch - self.checkpoints.best["epoch"] >= self.epochs:
            if engine.state.rank == 0:
                _log.info(f"stopped: {self.epochs} epochs in a row were no better")
            engine.terminate()


class SavePredictions:
    """Write the probabilities of an evaluator's images to ``predictions.csv`` when it is done.

    Args:
        path: the file.
        model: whose classes name the columns.
        root: folder of the images.
    """

    def __init__(self, path: str, model: Model, root: str) -> None:
        self.path, self.model, self.root = path, model, root
        self._images: list[str] = []
        self._rows: list[Tensor] = []
        self._bar: tqdm[Any] = tqdm(disable=True)

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator whose postprocessing gives probabilities."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._bar = with_bar(None, "predicting", total=engine.state.epoch_length)

    def _collect(self, engine: MonaiEngine) -> None:
        for case, output in zip(engine.state.batch, engine.state.output, strict=True):
            if readable(case):
                self._images.append(str(case["image"].meta["filename_or_obj"]))
                self._rows.append(torch.as_tensor(output["pred"]).cpu())
        self._bar.update()

    def _write(self, engine: Engine) -> None:
        self._bar.close()
        if not self._rows:
            return  # nothing could be read, of which LeftOut tells
        probabilities, empty = torch.stack(self._rows).numpy(), [""] * len(self._images)
        names, said = [relative(image, self.root) for image in self._images], self.model.predicted(probabilities)
        unlabelled, classes = [-1] * len(names), self.model.classes
        write_predictions(self.path, names, empty, empty, unlabelled, said, probabilities, classes)
        _log.info(f"{len(self._images)} predictions: {self.path}")


def _defined(value: Any) -> float | None:
    """A metric as a number that JSON can hold; ``None`` where it is not defined, or not there yet."""
    number = float("nan") if value is None else float(value)
    return number if math.isfinite(number) else None


def _copy(path: Path, to: Path) -> None:
    """A second name of a file that is replaced, and never changed; a copy where the file system knows no such names."""
    part = to.with_name(f".{to.name}.link")
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, part)
    part.replace(to)
