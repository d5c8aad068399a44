"""Initialization of weights by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..utils import UserError

__all__ = ["INITS", "Init", "initialize", "mean_variance"]

_TRUNCATED_STD = 0.87962566103423978  # of a standard normal cut at two standard deviations


class Init(NamedTuple):
    """An initialization: what fills a weight in place, and which kinds of distribution it is."""

    fill: Callable[..., Any]
    normal: bool
    uniform: bool
    random: bool


def _truncated_normal(weight: Tensor, std: float = 0.02) -> None:
    """Redrawn outside two of its own standard deviations; these are widened so that ``std`` is reached."""
    sigma = std / _TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma)


def _positive_unitball(weight: Tensor) -> None:
    """Positive, and the inputs of each output sum to 1 (as Caffe's filler of that name)."""
    weight.uniform_(0, 1)
    flat = weight.view(len(weight), -1)
    flat.div_(flat.sum(1, keepdim=True))


def _identity(weight: Tensor) -> None:
    """The output is the input, as far as there are as many channels."""
    nn.init.eye_(weight) if weight.ndim == 2 else nn.init.dirac_(weight)


def _lecun_normal(weight: Tensor) -> None:
    weight.normal_(0, math.sqrt(1 / nn.init._calculate_fan_in_and_fan_out(weight)[0]))


def _lecun_uniform(weight: Tensor) -> None:
    bound = math.sqrt(3 / nn.init._calculate_fan_in_and_fan_out(weight)[0])
    weight.uniform_(-bound, bound)


def _he_normal(weight: Tensor, a: float = 0.0) -> None:
    nn.init.kaiming_normal_(weight, a=a)


def _he_uniform(weight: Tensor, a: float = 0.0) -> None:
    nn.init.kaiming_uniform_(weight, a=a)


INITS: dict[str, Init] = {
    "orthogonal": Init(nn.init.orthogonal_, normal=False, uniform=False, random=True),
    "normal": Init(lambda w, std=0.02: w.normal_(0, std), normal=True, uniform=False, random=True),
    "uniform": Init(lambda w, bound=0.05: w.uniform_(-bound, bound), normal=False, uniform=True, random=True),
    "truncated_normal": Init(_truncated_normal, normal=True, uniform=False, random=True),
    "zeros": Init(nn.init.zeros_, normal=False, uniform=False, random=False),
    "constant": Init(lambda w, value=0.1: w.fill_(value), normal=False, uniform=False, random=False),
    "identity": Init(_identity, normal=False, uniform=False, random=False),
    "lecun_normal": Init(_lecun_normal, normal=True, uniform=False, random=True),
    "lecun_uniform": Init(_lecun_uniform, normal=False, uniform=True, random=True),
    "xavier_normal": Init(nn.init.xavier_normal_, normal=True, uniform=False, random=True),
    "xavier_uniform": Init(nn.init.xavier_uniform_, normal=False, uniform=True, random=True),
    "he_normal": Init(_he_normal, normal=True, uniform=False, random=True),
    "he_uniform": Init(_he_uniform, normal=False, uniform=True, random=True),
    "positive_unitball": Init(_positive_unitball, normal=False, uniform=True, random=True),
}
"""Name to initialization. Orthogonal: Saxe 2013. LeCun: LeCun 1998, variance ``1 / fan_in``. Xavier: Glorot, Bengio
2010, ``2 / (fan_in + fan_out)``. He: He 2015, ``2 / ((1 + a^2) fan_in)``, ``a`` the slope of a leaky ReLU. The
truncated normal is widened by ``1 / 0.8796``, so that it has the wanted variance."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@torch.no_grad()
def initialize(network: nn.Module, name: str, **settings: Any) -> nn.Module:
    """Fill the weights of every linear and convolutional layer of ``network``, in place, and set their biases to 0.

    Pretrained weights that are loaded afterwards replace all but the new head and what else the source lacks.

    Args:
        network: any network.
        name: one of :data:`INITS`.
        settings: ``std`` (normal, truncated_normal), ``bound`` (uniform), ``value`` (constant), ``gain`` (orthogonal,
            xavier), ``a`` (he).

    Returns:
        ``network``.

    Raises:
        UserError: an unknown name or setting.
    """
    if name not in INITS:
        raise UserError(f"there is no initialization {name!r}: choose from {', '.join(INITS)}.")
    for layer in network.modules():
        if isinstance(layer, _LAYERS):
            try:
                INITS[name].fill(layer.weight, **settings)
            except TypeError as error:
                raise UserError(f"init {name} does not take {', '.join(settings)}: {error}.") from error
            if layer.bias is not None:
                layer.bias.zero_()
    return network


@torch.no_grad()
def mean_variance(network: nn.Module) -> nn.Module:
    """Redraw every weight of a pretrained network from a normal distribution of its own mean and variance, in place.

    What remains of pretraining is the scale of each layer, not its features; what that alone brings is the question
    that it answers.

    References:
        Raghu, Zhang, Kleinberg, Bengio. Transfusion: understanding transfer learning for medical imaging. NeurIPS 2019.
    """
    for layer in network.modules():
        if isinstance(layer, _LAYERS):
            weight = layer.weight
            weight.normal_(weight.mean().item(), weight.std(unbiased=False).item())
    return network
