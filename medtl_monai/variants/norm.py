"""Normalization layers that take the place of batch norm, in 1, 2 and 3 dimensions.

Every layer keeps batch norm's names (``weight``, ``bias``, ``running_mean``, ``running_var``) where they mean the same,
so pretrained weights load into it as they are, and a conversion keeps what was learnt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ..utils import UserError
from .swap import replace_modules

__all__ = [
    "NORMS",
    "BatchRenorm",
    "CategoricalNorm",
    "DomainBatchNorm",
    "FrozenBatchNorm",
    "StochNorm",
    "adapt_batch_norm",
    "convert_norm",
    "domains_of",
    "use_domain",
    "use_regions",
]

_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_UNKNOWN = -1  # the place of a domain without a layer


class _AnyBatchNorm(_BatchNorm):
    """Batch norm of ``(B, C, *spatial)``, whatever the number of dimensions."""

    running_mean: Tensor  # as in batch norm None without track_running_stats, which those that look at them refuse
    running_var: Tensor
    num_batches_tracked: Tensor

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (B, C, ...), got {tuple(input.shape)}.")

    def _check_tracked(self, name: str) -> None:
        if not self.track_running_stats:
            raise UserError(f"{name}: it normalizes by running statistics: leave track_running_stats out.")

    def _channels(self, values: Tensor, x: Tensor) -> Tensor:
        return values.to(x).view(1, -1, *[1] * (x.ndim - 2))

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each channel, after the running ones took them in."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        mean, var = x.float().mean(axes), x.float().var(axes, unbiased=False)
        count = x.numel() / x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean), rate)
            self.running_var.lerp_((var * count / max(count - 1, 1)).to(self.running_var), rate)
        return mean, var

    def _affine(self, normal: Tensor, x: Tensor) -> Tensor:
        if self.weight is not None:
            normal = normal * self._channels(self.weight, normal) + self._channels(self.bias, normal)
        return normal.to(x.dtype)


class BatchRenorm(_AnyBatchNorm):
    """Batch norm whose training output follows the running statistics, for small or biased batches.

    .. math:: y = \\gamma \\left( \\frac{x - \\mu_B}{\\sigma_B} r + d \\right) + \\beta, \\quad
        r = \\mathrm{clip}(\\sigma_B / \\sigma, 1 / r_{max}, r_{max}), \\quad
        d = \\mathrm{clip}((\\mu_B - \\mu) / \\sigma, -d_{max}, d_{max})

    No gradient flows through ``r`` and ``d``. The paper lets the limits grow from batch norm's (1 and 0) in training
    from scratch; pretrained statistics are good from the start, so they are constant here.

    Raises:
        UserError: a limit is out of range: ``r_max`` below 1 or ``d_max`` below 0.

    References:
        Ioffe. Batch renormalization: towards reducing minibatch dependence in batch-normalized models. NeurIPS 2017.
    """

    def __init__(self, num_features: int, *, r_max: float = 3.0, d_max: float = 5.0, **kwargs: Any) -> None:
        super().__init__(num_features, **kwargs)
        if r_max < 1 or d_max < 0:
            raise UserError(f"renorm: r_max must be at least 1 and d_max at least 0, got {r_max} and {d_max}.")
        self._check_tracked("renorm")
        self.r_max, self.d_max = r_max, d_max

    def forward(self, x: Tensor) -> Tensor:
        """Normalized ``x``, ``(B, C, *spatial)``."""
        if not self.training:
            return super().forward(x)
        mean, sigma = self.running_mean.clone(), (self.running_var + self.eps).sqrt()
        batch_mean, batch_var = self._batch_statistics(x)
        batch_sigma = (batch_var + self.eps).sqrt()
        r = (batch_sigma / sigma).clamp(1 / self.r_max, self.r_max).detach()
        d = ((batch_mean - mean) / sigma).clamp(-self.d_max, self.d_max).detach()
        normal = (x.float() - self._channels(batch_mean, x.float())) / self._channels(batch_sigma, x.float())
        return self._affine(normal * self._channels(r, normal) + self._channels(d, normal), x)


class StochNorm(_AnyBatchNorm):
    """Each channel is normalized by the batch's or, with probability ``p``, by the running statistics.

    Raises:
        UserError: ``p`` is not from 0 to 1.

    References:
        Kou, You, Long, Wang. Stochastic normalization. NeurIPS 2020.
    """

    def __init__(self, num_features: int, *, p: float = 0.5, **kwargs: Any) -> None:
        super().__init__(num_features, **kwargs)
        if not 0 <= p <= 1:
            raise UserError(f"stoch: p must lie between 0 and 1, got {p}.")
        self._check_tracked("stoch")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Normalized ``x``, ``(B, C, *spatial)``."""
        if not self.training:
            return super().forward(x)
        old_mean, old_var = self.running_mean.clone(), self.running_var.clone()
        mean, var = self._batch_statistics(x)
        moving = torch.rand(self.num_features, device=x.device) < self.p
        mean, var = torch.where(moving, old_mean, mean), torch.where(moving, old_var, var)
        normal = (x.float() - self._channels(mean, x.float())) / self._channels((var + self.eps).sqrt(), x.float())
        return self._affine(normal, x)


