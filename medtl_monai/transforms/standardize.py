"""Images standardized each on its own, as networks for magnetic resonance see them, whose values have no unit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import MapTransform
from torch import Tensor

__all__ = ["StandardizeImaged", "standardized"]


def standardized(image: Tensor, axes: Iterable[int]) -> Tensor:
    """Values with mean 0 and standard deviation 1 over ``axes``, the others each on their own; constant ones become 0.

    Args:
        image: of any shape.
        axes: of which the statistics are taken.

    Example:
        >>> standardized(torch.tensor([[0.0, 2.0], [5.0, 5.0]]), [1]).tolist()
        [[-1.0, 1.0], [0.0, 0.0]]
    """
    std, mean = torch.std_mean(image, tuple(axes), correction=0, keepdim=True)
    return (image - mean) / torch.where(std > 0, std, 1.0)


class StandardizeImaged(MapTransform):
    """Each image and channel with mean 0 and standard deviation 1 of its own (:func:`standardized`).

    Args:
        keys: of the images, ``(C, *spatial)``, or stacks of them, ``(C, *spatial, slices)``.
        dimensions: of an image; each slice of a stack is an image.
        allow_missing_keys: pass over keys that an item lacks.
    """

    def __init__(
        self, keys: Sequence[Hashable] | Hashable, *, dimensions: int = 2, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.dimensions = dimensions

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, with standardized images."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = standardized(torch.as_tensor(result[key]), range(1, 1 + self.dimensions))
        return result
