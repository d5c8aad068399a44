"""Feature-based transfer: features of a source and a target domain are brought together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from ..backbones import anatomy
from ..losses import coral, feature_norm, gradient_reversal, joint_mmd, minimum_class_confusion, mmd
from ..utils import UserError, unwrap
from ..variants import adapt_batch_norm
from .base import Step, Strategy
from .tap import Tap, pool

__all__ = ["AFN", "CDAN", "CORAL", "DANN", "JAN", "MCC", "MMD", "AdaBN", "FeatureStrategy", "MixStyle"]


class FeatureStrategy(Strategy):
    """Base of the strategies that look at what enters the head.

    Args:
        weight: of the extra loss, in ``[0, inf)``.
        target_statistics: whether images of the target domain move the batch-norm statistics too.
    """

    def __init__(self, weight: float = 1.0, target_statistics: bool = True) -> None:
        super().__init__()
        if weight < 0:
            raise UserError(f"{type(self).__name__}: weight must be 0 or more, got {weight}.")
        self.weight, self.target_statistics = weight, target_statistics
        self._tap: Tap | None = None

    def prepare(self, network: nn.Module) -> nn.Module:
        """Listen at the head."""
        self._tap = Tap(network, anatomy(network).head)
        return network

    def close(self) -> None:
        """Stop listening."""
        if self._tap is not None:
            self._tap.close()

    def on_forward(self) -> None:
        """Hold on to this batch's features."""
        assert self._tap is not None, "prepare comes first"
        self._tap.pin()

    @property
    def features(self) -> Tensor:
        """What entered the head for this batch, ``(B, F)``, averaged over space."""
        assert self._tap is not None, "prepare comes first"
        return self._tap.pooled

    def on_target(self, step: Step) -> tuple[Tensor, Any]:
        """Features ``(B, F)`` and predictions of the next augmented batch of the target domain."""
        assert self.context.target is not None, "bind comes first"
        assert self._tap is not None, "prepare comes first"
        (image,) = self.context.target.next("augmented")
        with _statistics(step.network, moving=self.target_statistics):
            pred = step.network(image)
        return pool(self._tap.latest), pred


class _Aligning(FeatureStrategy):
    """Base of the strategies that compare the features of both domains."""

    needs = ("target",)

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Of two sets of features, ``(B, F)`` each."""
        raise NotImplementedError

    def loss(self, step: Step) -> Tensor | None:
        """The distance of this batch's features to the next target batch's."""
        source = self.features
        target, _ = self.on_target(step)
        return self.weight * self.distance(source, target)


class MMD(_Aligning):
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


class CORAL(_Aligning):
    """Make the covariances of both domains' features equal (Deep CORAL).

    - **What it does**: adds the squared distance of the covariance matrices of the head's features.
    - **When it helps**: as ``mmd``; cheaper and with nothing to tune, when the shift is mostly one of contrast.
    - **Cost**: a second forward and backward pass, of the target's images.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``, too large makes the features constant;
      ``target_statistics``: false keeps the target out of batch norm.
    - **What it cannot do**: see a shift of the mean.

    References:
        Sun, Saenko. Deep CORAL: correlation alignment for deep domain adaptation. ECCV workshops 2016.
    """

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Squared distance of the covariances."""
        return coral(source, target)


class JAN(FeatureStrategy):
    """Make features and predictions of both domains equal in their joint distribution.

    - **What it does**: adds the joint maximum mean discrepancy of the head's features and the softmax predictions.
    - **When it helps**: as ``mmd``, where the classes must stay apart.
    - **Cost**: as ``mmd``.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``target_statistics``: false keeps the target out of
    batch
      norm.
    - **What it cannot do**: work without class logits ``(B, C)``, so not for segmentation.

    References:
        Long, Zhu, Wang, Jordan. Deep transfer learning with joint adaptation networks. ICML 2017.
    """

    needs = ("target",)
    tasks = ("classification",)

    def loss(self, step: Step) -> Tensor | None:
        """The joint discrepancy of this batch and the next target batch."""
        source = [self.features, _class_logits(step.pred, self).softmax(1)]
        features, pred = self.on_target(step)
        return self.weight * joint_mmd(source, [features, pred.softmax(1)])


