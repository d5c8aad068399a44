"""Which domain (scanner, hospital) each image is of, for networks whose normalization depends on it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from ..utils import MonaiEngine, UserError, unwrap
from ..variants import domains_of, use_domain

__all__ = ["Domains", "named_domains", "tell_domains"]

_log = logging.getLogger("medtl_monai")


def named_domains(variant: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``variant``, its norm ``domain`` with the names of the training images' domains, which the model then keeps.

    Args:
        variant: of a model's settings.
        items: of the training part.

    Raises:
        UserError: an image without a domain, or fewer than two domains.
    """
    norm = variant.get("norm")
    settings = {"name": norm} if isinstance(norm, str) else dict(norm or {})
    if settings.get("name") != "domain":
        return dict(variant)
    if "domains" in settings:
        raise UserError("norm domain: the names of the domains are taken from the data: leave domains out.")
    return {**variant, "norm": {**settings, "domains": _names([item.get("domain") for item in items])}}


def _names(domains: Sequence[Any]) -> list[str]:
    without = sum(not name for name in domains)
    if without:
        raise UserError(
            f"norm domain: {without} of {len(domains)} training images have no domain: give the table a column domain "
            "(scanner, hospital), or choose another norm."
        )
    names = sorted({str(name) for name in domains})
    if len(names) < 2:
        raise UserError(f"norm domain: all training images are of the domain {names[0]}: choose another norm.")
    return names


def tell_domains(network: nn.Module, domain: Sequence[str | None] | str | None) -> None:
    """Tell the network the domains of the images that come next; one that it does not know is logged, once.

    Args:
        network: any network; wrappers are seen through.
        domain: of all images, or one for each; ``None`` is unknown.
    """
    network = unwrap(network)
    known = domains_of(network)
    if not known:
        return
    for name in {domain} if domain is None or isinstance(domain, str) else set(domain):
        if name not in known:
            _warn(name, known)
    use_domain(network, domain)


@cache
def _warn(name: str | None, known: tuple[str | int, ...]) -> None:
    which = f"the domain {name}, which the training lacked" if name else "no known domain"
    _log.warning(f"images of {which}: their normalization is the mean over {', '.join(map(str, known))}")


class Domains:
    """Tell a network the domains of every batch of its trainer or evaluator, for the norm ``domain``.

    Args:
        network: any network, or several; wrappers are seen through.
        domain: of all images whose case does not say it.

    Raises:
        UserError: the network knows no such domain.
    """

    def __init__(self, network: nn.Module | Sequence[nn.Module], domain: str | None = None) -> None:
        self.networks, self.domain = [network] if isinstance(network, nn.Module) else list(network), domain
        for one in self.networks if domain is not None else ():
            known = domains_of(unwrap(one))
            if domain not in known:
                has = f"knows {', '.join(map(str, known))}" if known else "has no norm domain"
                raise UserError(f"domain: the model {has}, got {domain!r}: give one that it knows, or leave it out.")

    def attach(self, engine: Engine) -> None:
        """Speak before every iteration."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: MonaiEngine) -> None:
        for network in self.networks:
            tell_domains(network, engine.state.batch.get("domain", self.domain))
