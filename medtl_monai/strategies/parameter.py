"""Parameter-based transfer: which of the source weights are kept, and how hard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from ..backbones import Anatomy, anatomy, modules_of
from ..utils import UserError, is_under, unwrap
from .base import Step, Strategy

__all__ = [
    "L1",
    "L2",
    "L2SP",
    "LPFT",
    "Discriminative",
    "FineTune",
    "Freeze",
    "FreezeBN",
    "GradualUnfreeze",
    "PartialFreeze",
    "Scratch",
    "l1_penalty",
    "l2_penalty",
    "l2_sp_penalty",
]


class FineTune(Strategy):
    """Train every weight, starting from the source weights.

    - **What it does**: nothing is frozen, nothing is held back; all parameters have the same learning rate.
    - **When it helps**: the dependable first choice, and the baseline of every comparison.
    - **Cost**: a full backward pass and optimizer state for every parameter.
    - **What it cannot do**: protect the source's features when there are very few images; they are overwritten.

    References:
        Yosinski, Clune, Bengio, Lipson. How transferable are features in deep neural networks? NeurIPS 2014.
    """


class Scratch(Strategy):
    """Train every weight from the random initialization: the control without transfer.

    - **What it does**: tells the bundle to leave the pretrained weights out.
    - **When it helps**: it shows what the transfer is worth; with many thousand images it can catch up.
    - **Cost**: as ``finetune`` an epoch, and several times the epochs.
    - **What it cannot do**: work well on a few hundred images.

    References:
        Raghu, Zhang, Kleinberg, Bengio. Transfusion: understanding transfer learning for medical imaging. NeurIPS 2019.
    """

    @property
    def from_scratch(self) -> bool:
        """Always true."""
        return True


class _Holding(Strategy):
    """Base of the strategies that keep modules in evaluation mode while the network trains.

    MONAI's trainer calls ``network.train()`` before every iteration, so what was put into ``eval()`` once would not
    stay there; a forward pre-hook of the network puts it back each time.
    """

    needs_source = True

    def __init__(self) -> None:
        super().__init__()
        self._handle: RemovableHandle | None = None

    def held(self, network: nn.Module) -> Iterable[nn.Module]:
        """The modules to keep in evaluation mode."""
        raise NotImplementedError

    def hook(self, network: nn.Module) -> None:
        """Put the hook on the network, once."""
        if self._handle is None:
            self._handle = network.register_forward_pre_hook(self._hold)

    def close(self) -> None:
        """Remove the hook; what was frozen keeps ``requires_grad=False``."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}  # a copy has no hook on any network

    def _hold(self, network: nn.Module, args: tuple[Any, ...]) -> None:
        if network.training:
            for module in self.held(network):
                module.eval()


class _Freezing(_Holding):
    """Base of the strategies that freeze blocks, exactly: weights, batch-norm statistics and dropout stand still."""

    sets_trainable = True

    def __init__(self) -> None:
        super().__init__()
        self._frozen: tuple[str, ...] = ()

    def held(self, network: nn.Module) -> Iterable[nn.Module]:
        """The frozen blocks."""
        return modules_of(network, self._frozen).values()

    def freeze(self, network: nn.Module, prefixes: tuple[str, ...]) -> None:
        """Freeze the modules, and the parameters beside modules, named ``prefixes`` and train all others."""
        network = unwrap(network)
        self._frozen = prefixes
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not is_under(name, prefixes))
        self.hook(network)


class Freeze(_Freezing):
    """Train the head alone: feature extraction, also called linear probe.

    - **What it does**: every block but the head is frozen exactly (weights and batch-norm statistics).
    - **When it helps**: tens of images, or a source close to the target; a quick lower bound for any comparison.
    - **Cost**: no backward pass through the backbone and optimizer state for the head alone.
    - **What it cannot do**: adapt the features; on images unlike the source's it stays well below ``finetune``.

    References:
        Donahue et al. DeCAF: a deep convolutional activation feature for generic visual recognition. ICML 2014.
    """

    def prepare(self, network: nn.Module) -> nn.Module:
        """Freeze all blocks but the head."""
        self.freeze(network, _prefixes(anatomy(network), slice(None, -1)))
        return network