class DANN(FeatureStrategy):
    """Train the features so that a second network cannot tell the domains apart.

    .. math:: L = L_{task} + w \\, L_{domain}(D(R_\\lambda(f))), \\quad \\lambda = \\frac{2}{1 + e^{-10 p}} - 1

    - **What it does**: a discriminator learns to name the domain; the gradient that it sends into the network is turned
      round (R), and grows from 0 to 1 with the progress p of the training.
    - **When it helps**: as ``mmd``, and with larger shifts; needs more images and some patience.
    - **Cost**: a second forward and backward pass and a small network.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``hidden``: width of the discriminator;
      ``target_statistics``: false keeps the target out of batch norm.
    - **What it cannot do**: guarantee that classes are aligned with themselves; adversarial training may not settle.

    References:
        Ganin, Ustinova, Ajakan et al. Domain-adversarial training of neural networks. JMLR 17(59), 2016.
    """

    needs = ("target",)

    def __init__(self, weight: float = 1.0, hidden: int = 256, target_statistics: bool = True) -> None:
        super().__init__(weight, target_statistics)
        if hidden < 1:
            raise UserError(f"{type(self).__name__}: hidden must be 1 or more, got {hidden}.")
        self.hidden = hidden
        self.discriminator: nn.Module = nn.Identity()

    def inputs(self, network: nn.Module) -> int:
        """How many numbers the discriminator sees."""
        return anatomy(network).features

    def prepare(self, network: nn.Module) -> nn.Module:
        """Make the discriminator."""
        device = next(unwrap(network).parameters()).device
        layers = [nn.Linear(self.inputs(network), self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1)]
        self.discriminator = nn.Sequential(*layers).to(device)
        return super().prepare(network)

    def seen(self, features: Tensor, pred: Any) -> Tensor:
        """What the discriminator sees of a batch."""
        return features

    def loss(self, step: Step) -> Tensor | None:
        """The discriminator's loss, its gradient turned round for the network."""
        source = self.seen(self.features, step.pred)
        target = self.seen(*self.on_target(step))
        both = gradient_reversal(torch.cat([source, target]).float(), step.progress)
        with torch.autocast(both.device.type, enabled=False):
            logits = self.discriminator(both)[:, 0]
        truth = torch.cat([logits.new_ones(len(source)), logits.new_zeros(len(target))])
        return self.weight * binary_cross_entropy_with_logits(logits, truth)


class CDAN(DANN):
    """As ``dann``, with a discriminator that sees features and predictions together.

    - **What it does**: the discriminator sees the outer product of features and softmax predictions, so that each class
      is aligned with itself.
    - **When it helps**: where ``dann`` mixes up classes.
    - **Cost**: as ``dann``; the discriminator's input is as many times wider as there are classes.
    - **Settings**: as ``dann``.
    - **What it cannot do**: work without class logits ``(B, C)``, so not for segmentation.

    References:
        Long, Cao, Wang, Jordan. Conditional adversarial domain adaptation. NeurIPS 2018.
    """

    needs = ("target", "classes")
    tasks = ("classification",)

    def inputs(self, network: nn.Module) -> int:
        """Features times classes."""
        return anatomy(network).features * self.context.classes

    def seen(self, features: Tensor, pred: Any) -> Tensor:
        """The outer product; no gradient flows through the predictions."""
        p = _class_logits(pred, self).detach().float().softmax(1)
        return (p[:, :, None] * features[:, None].float()).flatten(1)


class MCC(FeatureStrategy):
    """Make the predictions on the target domain unambiguous between classes.

    - **What it does**: adds the minimum class confusion of the target's predictions.
    - **When it helps**: a target without labels, of any kind of shift; it aligns nothing and adds no network.
    - **Cost**: a second forward and backward pass.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``temperature`` above 0: softens the predictions;
      ``target_statistics``: false keeps the target out of batch norm.
    - **What it cannot do**: correct a class that is wrong from the start; not for segmentation.

    References:
        Jin, Wang, Long, Wang. Minimum class confusion for versatile domain adaptation. ECCV 2020.
    """

    needs = ("target",)
    tasks = ("classification",)

    def __init__(self, weight: float = 1.0, temperature: float = 2.5, target_statistics: bool = True) -> None:
        super().__init__(weight, target_statistics)
        if temperature <= 0:
            raise UserError(f"mcc: temperature must be above 0, got {temperature}.")
        self.temperature = temperature

    def loss(self, step: Step) -> Tensor | None:
        """The confusion of the next target batch."""
        _, pred = self.on_target(step)
        return self.weight * minimum_class_confusion(_class_logits(pred, self), self.temperature)


class AFN(FeatureStrategy):
    """Let the norms of both domains' features grow step by step, as well transferable features have larger norms.

    - **What it does**: adds the squared distance of each feature vector's norm from its own value plus ``step``.
    - **When it helps**: as ``mcc``; the target's features tend to be short.
    - **Cost**: a second forward and backward pass.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``step`` above 0: how fast norms grow;
      ``target_statistics``: false keeps the target out of batch norm.
    - **What it cannot do**: align the domains' classes by itself.

    References:
        Xu, Li, Yang, Lin. Larger norm more transferable: an adaptive feature norm approach. ICCV 2019.
    """

    needs = ("target",)

    def __init__(self, weight: float = 0.05, step: float = 1.0, target_statistics: bool = True) -> None:
        super().__init__(weight, target_statistics)
        if step <= 0:
            raise UserError(f"afn: step must be above 0, got {step}.")
        self.step = step

    def loss(self, step: Step) -> Tensor | None:
        """Of this batch and the next target batch."""
        source = self.features
        target, _ = self.on_target(step)
        return self.weight * (feature_norm(source, self.step) + feature_norm(target, self.step))


