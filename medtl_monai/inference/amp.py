"""Running a network in half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor
from torch.utils._pytree import tree_map

from ..utils import UserError

__all__ = ["AmpInferer"]


class AmpInferer(Inferer):
    """Another inferer under ``torch.autocast``; the logits come back in 32 bits, as losses and metrics want them.

    MONAI's own ``amp`` serves CUDA alone. On a CPU bfloat16 can only pay with AVX512-BF16 or AMX instructions.

    Args:
        inferer: what runs the network.
        enabled: false leaves ``inferer`` as it is.
        dtype: ``bfloat16`` or ``float16``.

    Raises:
        UserError: ``enabled`` is neither true nor false; another number type; float16 on a CPU, which lacks the range
            for gradients there.
    """

    def __init__(self, inferer: Inferer, enabled: bool = True, dtype: str = "bfloat16") -> None:
        super().__init__()
        if dtype not in ("bfloat16", "float16"):
            raise UserError(f"amp_dtype must be bfloat16 or float16, got {dtype!r}.")
        if not isinstance(enabled, bool):
            raise UserError(f"amp must be true or false, got {enabled!r}.")
        self.inferer, self.enabled, self.dtype = inferer, enabled, dtype

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients must be scaled for the range of float16, as MONAI's trainer does with ``amp``."""
        return self.enabled and self.dtype == "float16"

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What ``inferer`` gives for ``inputs`` ``(B, C, *spatial)``, in 32 bits."""
        if not self.enabled:
            return self.inferer(inputs, network, *args, **kwargs)
        device = "cpu" if inputs.is_meta else inputs.device.type
        if device == "cpu" and self.dtype == "float16":
            raise UserError("amp_dtype float16 needs a GPU: give bfloat16, or --amp false.")
        with torch.autocast(device, dtype=getattr(torch, self.dtype)):
            output = self.inferer(inputs, network, *args, **kwargs)
        return tree_map(lambda value: value.float() if isinstance(value, Tensor) else value, output)
