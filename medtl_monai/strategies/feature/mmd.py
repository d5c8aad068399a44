"""Both domains' features, by a kernel distance."""

from __future__ import annotations

from torch import Tensor

from ...losses import mmd
from ._aligning import Aligning

__all__ = ["MMD"]


class MMD(Aligning):
    """Make the features of both domains equal in distribution, by a kernel two-sample distance (DAN).

    - **What it does**: adds the squared maximum mean discrepancy of the head's features under five Gaussian kernels.
    - **When it helps**: images of another scanner or hospital are at hand without labels.
    - **Cost**: a second forward and backward pass, of the target's images; quadratic in the batch.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``, too large erases what tells the classes apart;
      ``target_statistics``: false keeps the target out of batch norm.
    - **What it cannot do**: align classes: if their shares differ between the domains it aligns the wrong ones.

    References:
        Long, Cao, Wang, Jordan. Learning transferable features with deep adaptation networks. ICML 2015.
    """

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Squared maximum mean discrepancy."""
        return mmd(source, target)
