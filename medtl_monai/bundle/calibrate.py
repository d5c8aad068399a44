"""The step between training and report that calibrates the best model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader
from torch import nn

from ..backbones import anatomy
from ..calibration import fit_calibration, fold_into_head
from ..utils import atomic_path, first_process, unwrap
from .report import predict
from .transfer import load_model, read_checkpoint

__all__ = ["Calibration"]

_log = logging.getLogger("medtl_monai")


class Calibration:
    """Fit scale and offset of the logits on the validation patients and write them into the checkpoint's head.

    See :func:`medtl_monai.calibration.fit_calibration`. The checkpoint keeps them under ``calibration``.

    Args:
        network: of the architecture that ``checkpoint`` holds.
        checkpoint: the best model of the training, which is replaced by its calibrated self.
        settings: of the model: its ``task`` is used.
        loader: of the validation part, unshuffled and without augmentation.
        prepare_batch: moves and normalizes a batch.
        inferer: the one that the model will be used with.
        device: where the network runs.
    """

    def __init__(
        self, network: nn.Module, checkpoint: str, settings: Mapping[str, Any], loader: DataLoader,
        prepare_batch: Callable[..., Any], inferer: Callable[..., Any], *, device: torch.device | str,
    ) -> None:  # fmt: skip
        self.network, self.checkpoint, self.task = network, checkpoint, settings.get("task", "classification")
        self.loader, self.prepare_batch, self.inferer, self.device = loader, prepare_batch, inferer, device

    def run(self) -> None:
        """Calibrate, once: a checkpoint that is calibrated already is left alone."""
        if not first_process():
            return
        content = read_checkpoint(self.checkpoint)
        if "calibration" in content:
            return
        network = load_model(unwrap(self.network), self.checkpoint, device=self.device)
        how = {"device": self.device, "task": self.task, "name": "val"}
        probabilities = predict(network, self.loader, self.prepare_batch, self.inferer, **how)
        labels = np.array([item["label"] for item in self.loader.dataset.data])
        scale, offset = fit_calibration(probabilities, labels, self.task)
        fold_into_head(network.get_submodule(anatomy(network).head), scale, offset)
        content["model"] = network.state_dict()
        content["calibration"] = {"scale": scale.tolist(), "offset": offset.tolist()}
        with atomic_path(self.checkpoint) as part:
            torch.save(content, part)
        numbers = ", ".join(f"{s:.2f} z {o:+.2f}" for s, o in zip(scale, offset, strict=True))
        _log.info(f"calibrated on the validation patients: logits z become {numbers}")
