"""MONAI's ``prepare_batch``: from what a loader gives to what a network takes."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from .standardize import standardized

__all__ = ["PrepareBatch"]


class PrepareBatch:
    """MONAI's ``prepare_batch``: move a batch to the device once, then augment and normalize it there.

    Args:
        mean: subtracted from each channel, in units of the images (``[0, 1]``).
        std: divides each channel.
        augment: a module for a batch of images, and with masks or a map ``lesion`` for both, or ``None``.
        mix: a module for a batch of images and labels, such as :class:`~medtl_monai.transforms.MixBatch`, or ``None``.
        standardize: first give each image mean 0 and standard deviation 1 of its own (:func:`standardized`).
        dimensions: of an image; further axes are of its slices, each of which is then standardized on its own.

    Called with ``(batch, device, non_blocking)``, it returns ``(image, label)``; the label is ``None`` where the batch
    has none. Labels of the images' shape (masks) are augmented with them, and so is a map ``lesion`` ``(B, 1, H, W)``
    of where lesions are, which is laid back into the batch. Images are laid out channels-last, which is faster for
    convolutions on CPUs and tensor cores. MONAI's metadata is dropped: it costs 12 us an operation.
    """

    def __init__(
        self,
        mean: list[float],
        std: list[float],
        augment: nn.Module | None = None,
        mix: nn.Module | None = None,
        *,
        standardize: bool = False,
        dimensions: int = 2,
    ) -> None:
        self.mean, self.std, self.augment, self.mix = torch.tensor(mean), torch.tensor(std), augment, mix
        self.standardize, self.dimensions = standardize, dimensions

    def __call__(
        self,
        batch: MutableMapping[str, Any],
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None]:
        names = [name for name in ("image", "label", "lesion") if batch.get(name) is not None]
        found = {name: torch.as_tensor(_plain(batch[name])).to(device, non_blocking=non_blocking) for name in names}
        if self.augment is not None:
            found.update(_augmented(self.augment, found))
        if self.mix is not None and "label" in found:
            found.update(_mixed(self.mix, found))
        if "lesion" in found:
            batch["lesion"] = found["lesion"]
        return self._normalized(found["image"]), found.get("label")

    def _normalized(self, image: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (image.ndim - 2)
        if self.standardize:
            image = standardized(image, range(2, 2 + self.dimensions))
        image = (image - self.mean.to(image).view(shape)) / self.std.to(image).view(shape)
        return image.contiguous(memory_format=torch.channels_last) if image.ndim == 4 else image


def _augmented(augment: nn.Module, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image, and with it the map of lesions, or the label if it is a mask."""
    image, label = found["image"], found.get("label")
    beside = "lesion" if "lesion" in found else "label"
    if beside == "label" and (label is None or label.ndim != image.ndim):
        return {"image": augment(image)}
    return dict(zip(("image", beside), augment(image, found[beside]), strict=True))


def _mixed(mix: nn.Module, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Image and label mixed; a map of lesions is mixed as the image is."""
    image, lesion = found["image"], found.get("lesion")
    mixed, label = mix(image if lesion is None else torch.cat([image, lesion.to(image)], 1), found["label"])
    moved = {} if lesion is None else {"lesion": mixed[:, image.shape[1] :]}
    return {"image": mixed[:, : image.shape[1]], "label": label, **moved}


def _plain(value: Any) -> Any:
    return value.as_tensor() if isinstance(value, MetaTensor) else value
