"""Semi-supervised transfer: images without labels teach consistency."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div
from torch.nn.modules.batchnorm import _BatchNorm

from ..utils import UserError, unwrap
from .average import follow
from .base import Step, Strategy

__all__ = ["VAT", "FixMatch", "MeanTeacher", "PseudoLabel", "ramp_up", "virtual_adversarial_loss"]


def ramp_up(progress: float, length: float = 0.4) -> float:
    """From 0 to 1 over the first ``length`` of the training: ``exp(-5 (1 - t)^2)`` (Laine, Aila. ICLR 2017).

    Example:
        >>> ramp_up(0.4), round(ramp_up(0.0), 4)
        (1.0, 0.0067)
    """
    return math.exp(-5 * (1 - min(1.0, progress / length)) ** 2)


def virtual_adversarial_loss(
    network: Callable[[Tensor], Tensor], image: Tensor, logits: Tensor, *, xi: float, epsilon: float
) -> Tensor:
    """Divergence of the prediction under the small change of each image that alters it most.

    .. math:: KL(p(y|x) \\,\\Vert\\, p(y|x + r)), \\quad r = \\epsilon g / \\lVert g \\rVert, \\quad
        g = \\nabla_r KL(p(y|x) \\,\\Vert\\, p(y|x + r)) |_{r = \\xi d}

    Args:
        network: from images to logits ``(B, C, *spatial)``.
        image: ``(B, channels, *spatial)``.
        logits: of ``image``; taken as constant.
        xi: length of the random probe.
        epsilon: length of the change, in units of the normalized image.

    References:
        Miyato, Maeda, Koyama, Ishii. Virtual adversarial training. IEEE TPAMI 41(8), 2019.
    """
    p = logits.detach().float().softmax(1)
    probe = _unit(torch.randn_like(image)).requires_grad_()
    (gradient,) = torch.autograd.grad(_divergence(p, network(image + xi * probe)), probe)
    return _divergence(p, network(image + epsilon * _unit(gradient.detach())))


def _divergence(p: Tensor, logits: Tensor) -> Tensor:
    return kl_div(logits.float().log_softmax(1), p, reduction="none").sum(1).mean()


def _unit(x: Tensor) -> Tensor:
    return x / x.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (x.ndim - 1))


class VAT(Strategy):
    """Make predictions stable under the small change of each image that alters them most.

    - **What it does**: adds the virtual adversarial loss of the training images and, if there is a target folder, of as
      many images without labels.
    - **When it helps**: few labels; smoother decisions also without any further images.
    - **Cost**: three more forward and two more backward passes a step, twice that with images without labels.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``epsilon`` above 0: length of the change, larger is
      stronger; ``xi`` above 0: length of the probe.
    - **What it cannot do**: correct a prediction that is stable and wrong.

    References:
        Miyato, Maeda, Koyama, Ishii. Virtual adversarial training. IEEE TPAMI 41(8), 2019. In the chain ``fixmatch``,
        ``vat``: Wang, Chen, Xiang et al. Deep virtual adversarial self-training with consistency regularization for
        semi-supervised medical image classification. Medical Image Analysis 70, 2021.
    """

    tasks = ("classification", "segmentation")

    def __init__(self, weight: float = 1.0, epsilon: float = 2.0, xi: float = 0.1) -> None:
        super().__init__()
        if weight < 0 or epsilon <= 0 or xi <= 0:
            raise UserError(f"vat: weight 0 or more, epsilon and xi above 0; got {weight}, {epsilon}, {xi}.")
        self.weight, self.epsilon, self.xi = weight, epsilon, xi

    def loss(self, step: Step) -> Tensor | None:
        """Of this batch and of the next images without labels."""
        lengths = {"xi": self.xi, "epsilon": self.epsilon}
        with _Still(step.network):
            total = virtual_adversarial_loss(step.network, step.image, step.pred, **lengths)
            if self.context.target is not None:
                (image,) = self.context.target.next("augmented")
                with torch.no_grad():
                    logits = step.network(image)
                total = total + virtual_adversarial_loss(step.network, image, logits, **lengths)
        return self.weight * total


class MeanTeacher(Strategy):
    """Agree, on images without labels, with the moving average of the network itself.

    - **What it does**: a teacher holds the exponential moving average of the weights; the network's softmax on one
      augmented view of an image is drawn to the teacher's on another, more so as training goes on.
    - **When it helps**: many more images than labels. For segmentation both see the same view, so that places fit.
    - **Cost**: two forward passes more a step, one of them with a backward pass, and a copy of the network.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``decay`` in [0, 1): 0 follows at once, near 1 slowly.
    - **What it cannot do**: repair a teacher that is wrong from the start.

    References:
        Tarvainen, Valpola. Mean teachers are better role models. NeurIPS 2017.
    """

    needs = ("target",)
    tasks = ("classification", "segmentation")

    def __init__(self, weight: float = 10.0, decay: float = 0.99) -> None:
        super().__init__()
        if weight < 0 or not 0 <= decay < 1:
            raise UserError(f"mean_teacher: weight 0 or more, decay in [0, 1); got {weight}, {decay}.")
        self.weight, self.decay = weight, decay
        self.teacher: nn.Module = nn.Identity()

    def prepare(self, network: nn.Module) -> nn.Module:
        """Copy the teacher."""
        self.teacher = copy.deepcopy(unwrap(network)).requires_grad_(False)
        return network

    def attach(self, engine: Engine) -> None:
        """Follow the network after every step."""
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._follow)

    def _follow(self, engine: Engine) -> None:
        share = max(1 - self.decay, 1 / (engine.state.iteration + 1))  # quicker at first
        follow(self.teacher.state_dict().values(), unwrap(engine.network).state_dict().values(), share)

    def loss(self, step: Step) -> Tensor | None:
        """Squared distance of the two softmax outputs."""
        one, other = _views(self, ("augmented", "augmented"))
        with torch.no_grad():
            wanted = self.teacher.eval()(one).float().softmax(1)
        found = step.network(other).float().softmax(1)
        return self.weight * ramp_up(step.progress) * (found - wanted).square().mean()


class PseudoLabel(Strategy):
    """Train on the network's own sure predictions of images without labels.

    - **What it does**: adds the cross-entropy of the most probable class where its probability is at least
      ``threshold``, more so as training goes on.
    - **When it helps**: many more images than labels, and a first model that is good already.
    - **Cost**: two forward passes and a backward pass more a step.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``threshold`` in [0, 1): 0 takes all, near 1 nearly none.
    - **What it cannot do**: unlearn a mistake of which it is sure.

    References:
        Lee. Pseudo-label: the simple and efficient semi-supervised learning method. ICML workshops 2013.
    """

    needs = ("target",)
    tasks = ("classification", "segmentation")
    views = ("augmented", "augmented")

    def __init__(self, weight: float = 1.0, threshold: float = 0.9) -> None:
        super().__init__()
        if weight < 0 or not 0 <= threshold < 1:
            raise UserError(f"{type(self).__name__}: weight 0 or more, threshold in [0, 1); got {weight}, {threshold}.")
        self.weight, self.threshold = weight, threshold

    def strength(self, progress: float) -> float:
        """Factor of the loss at this point of the training."""
        return ramp_up(progress)

    def loss(self, step: Step) -> Tensor | None:
        """Cross-entropy of the sure predictions, over all images."""
        easy, hard = _views(self, self.views)
        with torch.no_grad(), _Still(step.network):
            sure, label = step.network(easy).float().softmax(1).max(1)
        each = cross_entropy(step.network(hard).float(), label, reduction="none")
        return self.weight * self.strength(step.progress) * (each * (sure >= self.threshold)).mean()


class FixMatch(PseudoLabel):
    """Train on strongly augmented images with the labels that the network gives the plain ones.

    - **What it does**: as ``pseudo_label``, the prediction being made on the plain image and learnt on an augmented
    one,
      at full weight from the start.
    - **When it helps**: many more images than labels; the stronger the augmentation, the more.
    - **Cost**: two forward passes and a backward pass more a step.
    - **Settings**: ``weight`` in [0, inf): 0 is ``finetune``; ``threshold`` in [0, 1): 0 takes all, near 1 nearly none.
    - **What it cannot do**: train segmentation, where the augmented image's places differ from the plain one's.

    References:
        Sohn, Berthelot, Carlini et al. FixMatch: simplifying semi-supervised learning with consistency and confidence.
        NeurIPS 2020.
    """

    tasks = ("classification",)
    views = ("plain", "augmented")

    def __init__(self, weight: float = 1.0, threshold: float = 0.95) -> None:
        super().__init__(weight, threshold)

    def strength(self, progress: float) -> float:
        """Always full."""
        return 1.0


def _views(strategy: Strategy, views: tuple[str, str]) -> list[Tensor]:
    """Two views of the next images; of segmentation the same one twice, as predictions are compared place by place."""
    target = strategy.context.target
    assert target is not None, "bind comes first"
    return target.next(views[1]) * 2 if strategy.context.task == "segmentation" else target.next(*views)


class _Still:
    """Within it, batch norm uses its running statistics, which do not move, and dropout is off."""

    def __init__(self, network: nn.Module) -> None:
        kinds = (_BatchNorm, nn.modules.dropout._DropoutNd)
        self.layers = [m for m in network.modules() if isinstance(m, kinds) and m.training]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.eval()

    def __exit__(self, *_: Any) -> None:
        for layer in self.layers:
            layer.train()
