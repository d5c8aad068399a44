"""Keeping is weighed against learning."""

from __future__ import annotations

from torch import Tensor, nn

from ...utils import UserError
from ..base import Step, Strategy
from .delta import DELTA
from .l2_sp import L2SP
from .lwf import LwF

__all__ = ["AlphaBeta"]


class AlphaBeta(Strategy):
    r"""Weigh keeping the source against learning the target.

    .. math:: L = \alpha L_{pre} + \beta L_{new}

    - **What it does**: the task's loss is scaled by ``beta``, and ``keep``'s loss by ``alpha``: ``l2_sp``, ``delta`` or
      ``lwf``. Pretrained weights follow both gradients, the new head ``beta``'s alone.
    - **When it helps**: where the balance itself is to be tuned; usually alpha is small and beta near 1.
    - **Cost**: that of ``keep``.
    - **Settings**: ``alpha`` in [0, inf): 0 forgets freely; ``beta`` above 0: small learns little; ``keep``: by name.
    - **What it cannot do**: replay source images; give a folder of them as training images for that.

    References:
        Li, Hoiem. Learning without forgetting. IEEE TPAMI 40(12), 2018.
    """

    needs_source = True

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, keep: str = "l2_sp") -> None:
        super().__init__()
        made = {"l2_sp": lambda: L2SP(alpha=1.0, beta=0.0), "delta": lambda: DELTA(1.0), "lwf": lambda: LwF(1.0)}
        if alpha < 0 or beta <= 0:
            raise UserError(f"alpha_beta: alpha 0 or more, beta above 0; got {alpha}, {beta}.")
        if keep not in made:
            raise UserError(f"alpha_beta: keep must be {', '.join(made)}, got {keep!r}.")
        self.alpha, self.beta = alpha, beta
        self.keep: Strategy = made[keep]()
        self.needs, self.tasks = self.keep.needs, self.keep.tasks  # type: ignore[misc]

    def bind(self, context: object) -> None:
        """Bind what keeps."""
        self.keep.bind(context)  # type: ignore[arg-type]
        super().bind(context)  # type: ignore[arg-type]

    def prepare(self, network: nn.Module) -> nn.Module:
        """Prepare what keeps."""
        return self.keep.prepare(network)

    def on_forward(self) -> None:
        """Show the batch to what keeps."""
        self.keep.on_forward()

    def close(self) -> None:
        """Close what keeps."""
        self.keep.close()

    def loss(self, step: Step) -> Tensor | None:
        """What is missing to the weighted sum."""
        assert step.task_loss is not None, "the trainer gives the task's loss"
        kept = self.keep.loss(step)
        return (self.beta - 1) * step.task_loss + (0.0 if kept is None else self.alpha * kept)
