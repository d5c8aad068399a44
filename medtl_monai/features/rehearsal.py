"""Whether a network can be replayed from the outputs of its frozen modules, and which of them that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..utils import UserError
from .frozen import unseen

__all__ = ["forward_of", "rehearse", "replaced"]


def rehearse(
    network: nn.Module, image: Tensor, frozen: Sequence[str]
) -> tuple[dict[str, tuple[torch.Size, torch.dtype]], dict[str, Tensor], list[str]]:
    """Shape and number type, output, and which of the frozen modules' outputs the rest of the network uses.

    ``image`` is a batch ``(B, C, *spatial)`` of at least two, and so are the outputs.

    The rest's gradient tells: each output is cut off from what made it, so that a gradient arrives at those alone that
    are used directly. Then the replay is tried.

    Raises:
        UserError: the network's frozen part cannot be replayed.
    """
    outputs, used, whole = _cut_off(network, image, frozen)
    shapes = {name: (output.shape, output.dtype) for name, output in outputs.items()}
    if not used or not _replays(network, image, frozen, outputs, used, whole):
        raise _cannot(network, "its output is not determined by the frozen modules' outputs")
    return shapes, outputs, used


def _cut_off(
    network: nn.Module, image: Tensor, frozen: Sequence[str]
) -> tuple[dict[str, Tensor], list[str], list[Tensor]]:
    """The frozen modules' outputs, the names of those that the rest of the network uses, and what the network gives."""
    outputs: dict[str, Tensor] = {}
    leaves: dict[str, Tensor] = {}

    def cut(name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        output = forward(*args, **kwargs)
        if name in leaves or not isinstance(output, Tensor) or len(output) != len(image):
            raise _cannot(network, f"{name} runs more than once or does not give one tensor for a batch")
        outputs[name] = output.detach().clone(memory_format=torch.preserve_format)
        leaves[name] = output.detach().requires_grad_()
        return leaves[name].clone(memory_format=torch.preserve_format)  # which may be changed in place

    source = image.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.enable_grad():
        whole = _rehearsal(network, source, {name: partial(cut, name, forward_of(network, name)) for name in frozen})
        total = torch.stack([value.float().sum() for value in whole]).sum()
        reached = torch.autograd.grad(total, [source, *leaves.values()], allow_unused=True)
    if reached[0] is not None:
        raise _cannot(network, "its trained part sees the image itself")
    used = [name for name, gradient in zip(leaves, reached[1:], strict=True) if gradient is not None]
    return outputs, used, whole


def _replays(
    network: nn.Module,
    image: Tensor,
    frozen: Sequence[str],
    outputs: Mapping[str, Tensor],
    used: Sequence[str],
    whole: Sequence[Tensor],
) -> bool:
    """Whether the network gives ``whole`` again from the ``outputs`` that are ``used``, without the image."""

    def again(name: str, *_: Any, **__: Any) -> Tensor:
        output = outputs[name]
        if name in used:
            return output.clone(memory_format=torch.preserve_format)
        return torch.empty(output.shape, dtype=output.dtype, device="meta")

    empty = torch.empty(image.shape, dtype=image.dtype, device="meta")
    forwards = {name: partial(again, name) for name in frozen}
    try:
        with torch.no_grad():
            replayed = _rehearsal(network, empty, forwards, unseen(network, frozen, used))
        return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(whole, replayed, strict=True))
    except RuntimeError as error:
        raise _cannot(network, str(error).splitlines()[0]) from error


def _rehearsal(
    network: nn.Module, image: Tensor, forwards: Mapping[str, Callable[..., Any]], empty: Sequence[str] = ()
) -> list[Tensor]:
    """The network's outputs, in its present mode, with nothing of it or of the random numbers changed."""
    weights = {name: p.detach() for name, p in network.named_parameters()}
    weights |= {name: b.clone() for name, b in network.named_buffers()}
    weights |= {name: weights[name].to("meta") for name in empty}
    devices = [] if image.device.type in ("cpu", "meta") else [image.device]
    with torch.random.fork_rng(devices), replaced(network, forwards):
        torch.manual_seed(0)
        # not tied: of modules under two names it would put back what stood in for the weights, not the weights
        output = torch.func.functional_call(network, weights, (image,), tie_weights=False)
    return [value for value in torch.utils._pytree.tree_leaves(output) if isinstance(value, Tensor)]


@contextmanager
def replaced(
    network: nn.Module, forwards: Mapping[str, Callable[..., Any]], empty: Sequence[str] = ()
) -> Iterator[None]:
    """Other ``forward`` functions for some modules, whose hooks stay, and parameters without content."""
    weights = {name: network.get_parameter(name) for name in empty}
    for name, weight in weights.items():
        owner = network.get_submodule(name.rpartition(".")[0])
        owner._parameters[name.rpartition(".")[2]] = weight.to("meta")  # type: ignore[assignment]
    modules = {name: network.get_submodule(name) for name in forwards}
    before = {name: vars(module).get("forward") for name, module in modules.items()}
    for name, module in modules.items():
        module.forward = forwards[name]
    try:
        yield
    finally:
        for name, weight in weights.items():
            network.get_submodule(name.rpartition(".")[0])._parameters[name.rpartition(".")[2]] = weight
        for name, module in modules.items():
            del module.forward
            if (own := before[name]) is not None:
                module.forward = own


def forward_of(network: nn.Module, name: str) -> Callable[..., Any]:
    """What the module of that name does when it is called."""
    return network.get_submodule(name).forward


def _cannot(network: nn.Module, why: str) -> UserError:
    return UserError(f"features of {type(network).__name__} cannot be cached: {why}; leave cache_features out.")
