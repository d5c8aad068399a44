"""Intensities to a common range."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, ScaleIntensityRange

__all__ = ["ScalePercentilesd"]


class ScalePercentilesd(MapTransform):
    """Images so that two percentiles of their values become 0 and 1, and what lies outside is clipped.

    The values are those of MONAI's ``ScaleIntensityRangePercentilesd``, which sorts all pixels of a tensor for each
    percentile; here they are only partitioned, which is quicker.

    Args:
        keys: of the images, tensors of any shape.
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.
        allow_missing_keys: pass over keys that an item lacks.
    """

    def __init__(
        self,
        keys: Sequence[Hashable] | Hashable,
        lower: float = 0.0,
        upper: float = 100.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)  # type: ignore[arg-type]
        self.percentiles = [lower, upper]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, with scaled images."""
        result = dict(data)
        for key in self.key_iterator(result):
            values = torch.as_tensor(result[key]).numpy()
            low, high = np.percentile(values, self.percentiles).tolist()
            result[key] = ScaleIntensityRange(low, high, 0, 1, clip=True)(result[key])
        return result
