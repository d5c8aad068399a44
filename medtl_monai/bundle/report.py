"""The end of a run: predictions, metrics with intervals, figures."""

from __future__ import annotations

import logging
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite
import monai
import numpy as np
import torch
from monai.data import DataLoader
from torch import nn
from tqdm import tqdm

from .. import __version__, figures
from ..backbones import anatomy
from ..data import write_split_csv
from ..metrics import part_findings, part_metrics, render_metrics
from ..predictions import class_name, write_predictions
from ..utils import UserError, atomic_path, first_process, unwrap, write_json
from .cases import Parts
from .domains import tell_domains
from .handlers import History
from .start import write_config
from .transfer import Transfer, load_model

__all__ = ["Predicted", "Report", "open_output", "predict"]

_log = logging.getLogger("medtl_monai")
_STARTED = time.perf_counter()


@dataclass(frozen=True)
class Predicted:
    """Probabilities ``(N, C)`` of the items of one part, in the order of its loader."""

    loader: DataLoader
    probabilities: np.ndarray

    @property
    def items(self) -> list[dict[str, Any]]:
        """The datalist items."""
        return list(self.loader.dataset.data)

    @property
    def labels(self) -> np.ndarray:
        """Labels ``(N,)``; of findings that may stand together ``(N, C)``, 1, 0 or NaN for unknown."""
        return np.array([item["label"] for item in self.items])

    @property
    def patients(self) -> list[str]:
        """The patient of each item; the image itself where an item has none."""
        return [str(item.get("patient", item["image"])) for item in self.items]


def open_output(
    output_dir: str,
    bundle_root: str,
    *,
    ready: Any,
    parts: Parts | None = None,
    transfer: Transfer | None = None,
    resume: str | None = None,
) -> None:
    """Make the folder of this run and write what is known before it: configuration, split, leakage, loaded weights.

    Args:
        output_dir: the folder.
        bundle_root: the bundle's folder.
        ready: whatever must have been made before, so that a run that cannot start leaves nothing behind.
        parts: the split, if there are labels.
        transfer: what was loaded, if anything was.
        resume: the checkpoint that the run goes on from.

    Raises:
        UserError: the folder holds another run's results.
    """
    if not first_process():
        return
    folder = Path(output_dir)
    if (folder / "config.json").exists() and (
        resume is None or Path(resume).resolve().parent.parent != folder.resolve()
    ):
        raise UserError(
            f"{folder} already holds a run: give another --output_dir, or --resume its checkpoints/last.pt."
        )
    write_config(output_dir, bundle_root)
    if parts is not None:
        write_split_csv(folder / "split.csv", parts.items, parts.names)
        parts.leakage.save(folder / "leakage.json")
    if transfer is not None:
        transfer.report.save(folder / "load_report.json")
    _log.info(f"everything of this run goes to {folder}")


def predict(
    network: nn.Module, loader: DataLoader, prepare_batch: Callable[..., Any], inferer: Callable[..., Any],
    *, device: torch.device | str, task: str = "classification", name: str = "",
) -> np.ndarray:  # fmt: skip
    """Probabilities ``(N, C)`` of a loader's images, in its order, with a progress bar.

    Of classes by softmax; of findings that may stand together (``task`` ``multilabel``) by a sigmoid each.
    """
    network.eval()
    outputs = []
    with torch.no_grad():
        for batch in tqdm(loader, desc=f"predicting {name}".strip(), leave=False):
            image, _ = prepare_batch(batch, device)
            tell_domains(network, batch.get("domain"))
            logits = inferer(image, network).float()
            outputs.append((logits.sigmoid() if task == "multilabel" else logits.softmax(1)).cpu())
    return torch.cat(outputs).double().numpy()


