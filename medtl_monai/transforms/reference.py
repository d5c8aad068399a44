"""MONAI's own transforms, image by image, with the parameters that are drawn for a whole batch: for comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

import monai.transforms as monai
import torch
from monai.transforms.utils import create_grid
from torch import Tensor, nn
from torch.nn.functional import pad

from ..utils import UserError, one_thread
from .augment import AugmentBatch, BiasField, Blur, Erase, Gamma, Levels, LowResolution, Move, Noise, Tone
from .batched import Parameters

__all__ = ["ImageByImage", "choose"]


class ImageByImage(nn.Module):
    """What :class:`~medtl_monai.transforms.AugmentBatch` draws, applied by MONAI's transforms to one image at a time.

    ``Affine`` (with ``elastic``: ``Resample``), ``RandHistogramShift``, ``ScaleIntensity``, ``ShiftIntensity``,
    ``RandGaussianNoise`` and ``RandCoarseDropout`` give the same images. MONAI's nearest to the other effects differ a
    little: ``AdjustContrast`` scales by each image's own range; ``GaussianSmooth`` has a Gaussian of the triangle's
    variance; ``RandSimulateLowResolution`` averages whole pixels; ``RandBiasField`` draws polynomials.

    Args:
        augment: whose settings count.
    """

    def __init__(self, augment: AugmentBatch) -> None:
        super().__init__()
        self.augment = augment

    @one_thread()
    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Augmented ``image``, ``(B, C, H, W)``; with a ``label`` of that shape, both, the label moved alike."""
        for transform, drawn in zip(self.augment.transforms, self.augment.sample(image.shape), strict=True):
            if isinstance(transform, Move):
                moves = _moves(transform, drawn, image)
                image = _stack(move(one, mode="bilinear") for move, one in zip(moves, image, strict=True))
                if label is not None:
                    moved = (move(one.float(), mode="nearest") for move, one in zip(moves, label, strict=True))
                    label = _stack(moved).to(label.dtype)
            else:
                image = _stack(_changed(transform, drawn, i, one) for i, one in enumerate(image))
        return image if label is None else (image, label)


def _moves(transform: Move, drawn: Parameters, image: Tensor) -> list[Callable[..., Any]]:
    """MONAI's movement of each image; a deformation bends its grid first."""
    size = image.shape[2:]
    matrices, offsets = transform.matrices(drawn, size), transform.offsets(drawn, size, image.device)
    if offsets is None:
        return [monai.Affine(affine=matrix, padding_mode="zeros", image_only=True) for matrix in matrices]
    bent = create_grid(size, device=image.device, backend="torch") + pad(offsets, [0, 0, 0, 0, 0, 1])
    grids = (monai.AffineGrid(affine=matrix)(grid=grid)[0] for matrix, grid in zip(matrices, bent, strict=True))
    return [partial(monai.Resample(padding_mode="zeros"), grid=grid) for grid in grids]


def _changed(transform: nn.Module, drawn: Parameters, i: int, one: Tensor) -> Tensor:
    """Image ``i``, ``(C, H, W)``, changed by MONAI's nearest to ``transform``."""
    if not drawn["chosen"][i]:
        return one
    which = int(drawn["chosen"][:i].sum())
    of = {name: value[which] for name, value in drawn.items() if name != "chosen"}
    return cast("Tensor", _NEAREST[type(transform)](transform, of, one))


def _curve(_: Any, of: Mapping[str, Tensor], one: Tensor) -> Tensor:
    knots = torch.cat([torch.zeros(1), of["steps"].cumsum(0)])
    curve = monai.RandHistogramShift(len(knots), prob=1.0)
    curve.reference_control_points = torch.linspace(0, 1, len(knots)).numpy()
    curve.floating_control_points = (knots / knots[-1]).numpy()
    return _fixed(curve, one)


def _field(transform: Any, _: Mapping[str, Tensor], one: Tensor) -> Tensor:
    field = monai.RandBiasField(coeff_range=(-transform.size, transform.size), prob=1.0)
    field.set_random_state(int(torch.randint(2**31, ())))
    return cast("Tensor", field(one))


def _levels(_: Any, of: Mapping[str, Tensor], one: Tensor) -> Tensor:
    scaled = monai.ScaleIntensity(None, None, float(of["scale"]) - 1)(one)
    return cast("Tensor", monai.ShiftIntensity(float(of["offset"]))(scaled))


def _noise(_: Any, of: Mapping[str, Tensor], one: Tensor) -> Tensor:
    noise = monai.RandGaussianNoise(1.0)
    noise.noise = of["std"] * of["noise"]  # type: ignore[assignment]
    return _fixed(noise, one)


def _coarse(_: Any, of: Mapping[str, Tensor], one: Tensor) -> Tensor:
    zoom = (float(of["factor"]),) * 2
    return cast("Tensor", monai.RandSimulateLowResolution(1.0, "area", "bilinear", zoom, align_corners=False)(one))


def _hole(_: Any, of: Mapping[str, Tensor], one: Tensor) -> Tensor:
    hole = monai.RandCoarseDropout(1, 1, fill_value=float(of["fill"]), prob=1.0)
    edges = (of["boxes"].view(2, 2) * torch.tensor(one.shape[1:]) - 0.5).ceil().int()
    hole.hole_coords = [(slice(None), *(slice(*edge) for edge in edges.T.tolist()))]
    return _fixed(hole, one)


def _fixed(transform: Any, one: Tensor) -> Tensor:
    """``one`` by a random transform of MONAI's with the parameters that it was given."""
    transform._do_transform = True
    return cast("Tensor", transform(one, randomize=False))


_NEAREST: dict[type, Callable[[Any, Mapping[str, Tensor], Tensor], Any]] = {
    Blur: lambda _, of, one: monai.GaussianSmooth(float(4 / 3 * of["amount"]) ** 0.5)(one),
    LowResolution: _coarse,
    BiasField: _field,
    Tone: _curve,
    Gamma: lambda _, of, one: monai.AdjustContrast(float(of["gamma"]))(one),
    Levels: _levels,
    Noise: _noise,
    Erase: _hole,
}


def _stack(images: Iterable[Any]) -> Tensor:
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
