"""Two dropout views of segmentations are contrasted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from torch.nn.modules.dropout import _DropoutNd

from ...backbones import anatomy
from ...backbones.tap import Tap
from ...losses import info_nce
from ...utils import UserError, unwrap
from ..base import Step
from ..semi.mean_teacher import MeanTeacher, ramp_up

__all__ = ["SimCVD"]


_POOL: dict[int, Callable[..., Tensor]] = {3: adaptive_avg_pool1d, 4: adaptive_avg_pool2d, 5: adaptive_avg_pool3d}


class SimCVD(MeanTeacher):
    r"""Contrast two dropout views of segmentations, and keep how the places of an image relate to each other.

    - **What it does**: a teacher, the moving average of the network, sees the same images under another dropout mask.
      The boundaries of the two segmentations (p (1 - p) of each structure) shall be likest for the same image of the
      batch, the features of a grid of places likest for the same place, and the predictions equal; more so as training
      goes on. In the paper a second head predicts the boundaries as signed distances; here they are the segmentation's
      own, so that the network stays as it is.
    - **When it helps**: few labelled images; ``target_dir`` adds images without labels, otherwise the training images
      are used.
    - **Cost**: a forward pass of the teacher, a copy of the network, and another pass of the network for images without
      labels.
    - **Settings**: ``contrast``, ``structure`` and ``consistency`` in [0, inf): weights of the three terms, all 0 is
      ``finetune``; ``temperature`` above 0: small looks at the likest rivals alone; ``decay`` in [0, 1): 0 follows at
      once, near 1 slowly.
    - **What it cannot do**: classify; work without dropout in the network (``--variant::dropout 0.1`` gives it some).

    References:
        You, Zhou, Zhao, Staib, Duncan. SimCVD: simple contrastive voxel-wise representation distillation for
        semi-supervised medical image segmentation. IEEE TMI 41(9), 2022.
    """

    needs = ()
    tasks = ("segmentation",)
    places = 8  # of the grid, along each axis

    def __init__(
        self,
        contrast: float = 0.5,
        structure: float = 0.1,
        consistency: float = 0.1,
        temperature: float = 0.5,
        decay: float = 0.99,
    ) -> None:
        super().__init__(consistency, decay)
        if contrast < 0 or structure < 0 or temperature <= 0:
            raise UserError(
                "simcvd: contrast and structure 0 or more, temperature above 0; "
                f"got {contrast}, {structure}, {temperature}."
            )
        self.contrast, self.structure, self.temperature = contrast, structure, temperature
        self._taps: list[Tap] = []

    def prepare(self, network: nn.Module) -> nn.Module:
        """Copy the teacher and listen to both.

        Raises:
            UserError: the network has no dropout.
        """
        if not any(isinstance(module, _DropoutNd) and module.p > 0 for module in network.modules()):
            raise UserError(
                f"simcvd: {type(unwrap(network)).__name__} has no dropout, and so no two views: "
                "give it some, such as --variant::dropout 0.1."
            )
        super().prepare(network)
        head = anatomy(network).head
        self._taps = [Tap(network, head), Tap(self.teacher, head)]
        return network

    def close(self) -> None:
        """Stop listening."""
        for tap in self._taps:
            tap.close()

    def on_forward(self) -> None:
        """Hold on to what the network saw of this batch."""
        self._taps[0].pin()

    def loss(self, step: Step) -> Tensor | None:
        """The three terms, of images without labels where there are some."""
        image, pred = step.image, step.pred
        if self.context.target is not None:
            (image,) = self.context.target.next("augmented")
            pred = step.network(image)
        for module in self.teacher.eval().modules():
            module.train(isinstance(module, _DropoutNd))
        with torch.no_grad():
            wanted = self.teacher(image).float().softmax(1)
        found = pred.float().softmax(1)
        seen = self._taps[0].value if image is step.image else self._taps[0].latest
        kept = self._taps[1].latest
        total = (
            self.contrast * info_nce(_boundaries(found), _boundaries(wanted), self.temperature)
            + self.structure * info_nce(self._grid(seen), self._grid(kept), self.temperature)
            + self.weight * (found - wanted).square().mean()
        )
        return ramp_up(step.progress) * total

    def _grid(self, maps: Tensor) -> Tensor:
        """Features of a grid of places, ``(B, V, C)``."""
        pooled = _POOL[maps.ndim](maps.float(), [min(self.places, n) for n in maps.shape[2:]])
        return pooled.flatten(2).transpose(1, 2)


def _boundaries(probabilities: Tensor) -> Tensor:
    """Where structures end, ``(B, F)``: largest where a probability is one half."""
    p = probabilities[:, 1:]
    return (p * (1 - p)).flatten(1)