class FrozenBatchNorm(_AnyBatchNorm):
    """Running statistics and affine stay as they were pretrained, whatever ``train()`` says."""

    def __init__(self, num_features: int, **kwargs: Any) -> None:
        super().__init__(num_features, **kwargs)
        self._check_tracked("frozen")
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized ``x``, ``(B, C, *spatial)``."""
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class DomainBatchNorm(_AnyBatchNorm):
    """Statistics and affine of their own for each domain (scanner, hospital); see :func:`use_domain`.

    The layer's own are the first domain's; the others start as copies of what is loaded. In training every image needs
    a domain; a domain with one value a channel in the batch, which has no variance, is normalized by its running
    statistics. In evaluation an image of an unknown domain gets the mean of what all domains make of it (Seo et al.
    average the predictions).

    Raises:
        UserError: fewer than two domains, or two of one name.

    References:
        Chang, You, Seo, Kwak, Han. Domain-specific batch normalization for unsupervised domain adaptation. CVPR 2019.
        Seo, Suh, Kim, Kim, Han, Han. Learning to optimize domain specific normalization for domain generalization.
        ECCV 2020.
    """

    def __init__(self, num_features: int, *, domains: int | Sequence[str | int] = 2, **kwargs: Any) -> None:
        super().__init__(num_features, **kwargs)
        self.names = tuple(range(domains) if isinstance(domains, int) else domains)
        if len(set(self.names)) < max(2, len(self.names)):
            raise UserError(f"domain: at least two domains of different names are needed, got {domains}.")
        self.others = nn.ModuleList(_AnyBatchNorm(num_features, **kwargs) for _ in self.names[1:])
        self.domain: Tensor | int = _UNKNOWN

    def forward(self, x: Tensor) -> Tensor:
        """Normalized ``x``, ``(B, C, *spatial)``, each image by its own domain."""
        if isinstance(self.domain, int):
            return self._normalize(x, self.domain)
        result = torch.empty_like(x)
        for domain in self.domain.unique().tolist():
            chosen = self.domain.to(x.device) == domain
            result[chosen] = self._normalize(x[chosen], domain)
        return result

    def _normalize(self, x: Tensor, domain: int) -> Tensor:
        if domain == _UNKNOWN:
            if self.training:
                raise UserError(f"domain: a training image is of none of the domains {self.names}: see use_domain.")
            return torch.stack([self._normalize(x, i) for i in range(len(self.names))]).mean(0)
        layer = cast("_AnyBatchNorm", self.others[domain - 1]) if domain else self
        if layer.training and x.numel() == x.shape[1]:
            return batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)
        return _BatchNorm.forward(layer, x)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = [key for key in state_dict if key.startswith(prefix) and "." not in key.removeprefix(prefix)]
        for i in range(len(self.others)):
            for key in own:  # of a network without domains
                state_dict.setdefault(f"{prefix}others.{i}.{key.removeprefix(prefix)}", state_dict[key])
        super()._load_from_state_dict(state_dict, prefix, *args)


class CategoricalNorm(_AnyBatchNorm):
    """Batch norm with an affine of its own for each anatomical region of a coarse segmentation; see
    :func:`use_regions`.

    The regions' affines are differences to the common one, zero at first, so that a pretrained network computes the
    same until they are trained. The paper's generator of spatial modulation is reduced to this per-region affine.

    References:
        Xiao, Yu, Zhou et al. CateNorm: categorical normalization for robust medical image segmentation. DART 2022.
    """

    def __init__(self, num_features: int, *, regions: int = 2, **kwargs: Any) -> None:
        super().__init__(num_features, **kwargs)
        self.region_weight = nn.Parameter(torch.zeros(regions, num_features))
        self.region_bias = nn.Parameter(torch.zeros(regions, num_features))
        self.regions: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalized ``x``, ``(B, C, *spatial)``."""
        plain = super().forward(x)
        if self.regions is None:
            return plain
        mask = interpolate(self.regions.to(x), size=x.shape[2:], mode="nearest")
        own = self.weight if self.weight is not None else torch.ones_like(self.running_mean)
        bias = self.bias if self.bias is not None else torch.zeros_like(self.running_mean)
        normal = (plain - self._channels(bias, x)) / self._channels(torch.where(own == 0, 1, own), x)
        scale = torch.einsum("bk...,kc->bc...", mask, self.region_weight.to(x))
        return plain + normal * scale + torch.einsum("bk...,kc->bc...", mask, self.region_bias.to(x))


