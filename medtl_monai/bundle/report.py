"""The end of a run: predictions, metrics with intervals, figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import DataLoader
from torch import nn

from .. import figures
from ..backbones import anatomy
from ..metrics import part_findings, part_metrics, render_metrics
from ..model import Model, read_checkpoint
from ..predictions import class_name, relative, write_predictions
from ..utils import first_process, with_bar, write_json, write_torch
from .domains import tell_domains
from .handlers import History
from .pretrained import load_network
from .record import circumstances, close_record

__all__ = ["Predicted", "Report", "data_format", "install_model", "predict"]

_log = logging.getLogger("medtl_monai")


@dataclass(frozen=True)
class Predicted:
    """Probabilities ``(N, C)`` of the items of one part, in the order of its loader."""

    loader: DataLoader
    probabilities: np.ndarray

    @property
    def items(self) -> list[dict[str, Any]]:
        """The datalist items."""
        return list(cast("Any", self.loader.dataset).data)

    @property
    def labels(self) -> np.ndarray:
        """Labels ``(N,)``; of findings that may stand together ``(N, C)``, 1, 0 or NaN for unknown."""
        return np.array([item["label"] for item in self.items])

    @property
    def patients(self) -> list[str]:
        """The patient of each item; the image itself where an item has none."""
        return [str(item.get("patient", item["image"])) for item in self.items]


def predict(
    network: nn.Module, loader: DataLoader, model: Model, *, device: torch.device | str, name: str = ""
) -> np.ndarray:
    """Probabilities ``(N, C)`` of a loader's images, in its order, with a progress bar."""
    network.eval()
    prepare_batch, inferer = model.prepare_batch(), model.inferer()
    outputs = []
    with torch.no_grad():
        for batch in with_bar(loader, f"predicting {name}".strip()):
            image, _ = prepare_batch(batch, device)
            tell_domains(network, batch.get("domain"))
            logits = inferer(image, network).float()
            outputs.append((logits.sigmoid() if model.task == "multilabel" else logits.softmax(1)).cpu())
    return torch.cat(outputs).double().numpy()