class AdaBN(Strategy):
    """Give batch norm the statistics of the target domain.

    - **What it does**: after every epoch the running statistics are measured anew on images of the target domain; the
      training itself, which uses each batch's own, is as in ``finetune``. Validation then runs as on the target.
    - **When it helps**: another scanner or protocol; a handful of batches without labels is enough.
    - **Cost**: a forward pass over ``batches`` batches an epoch.
    - **Settings**: ``batches``: how many are measured (1: noisy; more than the target has: some are seen again).
    - **What it cannot do**: help a network without batch norm, or with frozen statistics.

    References:
        Li, Wang, Shi, Hou, Liu. Revisiting batch normalization for practical domain adaptation. 2016.
    """

    needs = ("target",)
    measures = True

    def __init__(self, batches: int = 10) -> None:
        super().__init__()
        if batches < 1:
            raise UserError(f"adabn: batches must be 1 or more, got {batches}.")
        self.batches = batches

    def prepare(self, network: nn.Module) -> nn.Module:
        """Check that there is something to measure.

        Raises:
            UserError: the network has no batch norm.
        """
        if not any(isinstance(module, _BatchNorm) for module in network.modules()):
            raise UserError(f"adabn: {type(unwrap(network)).__name__} has no batch norm: choose another strategy.")
        return network

    def attach(self, engine: Engine) -> None:
        """Measure when an epoch ends, before the validation that follows."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._measure)

    def _measure(self, engine: Engine) -> None:
        target = self.context.target
        assert target is not None, "bind comes first"
        adapt_batch_norm(unwrap(engine.network), (target.next("plain")[0] for _ in range(self.batches)))


class MixStyle(Strategy):
    """Mix the style (mean and deviation of each channel) of random pairs of images in the early blocks.

    - **What it does**: in training, with probability ``p``, the statistics of the first blocks' maps are mixed between
      the images of a batch, with a weight from Beta(``alpha``, ``alpha``).
    - **When it helps**: a model for scanners that are not known yet; domains in the training set help, but need not be
      named.
    - **Cost**: next to none.
    - **Settings**: ``p`` in [0, 1]: 0 is ``finetune``; ``alpha`` above 0: small mixes little, large mixes half and
    half;
      ``blocks``: how many blocks, from the stem.
    - **What it cannot do**: use a target domain; help where style is what tells the classes apart.

    References:
        Zhou, Yang, Qiao, Xiang. Domain generalization with MixStyle. ICLR 2021.
    """

    def __init__(self, p: float = 0.5, alpha: float = 0.1, blocks: int = 2) -> None:
        super().__init__()
        if not 0 <= p <= 1 or alpha <= 0 or blocks < 1:
            raise UserError(f"mixstyle: p in [0, 1], alpha above 0, blocks 1 or more; got {p}, {alpha}, {blocks}.")
        self.p, self.alpha, self.blocks = p, alpha, blocks
        self._handles: list[RemovableHandle] = []

    def prepare(self, network: nn.Module) -> nn.Module:
        """Stand behind the first blocks."""
        for block in anatomy(network).blocks[: self.blocks]:
            module = unwrap(network).get_submodule(block.prefixes[-1])
            self._handles.append(module.register_forward_hook(self._mix))
        return network

    def close(self) -> None:
        """Leave the network."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": []}  # a copy stands behind no block

    def _mix(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not module.training or not torch.is_grad_enabled() or output.ndim < 3 or torch.rand(()) >= self.p:
            return None
        return mix_style(output, torch.distributions.Beta(self.alpha, self.alpha).sample((len(output),)))


def mix_style(x: Tensor, share: Tensor) -> Tensor:
    """``x`` ``(B, C, *spatial)`` whose channel statistics are ``share`` ``(B,)`` its own, the rest another image's."""
    axes = list(range(2, x.ndim))
    mean, std = x.mean(axes, keepdim=True).detach(), (x.var(axes, keepdim=True) + 1e-6).sqrt().detach()
    other = torch.randperm(len(x), device=x.device)
    share = share.to(x).view(-1, *[1] * (x.ndim - 1))
    return (x - mean) / std * torch.lerp(std[other], std, share) + torch.lerp(mean[other], mean, share)


def _class_logits(pred: Any, strategy: Strategy) -> Tensor:
    if not isinstance(pred, Tensor) or pred.ndim != 2:
        raise UserError(f"{type(strategy).__name__} needs class logits (B, C), which this network does not give.")
    return pred


@contextmanager
def _statistics(network: nn.Module, *, moving: bool) -> Iterator[None]:
    """Whether running statistics move in the forward passes within."""
    layers = [] if moving else [m for m in network.modules() if isinstance(m, _BatchNorm) and m.momentum is not None]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