class PartialFreeze(_Freezing):
    """Freeze the first blocks, train the rest.

    - **What it does**: the blocks nearest to the input, which hold the most general features, are frozen exactly.
    - **When it helps**: few images; limited memory or time, since the early blocks have the largest feature maps.
    - **Cost**: no backward pass through the frozen blocks.
    - **Settings**: ``blocks``: how many blocks are frozen, counted from the input (1: the stem alone; all but one: as
      ``freeze``), or negative: how many are trained, counted from the head (-1: the head alone); ``None``: a quarter,
      which on most networks saves half of the work, as early feature maps are large.
    - **What it cannot do**: adapt to a new modality whose low-level statistics differ (noise, texture).

    References:
        Yosinski, Clune, Bengio, Lipson. How transferable are features in deep neural networks? NeurIPS 2014.
    """

    def __init__(self, blocks: int | None = None) -> None:
        super().__init__()
        self.blocks = blocks

    def prepare(self, network: nn.Module) -> nn.Module:
        """Freeze the first blocks.

        Raises:
            UserError: the network has too few blocks.
        """
        parts = anatomy(network)
        n = len(parts.blocks)
        blocks = max(1, n // 4) if self.blocks is None else self.blocks
        if not 0 < abs(blocks) < n:
            names = ", ".join(block.name for block in parts.blocks)
            raise UserError(
                f"partial_freeze: blocks={blocks} leaves nothing to freeze or nothing to train: "
                f"give a number from 1 to {n - 1} (or -{n - 1} to -1); the blocks are {names}."
            )
        self.freeze(network, _prefixes(parts, slice(None, blocks)))
        return network


class GradualUnfreeze(_Freezing):
    """Train the head first, then one more block every few epochs, from the head towards the input.

    - **What it does**: blocks join in one by one; blocks still waiting are frozen exactly.
    - **When it helps**: few images, against forgetting: early blocks move only once the head is sensible.
    - **Cost**: early epochs are cheaper than ``finetune``'s.
    - **Settings**: ``every``: epochs between two unfreezings (1: fast; the number of epochs or more: as ``freeze``);
      ``start``: how many blocks are trained in the first epoch, the head counted (all: as ``finetune``).
    - **What it cannot do**: reach the early blocks when ``every`` times the number of blocks exceeds the epochs.

    References:
        Howard, Ruder. Universal language model fine-tuning for text classification. ACL 2018.
    """

    def __init__(self, every: int = 1, start: int = 1) -> None:
        super().__init__()
        if every < 1 or start < 1:
            raise UserError(f"gradual_unfreeze: every and start must be 1 or more, got every={every}, start={start}.")
        self.every, self.start = every, start

    def on_epoch(self, network: nn.Module, epoch: int) -> None:
        """Open as many blocks as the epoch allows.

        Not in ``prepare``: DDP must see every parameter trainable when it wraps the network, else gradients of blocks
        that are opened later would not be averaged.
        """
        trained = self.start + (epoch - 1) // self.every
        parts = anatomy(network)
        self.freeze(network, _prefixes(parts, slice(None, max(0, len(parts.blocks) - trained))))


class LPFT(_Freezing):
    """Linear probe, then fine-tune: a sensible head first, so that its first gradients do not distort the features.

    - **What it does**: the head alone is trained for ``probe_epochs``, then everything.
    - **When it helps**: out-of-distribution robustness (other scanners, other hospitals), few images.
    - **Cost**: the probe's epochs need no backward pass through the backbone.
    - **Settings**: ``probe_epochs``: 0 gives ``finetune``, the number of epochs or more gives ``freeze``.
    - **What it cannot do**: help where the features must change a lot; the probe's epochs are then lost.

    References:
        Kumar, Raghunathan, Jones, Ma, Liang. Fine-tuning can distort pretrained features and underperform
        out-of-distribution. ICLR 2022.
    """

    def __init__(self, probe_epochs: int = 2) -> None:
        super().__init__()
        if probe_epochs < 0:
            raise UserError(f"lp_ft: probe_epochs must be 0 or more, got {probe_epochs}.")
        self.probe_epochs = probe_epochs

    def on_epoch(self, network: nn.Module, epoch: int) -> None:
        """Freeze the backbone during the probe (not in ``prepare``, for DDP's sake)."""
        probing = epoch <= self.probe_epochs
        self.freeze(network, _prefixes(anatomy(network), slice(None, -1)) if probing else ())


class Discriminative(Strategy):
    r"""Layer-wise learning rates: the further from the head, the smaller.

    .. math:: \eta_b = \eta \, \delta^{\,d(b)}

    with :math:`d(b)` the number of blocks between block :math:`b` and the head (0 for the head).

    - **What it does**: early blocks, which hold general features, move little; late ones and the head move freely.
    - **When it helps**: few to some hundred images; combines well with most other strategies.
    - **Cost**: as ``finetune``.
    - **Settings**: ``decay`` in (0, 1]: 1 gives ``finetune``; towards 0 the backbone is nearly frozen. Networks with
      many blocks want values near 1 (0.8 over 18 blocks leaves 2% of the rate to the stem).
    - **What it cannot do**: protect batch-norm statistics, which follow the new images whatever the rate.

    References:
        Howard, Ruder. Universal language model fine-tuning for text classification. ACL 2018.
        Bao, Dong, Piao, Wei. BEiT: BERT pre-training of image transformers. ICLR 2022 (layer-wise decay).
    """

    needs_source = True

    def __init__(self, decay: float = 0.8) -> None:
        super().__init__()
        if not 0 < decay <= 1:
            raise UserError(f"discriminative: decay must be above 0 and at most 1, got {decay}.")
        self.decay = decay

    def param_groups(self, network: nn.Module, lr: float) -> list[dict[str, Any]]:
        """One group a block, from the stem to the head."""
        network = unwrap(network)
        blocks = anatomy(network).blocks
        groups = []
        for depth, block in enumerate(blocks):
            params = [p for name, p in network.named_parameters() if is_under(name, block.prefixes)]
            if params:
                groups.append({"params": params, "lr": lr * self.decay ** (len(blocks) - 1 - depth)})
        return groups


class FreezeBN(_Holding):
    """Keep the source's batch-norm statistics; combine it with a strategy that trains.

    - **What it does**: batch norm normalizes with the running statistics of the source in training too, as it does at
      inference; they stand still exactly, while its scale and shift are trained as the rest.
    - **When it helps**: small batches, few images and short trainings, where statistics of the new images are noisy.
    - **Cost**: less than ``finetune``: no statistics are computed.
    - **What it cannot do**: follow a large change of intensities; give it images on the source's scale.

    References:
        He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016 (detection: frozen batch norm).
    """

    def held(self, network: nn.Module) -> Iterable[nn.Module]:
        """All batch norm."""
        return (module for module in network.modules() if isinstance(module, _BatchNorm))

    def prepare(self, network: nn.Module) -> nn.Module:
        """Hold batch norm from now on.

        Raises:
            UserError: the network has none.
        """
        if not any(True for _ in self.held(network)):
            raise UserError(f"freeze_bn: {type(network).__name__} has no batch norm: leave freeze_bn out.")
        self.hook(network)
        return network


def l1_penalty(weights: list[Tensor]) -> Tensor:
    r"""Sum of absolute values, :math:`\sum_j |w_j|`, over all elements of ``weights``.

    Example:
        >>> l1_penalty([torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])]).item()
        6.0
    """
    return torch.stack([w.abs().sum() for w in weights]).sum()


def l2_penalty(weights: list[Tensor]) -> Tensor:
    r"""Half the sum of squares, :math:`\tfrac12 \sum_j w_j^2`, over all elements of ``weights``.

    Example:
        >>> l2_penalty([torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])]).item()
        7.0
    """
    return 0.5 * torch.stack([w.square().sum() for w in weights]).sum()


def l2_sp_penalty(weights: list[Tensor], anchors: list[Tensor]) -> Tensor:
    r"""Half the squared distance from the start, :math:`\tfrac12 \lVert w - w^0 \rVert_2^2`.

    Example:
        >>> l2_sp_penalty([torch.tensor([1.0, -2.0])], [torch.tensor([0.0, -4.0])]).item()
        2.5
    """
    return l2_penalty([w - a for w, a in zip(weights, anchors, strict=True)])


class _Penalty(Strategy):
    """Base of L1 and L2: a norm of the trained weights, biases and norm parameters (one axis) left out."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise UserError(f"{type(self).__name__}: weight must be 0 or more, got {weight}.")
        self.weight = weight

    def loss(self, step: Step) -> Tensor | None:
        """The penalty, or ``None`` when no weight is trained."""
        weights = [p for p in step.network.parameters() if p.requires_grad and p.ndim > 1]
        return self.weight * self.norm(weights) if weights else None

    def norm(self, weights: list[Tensor]) -> Tensor:
        """The norm that is penalized."""
        raise NotImplementedError


class L1(_Penalty):
    r"""Lasso: a penalty on the absolute values, which drives small weights to zero.

    .. math:: L = L_{task} + \lambda \sum_{j=1}^{p} |w_j|

    - **What it does**: adds the sum over all trained weights (of two axes or more) to the task's loss.
    - **When it helps**: as a sparsity prior on the head; on whole networks rarely better than ``l2``.
    - **Cost**: one pass over the weights a step.
    - **Settings**: ``weight`` (lambda) in [0, inf): 0 is ``finetune``; too large drives all weights to zero.
    - **What it cannot do**: keep the source's knowledge; it pulls towards zero, not towards the source (see ``l2_sp``).

    References:
        Tibshirani. Regression shrinkage and selection via the lasso. J. R. Stat. Soc. B 58, 1996.
    """

    def __init__(self, weight: float = 1e-5) -> None:
        super().__init__(weight)

    def norm(self, weights: list[Tensor]) -> Tensor:
        """Sum of absolute values."""
        return l1_penalty(weights)


class L2(_Penalty):
    r"""Ridge: a penalty on the squares, which shrinks all weights.

    .. math:: L = L_{task} + \tfrac{\lambda}{2} \sum_{j=1}^{p} w_j^2

    - **What it does**: adds the sum over all trained weights (of two axes or more) to the task's loss. Under Adam this
      is not the same as decoupled weight decay (AdamW), which the optimizer's ``weight_decay`` gives.
    - **When it helps**: against overfitting of long trainings.
    - **Cost**: one pass over the weights a step.
    - **Settings**: ``weight`` (lambda) in [0, inf): 0 is ``finetune``; too large drives all weights towards zero.
    - **What it cannot do**: keep the source's knowledge; it pulls towards zero, not towards the source (see ``l2_sp``).

    References:
        Hoerl, Kennard. Ridge regression: biased estimation for nonorthogonal problems. Technometrics 12, 1970.
        Loshchilov, Hutter. Decoupled weight decay regularization. ICLR 2019.
    """

    def __init__(self, weight: float = 1e-4) -> None:
        super().__init__(weight)

    def norm(self, weights: list[Tensor]) -> Tensor:
        """Half the sum of squares."""
        return l2_penalty(weights)


class L2SP(Strategy):
    r"""Pull the weights towards where they started instead of towards zero.

    .. math:: L = L_{task} + \tfrac{\alpha}{2} \lVert w_S - w_S^0 \rVert_2^2 + \tfrac{\beta}{2} \lVert w_H \rVert_2^2

    with :math:`w_S` the transferred weights, :math:`w_S^0` their value at ``prepare`` and :math:`w_H` the head's.

    - **What it does**: adds both terms over all trained parameters; the anchor is kept in the strategy's buffers.
    - **When it helps**: few images and a source close to the target; it limits forgetting.
    - **Cost**: a copy of the weights and one pass over them a step.
    - **Settings**: ``alpha`` in [0, inf): 0 frees the backbone, very large freezes it; ``beta`` in [0, inf): the same
      for the head, towards zero. Best with the optimizer's ``weight_decay`` at 0, which would pull towards zero.
    - **What it cannot do**: hold batch-norm statistics, which are no parameters.

    References:
        Li, Grandvalet, Davoine. Explicit inductive bias for transfer learning with convolutional networks. ICML 2018.
    """

    needs_source = True

    def __init__(self, alpha: float = 0.01, beta: float = 0.01) -> None:
        super().__init__()
        if alpha < 0 or beta < 0:
            raise UserError(f"l2_sp: alpha and beta must be 0 or more, got alpha={alpha}, beta={beta}.")
        self.alpha, self.beta = alpha, beta
        self._head = ""

    def prepare(self, network: nn.Module) -> nn.Module:
        """Take the anchor: a copy of all weights but the head's."""
        self._head = anatomy(network).head
        for name, parameter in unwrap(network).named_parameters():
            if not is_under(name, [self._head]):
                # a clone: a detached tensor shares its storage with the weight, and the penalty would stay 0
                self.register_buffer(_key(name), parameter.detach().clone())
        return network

    def distance(self, weights: list[Tensor], anchors: list[Tensor]) -> Tensor:
        """Half the sum of squared differences."""
        return l2_sp_penalty(weights, anchors)

    def loss(self, step: Step) -> Tensor | None:
        """The two terms over what is trained at present."""
        trained = {name: p for name, p in step.network.named_parameters() if p.requires_grad}
        head = [p for name, p in trained.items() if is_under(name, [self._head])]
        kept = {name: p for name, p in trained.items() if not is_under(name, [self._head])}
        terms = []
        if kept:
            anchors = [self.get_buffer(_key(name)) for name in kept]
            terms.append(self.alpha * self.distance(list(kept.values()), anchors))
        if head:
            terms.append(self.beta * l2_penalty(head))
        return torch.stack(terms).sum() if terms else None


def _prefixes(parts: Anatomy, which: slice) -> tuple[str, ...]:
    return tuple(prefix for block in parts.blocks[which] for prefix in block.prefixes)


def _key(name: str) -> str:
    return "anchor_" + name.replace(".", "__")  # a buffer's name must not hold a dot
