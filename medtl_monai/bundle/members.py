"""Several trained models behind one preprocessing, and the cycles of a training that leaves several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate

from ..utils import UserError
from .transfer import build_network, load_model, model_settings

__all__ = ["Member", "cycle_length", "ensemble_members"]

_SHARED = ("task", "classes", "structures", "channels", "compare_sides")
_MODES = {3: "linear", 4: "bilinear", 5: "trilinear"}


class Member(nn.Module):
    """A model that gets images prepared for another one: at its own size, crop and intensity scale.

    Args:
        network: from images to logits ``(B, C)``, or ``(B, C, *spatial)``, which are brought back to the images' size.
        ratio: its image size over that of the images it gets.
        scale: by which each channel is multiplied.
        shift: what is then added to it.
        share: its field of view over that of the images it gets; beyond their edges nothing changes.
    """

    def __init__(self, network: nn.Module, ratio: float, scale: Tensor, shift: Tensor, share: float = 1.0) -> None:
        super().__init__()
        self.network, self.ratio, self.share = network, ratio, share
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of ``image`` ``(B, channels, *spatial)``."""
        shape = (-1,) + (1,) * (image.ndim - 2)
        pairs = image.shape[1] // len(self.scale)  # of an image and its other side
        own = image * self.scale.repeat(pairs).view(shape) + self.shift.repeat(pairs).view(shape)
        logits = self.network(_view(own, [round(n * self.ratio) for n in image.shape[2:]], self.share))
        return logits if logits.ndim == 2 else _view(logits, list(image.shape[2:]), 1 / self.share)


def _view(image: Tensor, size: list[int], share: float) -> Tensor:
    """The middle ``share`` of ``image`` at another size."""
    if share != 1:
        identity = torch.eye(len(size), len(size) + 1, device=image.device, dtype=image.dtype)
        grid = affine_grid(share * identity.expand(len(image), -1, -1), [len(image), 1, *size], align_corners=False)
        return grid_sample(image, grid, padding_mode="border", align_corners=False)
    if size == list(image.shape[2:]):
        return image
    return interpolate(image, size=size, mode=_MODES[image.ndim], align_corners=False)


def ensemble_members(
    checkpoints: Sequence[str],
    settings: Mapping[str, Any],
    *,
    voting: str = "soft",
    weights: Sequence[float] | None = None,
    device: torch.device | str,
    runtime: str = "torch",
) -> list[Member]:
    """The models of several checkpoints, of any architectures and image sizes, behind the first one's preprocessing.

    Args:
        checkpoints: of trainings on the same classes.
        settings: of the first.
        voting: ``soft`` or ``hard``; checked here, so that a mistake shows before any image is read.
        weights: of each model, or ``None``; checked here as well.
        device: where they run.
        runtime: as of :func:`load_model`.

    Raises:
        UserError: a file is missing, another task or other classes, or an unknown vote or unfit weights.
    """
    if voting not in ("soft", "hard"):
        raise UserError(f"voting must be soft or hard, got {voting!r}.")
    if weights is not None and (len(weights) != len(checkpoints) or min(weights) < 0 or sum(weights) <= 0):
        raise UserError(
            f"member_weights: expected {len(checkpoints)} numbers of 0 or more, one a checkpoint, got {weights}."
        )
    return [_member(checkpoint, settings, device, runtime) for checkpoint in checkpoints]


def _member(checkpoint: str, settings: Mapping[str, Any], device: torch.device | str, runtime: str) -> Member:
    own = model_settings(checkpoint, settings)
    windows = settings.get("crop_size") is not None  # which must show every member as much as its crops did
    shared = (*_SHARED, "crop_size", "lesion_map", *(("image_size",) if windows else ()))
    differ = [key for key in shared if own.get(key) != settings.get(key)]
    if differ:
        raise UserError(f"{checkpoint} cannot be in this ensemble: its {' and '.join(differ)} differ from the first's.")
    mean, std, its_mean, its_std = (torch.tensor(x[key]) for x in (settings, own) for key in ("mean", "std"))
    network = load_model(build_network(own), checkpoint, device=device, runtime=runtime)
    ratio, share = (own.get(key, 1) / settings.get(key, 1) for key in ("image_size", "crop"))
    member = Member(network, ratio, std / its_std, (mean - its_mean) / its_std, share)
    return member.to(device).eval()


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