def domains_of(network: nn.Module) -> tuple[str | int, ...]:
    """Names of the domains that the :class:`DomainBatchNorm` of ``network`` know; empty if it has none."""
    return next((module.names for module in network.modules() if isinstance(module, DomainBatchNorm)), ())


def use_domain(network: nn.Module, domain: Tensor | Sequence[str | int | None] | str | int | None) -> None:
    """Tell every :class:`DomainBatchNorm` of ``network`` the domain that comes next, or that of each of B images.

    Numbers from 0, which may be a tensor ``(B,)``, are the names where none were given; any other name, or ``None``, is
    unknown.
    """
    names = domain.tolist() if isinstance(domain, Tensor) else domain
    names = names if isinstance(names, (list, tuple)) else [names]
    for module in network.modules():
        if isinstance(module, DomainBatchNorm):
            found = [module.names.index(name) if name in module.names else _UNKNOWN for name in names]
            module.domain = found[0] if len(set(found)) == 1 else torch.tensor(found)


@contextmanager
def use_regions(network: nn.Module, regions: Tensor) -> Iterator[None]:
    """Give every :class:`CategoricalNorm` of ``network`` the one-hot regions ``(B, regions, *spatial)``."""
    layers = [module for module in network.modules() if isinstance(module, CategoricalNorm)]
    for layer in layers:
        layer.regions = regions
    try:
        yield
    finally:
        for layer in layers:
            layer.regions = None


def _options(old: Any) -> dict[str, Any]:
    """What any norm layer has in common with batch norm."""
    affine = getattr(old, "weight", None) is not None
    momentum = old.momentum if isinstance(old, (_BatchNorm, _InstanceNorm)) else 0.1
    return {"eps": old.eps, "momentum": momentum, "affine": affine}


def _channels(old: Any) -> int:
    return int(old.num_channels if isinstance(old, nn.GroupNorm) else old.num_features)


def _batch(cls: type[_BatchNorm]) -> Any:
    return lambda old, **settings: cls(_channels(old), **_options(old), **settings)


def _plain_batch(old: nn.Module) -> nn.Module:
    dims = next((i for i, kinds in enumerate(zip(_BATCH, _INSTANCE, strict=True)) if isinstance(old, kinds)), None)
    cls = _AnyBatchNorm if dims is None else _BATCH[dims]
    return cls(_channels(old), **_options(old))


