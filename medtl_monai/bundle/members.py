"""Several trained models that vote, each on images prepared its own way; and the cycles of a training that leaves
several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, Invertd, MeanEnsembled
from torch import Tensor, nn

from ..model import Model
from ..utils import UserError
from .pretrained import load_network

__all__ = ["Ensemble", "Member", "cycle_length"]

_SAME = (
    *("task", "classes", "structures", "images", "compare_sides"),
    *("slice_share", "largest_component", "always_present"),  # how the one answer is read
)


class Member(nn.Module):
    """A trained network that takes its own of several images, and looks at it as its model says.

    Args:
        network: from images to logits.
        model: what it is.
        place: of its image among those that it gets.
    """

    def __init__(self, network: nn.Module, model: Model, place: int) -> None:
        super().__init__()
        self.network, self.inferer, self.place = network, model.inferer(), place

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """Logits of one case or a batch, of which there are images ``(B, C, *spatial)`` for every member."""
        image = images[self.place]
        return self.inferer(image.as_tensor() if isinstance(image, MetaTensor) else image, self.network)


class Ensemble:
    """The models of several checkpoints, of any architectures, image sizes and intensity scales.

    Args:
        checkpoints: of trainings on the same classes.
        voting: ``soft``: the mean of the probabilities; ``hard``: of the votes.
        weights: of each model; ``None``: equal ones.
        device: where they run.
        runtime: as of :func:`medtl_monai.bundle.load_network`.
        changes: fields for all, such as ``scales`` or ``largest_component``, instead of each model's own.

    Raises:
        UserError: a file is missing, another task or other classes, or an unknown vote or unfit weights.
    """

    def __init__(
        self,
        checkpoints: Sequence[str],
        *,
        voting: str = "soft",
        weights: Sequence[float] | None = None,
        device: torch.device | str,
        runtime: str = "torch",
        **changes: Any,
    ) -> None:
        _check_vote(checkpoints, voting, weights)
        self.models = [Model.read(checkpoint).changed(**changes) for checkpoint in checkpoints]
        _check_alike(checkpoints, self.models)
        self.voting, self.weights = voting, weights
        self.preparations = [model.preparation() for model in self.models]
        self.keys = [f"pred_{i}" for i in range(len(self.models))]
        self.networks = [
            Member(load_network(model, checkpoint, device=device, runtime=runtime), model, i).to(device).eval()
            for i, (checkpoint, model) in enumerate(zip(checkpoints, self.models, strict=True))
        ]

    def preparation(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """From a datalist item to an image for every member: ``image`` for the first, ``image_1`` for the next."""

        def prepared(item: Mapping[str, Any]) -> dict[str, Any]:
            first, *others = (preparation(item) for preparation in self.preparations)
            return {**first, **{f"image_{i}": other["image"] for i, other in enumerate(others, 1)}}

        return prepared

    def prepare_batch(
        self, batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
    ) -> tuple[list[Tensor], None]:
        """MONAI's ``prepare_batch``: every member's images, ``(B, C, *spatial)``, on the device."""
        names = ["image", *(f"image_{i}" for i in range(1, len(self.models)))]
        return [batch[name].to(device, non_blocking=non_blocking) for name in names], None

    def postprocessing(self) -> Compose:
        """From the members' logits to the ensemble's probabilities, or to its label map in the image's own space."""
        first, count = self.models[0], len(self.models[0].classes)
        steps: list[Any] = [first.activation(self.keys)]
        if first.task == "segmentation":
            steps.append(self._own_space)
        if self.voting == "hard" and first.task == "multilabel":
            steps.append(AsDiscreted(self.keys, threshold=0.5))
        elif self.voting == "hard":
            steps.append(AsDiscreted(self.keys, argmax=True, to_onehot=count))
        steps.append(MeanEnsembled(self.keys, output_key="pred", weights=self.weights))
        return Compose([*steps, *(first.decision() if first.task == "segmentation" else [])])

    def _own_space(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The members' maps, each after what its own image went through was undone."""
        result = dict(item)
        for key, image, preparation in zip(self.keys, item["image"], self.preparations, strict=True):
            back = Invertd("pred", transform=preparation, orig_keys="image", nearest_interp=False)
            result[key] = back({"image": image, "pred": item[key]})["pred"]
        return result


def _check_vote(checkpoints: Sequence[str], voting: str, weights: Sequence[float] | None) -> None:
    if isinstance(checkpoints, str) or not checkpoints:
        raise UserError(f"checkpoints must be a list such as \"['one.pt','two.pt']\", got {checkpoints!r}.")
    if voting not in ("soft", "hard"):
        raise UserError(f"voting must be soft or hard, got {voting!r}.")
    if weights is not None and (len(weights) != len(checkpoints) or min(weights) < 0 or sum(weights) <= 0):
        raise UserError(
            f"member_weights: expected {len(checkpoints)} numbers of 0 or more, one a checkpoint, got {weights}."
        )


def _check_alike(checkpoints: Sequence[str], models: Sequence[Model]) -> None:
    """Refuse a model that answers another question than the first."""
    for checkpoint, model in zip(checkpoints, models, strict=True):
        differ = [name for name in _SAME if getattr(model, name) != getattr(models[0], name)]
        if differ:
            raise UserError(
                f"{checkpoint} cannot be in this ensemble: its {' and '.join(differ)} differ from the first's."
            )


def cycle_length(epochs: int, cycles: int) -> int:
    """Epochs of one cycle of a snapshot ensemble's training.

    Raises:
        UserError: the epochs cannot be divided into so many cycles.

    References:
        Huang, Li, Pleiss, Liu, Hopcroft, Weinberger. Snapshot ensembles: train 1, get M for free. ICLR 2017.

    Example:
        >>> cycle_length(20, 5)
        4
    """
    if cycles < 1 or epochs % cycles:
        raise UserError(f"cycles: {epochs} epochs cannot be divided into {cycles} cycles: give a divisor.")
    return epochs // cycles