class Report:
    """Everything that a finished training, or an evaluation, writes into ``output_dir``.

    Args:
        model: that is scored.
        output_dir: the run's folder.
        checkpoint: its weights.
        root: folder of the data, in which images are named.
        loaders: part name to loader, unshuffled and without augmentation.
        device: where the network runs.
        seed: of the bootstrap.
        history: the training's, for the learning curves.
        parts: names of the parts that are scored; ``None``: all.
        save_to: folder that also gets the model, as a bundle's tools look for it; ``None``: none.
    """

    def __init__(
        self, model: Model, output_dir: str, checkpoint: str, root: str | Path,
        loaders: Mapping[str, DataLoader | None],
        *, device: torch.device | str, seed: int, history: History | None = None,
        parts: Sequence[str] | None = None, save_to: str | None = None,
    ) -> None:  # fmt: skip
        self.model, self.folder, self.checkpoint = model, Path(output_dir), checkpoint
        self.classes, self.root = list(model.classes), root
        self.loaders = {name: loader for name, loader in loaders.items() if loader is not None and len(loader)}
        if parts is not None:
            self.loaders = {name: loader for name, loader in self.loaders.items() if name in parts}
        self.device, self.seed, self.history, self.save_to = device, seed, history, save_to

    def write(self) -> None:
        """Score every part with the checkpoint's weights; write tables and figures; print the metrics."""
        if not first_process():
            return
        content = read_checkpoint(self.checkpoint)
        if "about" in content:
            calibrated = Model.from_dict(content["about"]).calibration
            self.model = self.model.changed(calibration=calibrated)
        metrics = self.score(load_network(self.model, self.checkpoint, device=self.device))
        kept = self._kept(content, metrics)
        write_json(self.folder / "metrics.json", {**metrics, "run": circumstances(self.device)})
        if self.save_to is not None:
            install_model(self.checkpoint, self.save_to)
        epoch = f"epoch {kept['epoch']} of {kept['of']}, " if kept else ""
        print(f"\n{render_metrics(metrics)}\n{epoch}{self.model.views()}\n")
        self._tell(kept)
        _log.info(f"metrics: {self.folder / 'metrics.json'}; figures: {self.folder / 'figures'}")
        close_record(str(self.folder), self.device, model=self.model.to_dict(), **({"kept": kept} if kept else {}))

    def _kept(self, content: Mapping[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
        """Which epoch was kept, and why; what the validation part was used for is said beside its scores."""
        if self.history is None or not self.history.rows:
            return {}
        rows, best = self.history.rows, content.get("epoch")
        figures.learning_curves(rows, self.folder / "figures" / "learning_curves.png", best_epoch=best)
        training = {"epochs": rows, "best_epoch": best, "trainable_parameters": rows[-1]["trainable"]}
        metrics["training"] = training
        key = content.get("key_metric", {})
        used = ["chose the epoch"] * (key.get("value") is not None and len(rows) > 1)
        used += ["calibrated"] * (self.model.calibration is not None)
        if "val" in metrics and used:
            metrics["val"]["used_for"] = used
        return {"epoch": best, "of": len(rows), **key}

    def _tell(self, kept: Mapping[str, Any]) -> None:
        calibrated = self.model.calibration is not None
        views = f"scored with {self.model.views()}"
        if not kept:
            _log.info(views)
            return
        if kept["value"] is None:
            _log.warning(
                f"kept: epoch {kept['epoch']} of {kept['of']}, the last: {kept['name']} is not defined; {views}"
            )
            return
        if kept["of"] == 1:
            done = "; the validation part calibrated it, so its scores are optimistic" * calibrated
            _log.info(f"kept: the only epoch{done}; {views}")
            return
        also = ", and calibrated the model" * calibrated
        _log.info(
            f"kept: epoch {kept['epoch']} of {kept['of']}, with the highest {kept['name']}, {kept['value']:.3f}; the "
            f"validation part chose it{also}, so its scores are optimistic; {views}"
        )
        if kept["epoch"] == 1:
            _log.warning("the first epoch was kept: training on made it worse; try a smaller lr")
        elif kept["epoch"] == kept["of"]:
            _log.warning("the last epoch was kept: it may not have been enough of them; try more epochs")

    def score(self, network: nn.Module) -> dict[str, Any]:
        """The metrics of every part; its tables and figures are written on the way."""
        found = {
            name: Predicted(loader, predict(network, loader, self.model, device=self.device, name=name))
            for name, loader in self.loaders.items()
        }
        score = part_findings if self.model.task == "multilabel" else part_metrics
        metrics = {
            name: score(part.probabilities, part.labels, part.patients, self.classes, seed=self.seed)
            for name, part in found.items()
        }
        self._write_predictions(found)
        for name, part in found.items():
            self._draw(name, part, metrics[name], network)
        return metrics

    def _write_predictions(self, found: Mapping[str, Predicted]) -> None:
        probabilities = np.concatenate([part.probabilities for part in found.values()])
        write_predictions(
            self.folder / "predictions.csv",
            [relative(item["image"], self.root) for part in found.values() for item in part.items],
            [patient for part in found.values() for patient in part.patients],
            [name for name, part in found.items() for _ in part.items],
            np.concatenate([part.labels for part in found.values()]),
            self.model.predicted(probabilities),
            probabilities,
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
        if self.model.task == "multilabel":
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
        predicted, multilabel = part.probabilities.argmax(1), self.model.task == "multilabel"
        truth = [class_name(label, self.classes) for label in part.labels[chosen]]
        captions = [
            f"{Path(part.items[i]['image']).name}\n{name}, predicted {self.classes[predicted[i]]} "
            f"({part.probabilities[i, predicted[i]]:.0%})"
            for i, name in zip(chosen, truth, strict=True)
        ]
        said = part.probabilities[chosen] > 0.5 if multilabel else predicted[chosen]
        right = [bool(np.all((s == y) | np.isnan(y))) for s, y in zip(said, part.labels[chosen], strict=True)]
        figures.case_grid(
            [picture[: self.model.channels].mean(0).numpy() for picture in pictures],
            captions,
            path,
            title=title,
            correct=right,
            overlays=self._heat(network, pictures, predicted[chosen], [part.items[i].get("domain") for i in chosen]),
        )

    def _heat(
        self, network: nn.Module, pictures: torch.Tensor, classes: np.ndarray, domains: Sequence[str | None]
    ) -> list[Any] | None:
        """Where each of ``pictures`` ``(N, C, *spatial)`` speaks for its class; nothing where the network keeps no
        map."""
        batch, _ = self.model.prepare_batch()({"image": pictures}, self.device)
        batch = batch if self.model.takes_pairs else batch[:, : self.model.channels]
        tell_domains(network, domains)
        blocks = [block.prefixes[-1] for block in anatomy(network).blocks[:-1]]
        layer = figures.last_map(network, blocks, batch)
        return None if layer is None else list(figures.grad_cam(network, layer, batch, classes.tolist()))


def install_model(checkpoint: str | Path, folder: str | Path) -> None:
    """Put a trained model where a bundle's tools look for it, and make the bundle's metadata say what it is.

    ``model.pt`` is a plain state dict, as MONAI's tools load it; ``model.json`` beside it holds the model.

    Args:
        checkpoint: ``best.pt`` of a run.
        folder: ``models`` of the bundle.
    """
    folder, content = Path(folder), read_checkpoint(checkpoint)
    model = Model.read(checkpoint)
    write_torch(folder / "model.pt", content["model"])
    write_json(folder / "model.json", model.to_dict())
    path = folder.parent / "configs" / "metadata.json"
    if path.is_file():
        metadata = json.loads(path.read_text(encoding="utf-8"))
        made = data_format(model)
        for side, name in (("inputs", "image"), ("outputs", "pred")):
            metadata["network_data_format"][side][name] |= made[side][name]
        if model.task == "segmentation":
            metadata["pred_classes"] = f"one channel a class: {', '.join(model.classes)}"
        write_json(path, metadata)
    _log.info(f"the model is at {folder / 'model.pt'}; {path.name} says its classes and its size")


def data_format(model: Model) -> dict[str, Any]:
    """``network_data_format`` of a bundle's metadata: what the network takes and gives."""
    (channels, *side), count = model.input_shape, len(model.classes)
    image = {
        "num_channels": channels,
        "spatial_shape": side,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(k): "image" if k == 0 else f"image {k}" for k in range(channels)},
    }
    maps = model.learns == "segmentation"
    pred = {
        "type": "image" if maps else "probabilities",
        "format": "segmentation" if maps else "classes",
        "num_channels": count,
        "spatial_shape": side if maps else [1, count],
        "dtype": "float32",
        "value_range": [] if maps else [0, 1],
        "is_patch_data": False,
        "channel_def": {str(k): name for k, name in enumerate(model.classes)},
    }
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}