class Report:
    """Everything that a finished training, or an evaluation, writes into ``output_dir``.

    Args:
        output_dir: the run's folder.
        network: of the architecture that ``checkpoint`` holds.
        checkpoint: the weights that are scored.
        settings: of the model: its ``classes``, ``channels`` and ``task`` are used here.
        loaders: part name to loader, unshuffled and without augmentation.
        prepare_batch: moves and normalizes a batch.
        inferer: MONAI's.
        device: where the network runs.
        seed: of the bootstrap.
        history: the training's, for the learning curves.
        save_to: also write the checkpoint there (the bundle's ``models/model.pt``).
    """

    def __init__(
        self, output_dir: str, network: nn.Module, checkpoint: str, settings: Mapping[str, Any],
        loaders: Mapping[str, DataLoader | None], prepare_batch: Callable[..., Any], inferer: Callable[..., Any],
        *, device: torch.device | str, seed: int, history: History | None = None, save_to: str | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.network, self.checkpoint = Path(output_dir), network, checkpoint
        self.classes, self.task = list(settings["classes"]), settings.get("task", "classification")
        # then even of pairs the network sees one
        self.one_side = settings.get("crop_size") is not None or settings.get("lesion_map", False)
        self.channels = settings["channels"]
        self.loaders = {name: loader for name, loader in loaders.items() if loader is not None and len(loader)}
        self.prepare_batch, self.inferer, self.device = prepare_batch, inferer, device
        self.seed, self.history, self.save_to = seed, history, save_to

    def write(self) -> None:
        """Score every part with the checkpoint's weights; write tables and figures; print the metrics."""
        if not first_process():
            return
        trainable = sum(p.numel() for p in unwrap(self.network).parameters() if p.requires_grad)
        metrics = self.score(load_model(unwrap(self.network), self.checkpoint, device=self.device))
        if self.history is not None and self.history.rows:
            best = torch.load(self.checkpoint, map_location="cpu", weights_only=True).get("epoch")
            figures.learning_curves(self.history.rows, self.folder / "figures" / "learning_curves.png", best_epoch=best)
            metrics["training"] = {"epochs": self.history.rows, "best_epoch": best, "trainable_parameters": trainable}
        write_json(self.folder / "metrics.json", {**metrics, "run": _circumstances(self.device)})
        if self.save_to is not None:
            with atomic_path(self.save_to) as file:
                shutil.copyfile(self.checkpoint, file)
            _log.info(f"the model is at {self.save_to}")
        print(f"\n{render_metrics(metrics)}\n")
        _log.info(f"metrics: {self.folder / 'metrics.json'}; figures: {self.folder / 'figures'}")

    def score(self, network: nn.Module) -> dict[str, Any]:
        """The metrics of every part; its tables and figures are written on the way."""
        found = {}
        for name, loader in self.loaders.items():
            how = {"device": self.device, "task": self.task, "name": name}
            found[name] = Predicted(loader, predict(network, loader, self.prepare_batch, self.inferer, **how))
        score = part_findings if self.task == "multilabel" else part_metrics
        metrics = {
            name: score(part.probabilities, part.labels, part.patients, self.classes, seed=self.seed)
            for name, part in found.items()
        }
        self._write_predictions(found)
        for name, part in found.items():
            self._draw(name, part, metrics[name], network)
        return metrics

    def _write_predictions(self, found: Mapping[str, Predicted]) -> None:
        items = [item for part in found.values() for item in part.items]
        write_predictions(
            self.folder / "predictions.csv",
            [item["image"] for item in items],
            [patient for part in found.values() for patient in part.patients],
            np.concatenate([part.labels for part in found.values()]),
            np.concatenate([part.probabilities for part in found.values()]),
            self.classes,
        )

    def _draw(self, name: str, part: Predicted, metrics: Mapping[str, Any], network: nn.Module) -> None:
        if name == "train":
            return
        folder = self.folder / "figures"
        title = f"{name}: {metrics['images']} images, {metrics['patients']} patients"
        curves = (part.probabilities, part.labels, part.patients, self.classes)
        figures.roc_curves(*curves, folder / f"{name}_roc.png", title=title)
        figures.pr_curves(*curves, folder / f"{name}_pr.png", title=title)
        figures.reliability_diagram(part.probabilities, part.labels, folder / f"{name}_reliability.png", title=title)
        if self.task == "multilabel":
            wrong = np.abs(part.probabilities - part.labels)
            order = (-np.nan_to_num(wrong).max(axis=1)).argsort(kind="stable")
        else:
            matrix = metrics["confusion_matrix"]
            figures.confusion_matrix(matrix, self.classes, folder / f"{name}_confusion.png", title=title)
            order = part.probabilities[np.arange(len(part.labels)), part.labels].argsort(kind="stable")
        middle = len(order) // 2
        cases = {"worst": order[:8], "typical": order[max(0, middle - 4) : middle + 4]}
        for kind, chosen in cases.items():
            self._draw_cases(part, chosen, network, folder / f"{name}_{kind}_cases.png", f"{kind} cases of {title}")

    def _draw_cases(self, part: Predicted, chosen: Sequence[int], network: nn.Module, path: Path, title: str) -> None:
        pictures = torch.stack([torch.as_tensor(part.loader.dataset[int(i)]["image"]) for i in chosen])
        batch, _ = self.prepare_batch({"image": pictures}, self.device)
        batch = batch[:, : self.channels] if self.one_side else batch
        tell_domains(network, [part.items[i].get("domain") for i in chosen])
        predicted = part.probabilities.argmax(1)
        heats = figures.grad_cam(network, anatomy(network).blocks[-2].prefixes[-1], batch, predicted[chosen])
        truth = [class_name(label, self.classes) for label in part.labels[chosen]]
        captions = [
            f"{Path(part.items[i]['image']).name}\n{name}, predicted {self.classes[predicted[i]]} "
            f"({part.probabilities[i, predicted[i]]:.0%})"
            for i, name in zip(chosen, truth, strict=True)
        ]
        said = part.probabilities[chosen] > 0.5 if self.task == "multilabel" else predicted[chosen]
        right = [bool(np.all((s == y) | np.isnan(y))) for s, y in zip(said, part.labels[chosen], strict=True)]
        figures.case_grid(
            [picture[: self.channels].mean(0).numpy() for picture in pictures],
            captions,
            path,
            title=title,
            correct=right,
            overlays=heats,
        )


def _circumstances(device: torch.device | str) -> dict[str, Any]:
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
