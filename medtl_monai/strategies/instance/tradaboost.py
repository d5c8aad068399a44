"""Weights that follow each epoch's errors."""

from __future__ import annotations

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ...utils import UserError, sum_over_processes, unwrap
from ..base import Context, Step
from ..densities import Array
from ._weighting import PerImage

__all__ = ["TrAdaBoost", "tradaboost_weights"]


class TrAdaBoost(PerImage):
    """Boost images of the target's domain that are wrong, and let go those of other domains that are wrong.

    .. math:: w_i \\leftarrow w_i \\beta^{e_i} \\; (other), \\quad w_i \\beta_t^{-e_i} \\; (target), \\quad
        \\beta = \\frac{1}{1 + \\sqrt{2 \\ln n / N}}, \\quad \\beta_t = \\frac{\\epsilon_t}{1 - \\epsilon_t}

    - **What it does**: after every epoch, the weight of each image follows its error e = 1 - p(true class) in that
      epoch's own forward passes; n images are of other domains, N is ``rounds``, and epsilon is the target images'
      weighted error, at most 0.499. In the paper each round trains a new learner and the last rounds vote; here the
      network goes on training under the new weights.
    - **When it helps**: few labelled images of the own scanner beside many of others, some of which contradict them.
    - **Cost**: none.
    - **Settings**: ``domain``: how the table's column ``domain`` calls the target's images; ``rounds`` 1 or more: few
      forget misleading images quickly, many slowly.
    - **What it cannot do**: do without labelled images of the target; tell a hard image from a wrong label.

    References:
        Dai, Yang, Xue, Yu. Boosting for transfer learning. ICML 2007.
    """

    needs = ("domains",)

    def __init__(self, domain: str | int | float = "target", rounds: int = 10) -> None:
        super().__init__()
        if rounds < 1:
            raise UserError(f"tradaboost: rounds must be 1 or more, got {rounds}.")
        self.domain, self.rounds = str(domain), rounds
        for name in ("target", "errors", "seen"):
            self.register_buffer(name, torch.zeros(0))

    def bind(self, context: Context) -> None:
        """Find the target's images.

        Raises:
            UserError: all or none of the training images are the target's.
        """
        super().bind(context)
        self.target = torch.tensor([str(domain) == self.domain for domain in context.domains])
        if self.target.all() or not self.target.any():
            names = ", ".join(sorted(set(map(str, context.domains))))
            raise UserError(f"tradaboost needs images of the domain {self.domain!r} and of others, there are {names}.")

    def prepare(self, network: nn.Module) -> nn.Module:
        """Begin with equal weights."""
        device = next(unwrap(network).parameters()).device
        self.table = torch.ones(len(self.target), device=device)
        self.target, self.errors, self.seen = (x.to(device) for x in (self.target, 0 * self.table, 0 * self.table))
        return network

    def weights(self, step: Step, each: Tensor) -> Tensor:
        """By image; its error is kept."""
        places = self.places(step)
        self.errors.index_add_(0, places, 1 - (-each.detach()).exp())
        self.seen.index_add_(0, places, torch.ones_like(each))
        return self.table[places]

    def attach(self, engine: Engine) -> None:
        """Gather the errors of all processes when an epoch ends, before it is saved."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: sum_over_processes(self.errors, self.seen))

    def on_epoch(self, network: nn.Module, epoch: int) -> None:
        """Update the weights by the errors of the epoch that is over."""
        if epoch == 1:
            return
        errors = (self.errors / self.seen.clamp_min(1)).double().cpu().numpy()
        found = tradaboost_weights(self.table.double().cpu().numpy(), errors, self.target.cpu().numpy(), self.rounds)
        self.table = torch.as_tensor(found).to(self.table)
        self.errors, self.seen = torch.zeros_like(self.errors), torch.zeros_like(self.seen)


def tradaboost_weights(weights: ArrayLike, errors: ArrayLike, target: ArrayLike, rounds: int) -> Array:
    """The weights after one round, ``(N,)``, scaled to a mean of 1; see :class:`TrAdaBoost`.

    Args:
        weights: before it.
        errors: of each image, in ``[0, 1]``.
        target: which images are the target's.
        rounds: how many there are to be.

    Example:
        >>> tradaboost_weights([1, 1, 1, 1], [1, 0, 1, 0], [False, False, True, True], 1).round(3).tolist()
        [0.53, 1.155, 1.16, 1.155]
    """
    w, e, own = np.asarray(weights, dtype=float), np.asarray(errors, dtype=float), np.asarray(target, dtype=bool)
    epsilon = np.clip((w * e)[own].sum() / max(w[own].sum(), 1e-12), 1e-3, 0.499)
    others = 1 / (1 + np.sqrt(2 * np.log((~own).sum()) / rounds))
    w = w * np.where(own, (epsilon / (1 - epsilon)) ** -e, others**e)
    return w / w.mean()