def _instance(old: Any) -> nn.Module:
    dims = next((i for i, kinds in enumerate(zip(_BATCH, _INSTANCE, strict=True)) if isinstance(old, kinds)), None)
    affine = _options(old)["affine"]
    if dims is None:  # a group of one channel each is the same
        return nn.GroupNorm(_channels(old), _channels(old), eps=old.eps, affine=affine)
    return _INSTANCE[dims](_channels(old), eps=old.eps, affine=affine)


def _group(old: Any, groups: int = 32) -> nn.Module:
    count = _channels(old)
    fitting = max(g for g in range(1, min(groups, count) + 1) if count % g == 0)
    return nn.GroupNorm(fitting, count, eps=old.eps, affine=_options(old)["affine"])


NORMS = {
    "batch": _plain_batch,
    "instance": _instance,
    "group": _group,
    "layer": lambda old: _group(old, 1),
    "none": lambda old: nn.Identity(),
    "renorm": _batch(BatchRenorm),
    "stoch": _batch(StochNorm),
    "frozen": _batch(FrozenBatchNorm),
    "domain": _batch(DomainBatchNorm),
    "category": _batch(CategoricalNorm),
}
"""Name to a function that makes the new layer from the old: batch (Ioffe, Szegedy 2015), instance (Ulyanov 2016), group
(Wu, He 2018; at most ``groups``, as many as divide the channels), layer (Ba 2016: one group), none, and this
module's."""


def convert_norm(network: nn.Module, name: str, **settings: Any) -> nn.Module:
    """Replace every normalization layer of ``network``, in place, by another kind.

    The learnt affine is kept, and running statistics where both have them.

    Args:
        network: any network.
        name: one of :data:`NORMS`.
        settings: of the new layers: ``groups``, ``r_max``, ``d_max``, ``p``, ``domains`` or ``regions``.

    Returns:
        ``network``.

    Raises:
        UserError: an unknown name or setting, or the network has no normalization.
    """
    if name not in NORMS:
        raise UserError(f"there is no norm {name!r}: choose from {', '.join(NORMS)}.")

    def make(old: nn.Module) -> nn.Module:
        try:
            new = NORMS[name](old, **settings)
        except TypeError as error:
            raise UserError(f"norm {name} does not take {', '.join(settings)}: {error}.") from error
        new.load_state_dict(old.state_dict(), strict=False) if name != "none" else None
        return new

    if not replace_modules(network, (_BatchNorm, _InstanceNorm, nn.GroupNorm), make):
        raise UserError(f"{type(network).__name__} has no normalization layers: leave norm out.")
    return network


@torch.no_grad()
def adapt_batch_norm(
    network: nn.Module, batches: Iterable[Tensor], *, layers: Iterable[nn.Module] | None = None
) -> nn.Module:
    """Replace the running statistics of batch norm by those of other images (AdaBN); the affine stays.

    Args:
        network: any network with batch norm; it is left in the mode it was in.
        batches: images of the target domain, ``(B, C, *spatial)``, at least one batch.
        layers: the batch norms that are measured; the others use what they have. Default: all.

    Raises:
        UserError: there is no batch.

    References:
        Li, Wang, Shi, Hou, Liu. Revisiting batch normalization for practical domain adaptation. 2016.
    """
    remaining = iter(batches)
    first = next(remaining, None)
    if first is None:
        raise UserError("AdaBN needs images of the target domain, got none.")
    chosen = network.modules() if layers is None else layers
    with _measuring(network, [m for m in chosen if isinstance(m, _BatchNorm) and m.track_running_stats]):
        for batch in chain([first], remaining):
            network(batch)
    return network


@contextmanager
def _measuring(network: nn.Module, layers: Sequence[_BatchNorm]) -> Iterator[None]:
    """Within it, ``layers`` average the statistics of all batches, and nothing else of ``network`` changes."""
    modes = {module: module.training for module in network.modules()}
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
