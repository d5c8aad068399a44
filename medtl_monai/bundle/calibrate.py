"""The step between training and report that calibrates the best model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from monai.data import DataLoader

from ..backbones import anatomy
from ..calibration import fit_calibration, fold_into_head
from ..model import Model, read_checkpoint
from ..utils import UserError, first_process, write_torch
from .pretrained import load_network
from .report import predict

__all__ = ["Calibration"]

_log = logging.getLogger("medtl_monai")


class Calibration:
    """Fit scale and offset of the logits on the validation patients and write them into the checkpoint's head.

    See :func:`medtl_monai.calibration.fit_calibration`. The model in the checkpoint keeps them as ``calibration``.

    Args:
        model: that is trained.
        checkpoint: the best model of the training, which is replaced by its calibrated self.
        loaders: by part, unshuffled and without augmentation; that of ``val`` is used.
        device: where the network runs.
        wanted: whether to do it.

    Raises:
        UserError: the head does not give the logits of an image, so that nothing can be folded into it.
    """

    def __init__(
        self,
        model: Model,
        checkpoint: str,
        loaders: Mapping[str, DataLoader],
        *,
        device: torch.device | str,
        wanted: bool = True,
    ) -> None:
        if wanted and not model.judges_whole:
            raise UserError("calibrate is for classifiers that judge an image as a whole: leave it out.")
        self.model, self.checkpoint, self.loaders, self.device = model, checkpoint, loaders, device
        self.wanted = wanted

    def run(self) -> None:
        """Calibrate, once: a checkpoint that is calibrated already is left alone."""
        if not self.wanted or not first_process():
            return
        content = read_checkpoint(self.checkpoint)
        if Model.from_dict(content["about"]).calibration is not None:
            return
        network = load_network(self.model, self.checkpoint, device=self.device)
        loader = self.loaders["val"]
        probabilities = predict(network, loader, self.model, device=self.device, name="val")
        labels = np.array([item["label"] for item in cast("Any", loader.dataset).data])
        scale, offset = fit_calibration(probabilities, labels, self.model.task)
        fold_into_head(network.get_submodule(anatomy(network).head), scale, offset)
        content["model"] = network.state_dict()
        content["about"]["calibration"] = {"scale": scale.tolist(), "offset": offset.tolist()}
        write_torch(self.checkpoint, content)
        numbers = ", ".join(f"{s:.2f} z {o:+.2f}" for s, o in zip(scale, offset, strict=True))
        _log.info(f"calibrated on the validation patients: logits z become {numbers}")
