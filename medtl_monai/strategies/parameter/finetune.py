"""All weights are trained."""

from __future__ import annotations

from ..base import Strategy

__all__ = ["FineTune"]


class FineTune(Strategy):
    """Train every weight, starting from the source weights.

    - **What it does**: nothing is frozen, nothing is held back; all parameters have the same learning rate.
    - **When it helps**: the dependable first choice, and the baseline of every comparison.
    - **Cost**: a full backward pass and optimizer state for every parameter.
    - **What it cannot do**: protect the source's features when there are very few images; they are overwritten.

    References:
        Yosinski, Clune, Bengio, Lipson. How transferable are features in deep neural networks? NeurIPS 2014.
    """
