"""Intensities to a common range."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, ScaleIntensityRange
from numpy.typing import NDArray

from ..utils import UserError

__all__ = ["ScalePercentilesd"]


class ScalePercentilesd(MapTransform):
    """Images so that two percentiles of their values become 0 and 1, and what lies outside is clipped.

    The values are those of MONAI's ``ScaleIntensityRangePercentilesd``, which sorts all pixels of a tensor for each
    percentile; here they are only partitioned, at one place, which is quicker. Pixels that a DICOM file calls padding
    do not count, and become 0.

    Args:
        keys: of the images, tensors of any shape.
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.
        allow_missing_keys: pass over keys that an item lacks.

    Raises:
        UserError: not 0 <= lower < upper <= 100.
    """

    def __init__(
        self,
        keys: Sequence[Hashable] | Hashable,
        lower: float = 0.0,
        upper: float = 100.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 <= lower < upper <= 100:
            raise UserError(f"ScalePercentilesd: percentiles are 0 <= lower < upper <= 100, got {lower} and {upper}.")
        self.percentiles = [lower, upper]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, with scaled images."""
        result = dict(data)
        for key in self.key_iterator(result):
            values = torch.as_tensor(result[key]).numpy().ravel("K")  # in the order of memory, which spares a copy
            values = _measured(values, result[key])
            low, high = (_percentile(values, percentile) for percentile in self.percentiles)
            result[key] = ScaleIntensityRange(low, high, 0, 1, clip=True)(result[key])
        return result


def _measured(values: NDArray[Any], image: Any) -> NDArray[Any]:
    """Without padding: what lies at or below the value that the reader gave it."""
    padding = image.meta.get("padding") if isinstance(image, MetaTensor) else None
    inside = values if padding is None else values[values > padding]
    return inside if len(inside) else values


def _percentile(values: NDArray[Any], percentile: float) -> float:
    """As ``np.percentile`` of a list, to the last bit; that partitions twice, at both neighbours of the place."""
    if percentile == 0:
        return float(values.min())
    below = int(place := percentile / 100 * (len(values) - 1))
    values = np.partition(values, below)
    low, share = values[below], place - below
    if share == 0:
        return float(low)
    high = values[below + 1 :].min()
    step = float(high - low)
    return float(high) - step * (1 - share) if share >= 0.5 else float(low) + step * share
