"""MONAI's own transforms, image by image, with the parameters that are drawn for a whole batch: for comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import monai.transforms as monai
import torch
from torch import Tensor, nn

from ..utils import UserError, one_thread
from .augment import AugmentBatch, pixel_matrices

__all__ = ["ImageByImage", "choose"]


class ImageByImage(nn.Module):
    """What :class:`~medtl_monai.transforms.AugmentBatch` draws, applied by MONAI's transforms to one image at a time.

    ``Affine``, ``RandHistogramShift``, ``ScaleIntensity``, ``ShiftIntensity``, ``RandGaussianNoise`` and
    ``RandCoarseDropout`` give the same images. MONAI's nearest to the other effects differ a little: ``AdjustContrast``
    scales by each image's own range; ``GaussianSmooth`` has a Gaussian of the triangle's variance;
    ``RandSimulateLowResolution`` averages whole pixels; ``RandBiasField`` draws polynomials.

    Args:
        augment: whose settings count.
    """

    def __init__(self, augment: AugmentBatch) -> None:
        super().__init__()
        self.augment = augment

    @one_thread()
    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Augmented ``image``, ``(B, C, H, W)``; with a ``label`` of that shape, both, the label moved alike."""
        found = self.augment.sample(image.shape)
        if "matrices" in found:
            matrices = pixel_matrices(found["matrices"], image.shape[2:])
            moves = [monai.Affine(affine=m, padding_mode="zeros", image_only=True) for m in matrices]
            image = _stack(move(one) for move, one in zip(moves, image, strict=True))
            if label is not None:
                moved = _stack(move(one.float(), mode="nearest") for move, one in zip(moves, label, strict=True))
                label = moved.to(label.dtype)
        image = _stack(self._changed(one, found, i, image.shape) for i, one in enumerate(image))
        return image if label is None else (image, label)

    def _changed(self, one: Tensor, found: dict[str, Tensor], i: int, shape: torch.Size) -> Tensor:
        for change in self._values(found, i, shape):  # in a Compose all images would get the same random field
            one = change(one)
        return one

    def _values(self, found: dict[str, Tensor], i: int, shape: torch.Size) -> Iterator[Callable[..., Any]]:
        """MONAI's transforms of image ``i``'s values."""
        of = {name: value[i] for name, value in found.items() if value.ndim}
        if of.get("blur"):
            yield monai.GaussianSmooth(float(4 / 3 * of["blur"]) ** 0.5)
        if of.get("low_resolution"):
            zoom = (float(found["factor"]),) * 2
            yield monai.RandSimulateLowResolution(1.0, "area", "bilinear", zoom, align_corners=False)
        if "bias_field" in of:
            size = self.augment.bias_field
            field = monai.RandBiasField(coeff_range=(-size, size), prob=1.0)
            field.set_random_state(int(torch.randint(2**31, ())))
            yield field
        if of.get("tone"):
            knots = torch.cat([torch.zeros(1), of["steps"].cumsum(0)])
            curve = monai.RandHistogramShift(len(knots), prob=1.0)
            curve.reference_control_points = torch.linspace(0, 1, len(knots)).numpy()
            curve.floating_control_points = (knots / knots[-1]).numpy()
            yield _Fixed(curve)
        if "gamma" in of:
            yield monai.AdjustContrast(float(of["gamma"]))
        if "scale" in of:
            yield monai.ScaleIntensity(None, None, float(of["scale"]) - 1)
            yield monai.ShiftIntensity(float(of["offset"]))
        if "noise" in of:
            noise = monai.RandGaussianNoise(1.0)
            noise.noise = of["noise"]  # type: ignore[assignment]
            yield _Fixed(noise)
        if of.get("erase"):
            hole = monai.RandCoarseDropout(1, 1, fill_value=float(of["fill"]), prob=1.0)
            edges = (of["boxes"].view(2, 2) * torch.tensor(shape[2:]) - 0.5).ceil().int()
            hole.hole_coords = [(slice(None), *(slice(*edge) for edge in edges.T.tolist()))]
            yield _Fixed(hole)


class _Fixed(monai.Transform):
    """A random transform of MONAI with the parameters that it was given."""

    def __init__(self, transform: Any) -> None:
        transform._do_transform = True
        self.transform = transform

    def __call__(self, image: Tensor) -> Tensor:
        return self.transform(image, randomize=False)


def _stack(images: Iterator[Any]) -> Tensor:
    return torch.stack([image.as_subclass(Tensor) for image in images])


def choose(transforms: str, augmentation: nn.Module | None) -> nn.Module | None:
    """The augmentation of a bundle: as it is (``batched``), or by MONAI's transforms image by image (``monai``).

    Raises:
        UserError: another word; or ``monai`` for what is not an ``AugmentBatch``.
    """
    if transforms not in ("batched", "monai"):
        raise UserError(f"transforms must be batched or monai, got {transforms!r}.")
    if transforms == "batched" or augmentation is None:
        return augmentation
    if not isinstance(augmentation, AugmentBatch):
        raise UserError(f"transforms monai needs an AugmentBatch as augmentation, got {type(augmentation).__name__}.")
    return ImageByImage(augmentation)
