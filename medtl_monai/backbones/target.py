"""Any network of MONAI's or of this package from plain data, as a checkpoint or a configuration holds it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from monai.networks import nets
from monai.networks.nets.mednext import create_mednext
from torch import Tensor, nn

from ..utils import UserError
from .blocks import anatomy
from .heads import HEADS
from .layouts import refuse

__all__ = ["build_target", "refuse_download"]

_MONAI, _OURS = "monai.networks.nets", "medtl_monai.backbones"

# beside classes, the functions that make networks, with what takes the arguments they pass on; others of MONAI's
# functions download weights
_FUNCTIONS: dict[Callable[..., nn.Module], Callable[..., nn.Module]] = {
    **{getattr(nets, f"resnet{n}"): nets.ResNet for n in (10, 18, 34, 50, 101, 152, 200)},
    **dict.fromkeys((nets.MedNeXtS, nets.MedNeXtB, nets.MedNeXtM, nets.MedNeXtL), create_mednext),
}

_NAMES = {
    "spatial_dims": ("spatial_dims",),
    "in_channels": ("in_channels", "n_input_channels", "num_channels"),
    "num_classes": ("out_channels", "num_classes", "classes"),
}
"""What each of the three is called in the networks' constructors."""

_EINOPS = (nets.SwinUNETR, nets.UNETR, nets.ViT)


def build_target(spec: Mapping[str, Any], *, spatial_dims: int, in_channels: int, num_classes: int) -> nn.Module:
    """The network that ``spec`` describes, randomly initialized; its output is the one tensor of logits.

    A file never chooses what code runs: ``_target_`` is looked up among the networks of ``monai.networks.nets`` and
    ``medtl_monai.backbones``, of which :func:`anatomy` must know the blocks, and arguments are plain data. Nothing is
    downloaded. Of a network that gives several outputs, such as those of deep supervision, the main one is taken.

    Args:
        spec: ``_target_``, as ``SegResNet``, ``monai.networks.nets.SegResNet`` or
            ``monai.networks.nets.segresnet.SegResNet`` (a short name is MONAI's where both have it), and arguments of
            the constructor: numbers, text, ``None``, truth values, lists and dicts of these.
        spatial_dims: 2 or 3, or 1 where the network can.
        in_channels: channels of the input.
        num_classes: number of outputs; like the two before it given to the constructor by the name that it has there.

    Raises:
        UserError: another name, an argument that is unknown, not plain, different from the three numbers or would start
            a download, or anything that the constructor refuses.

    Example:
        >>> spec = {"_target_": "SegResNet", "init_filters": 16}
        >>> build_target(spec, spatial_dims=2, in_channels=1, num_classes=3).conv_final[2].conv
        Conv2d(16, 3, kernel_size=(1, 1), stride=(1, 1))
    """
    arguments = {key: value for key, value in spec.items() if key != "_target_"}
    target = spec.get("_target_")
    make = _look_up(target)
    name = spec["_target_"].rpartition(".")[2]
    _check_plain(name, arguments)
    refuse_download(name, arguments)
    kind = make if isinstance(make, type) else nn.Module
    refuse(kind)
    if issubclass(kind, _EINOPS) and find_spec("einops") is None:
        raise UserError(f"{name} needs the package einops: pip install einops.")
    asked = {"spatial_dims": spatial_dims, "in_channels": in_channels, "num_classes": num_classes}
    _complete(name, kind, arguments, _parameters(make), asked)
    network = _made(name, make, arguments)
    anatomy(network)  # refuses what was built without a head
    take = next((take for kind, take in _MAIN.items() if isinstance(network, kind)), None)
    if take is not None:
        network.register_forward_hook(take)
    return network


def _made(name: str, make: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return make(**arguments)
    except Exception as error:  # MONAI's constructors raise many kinds, and torch's likewise
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"{name} cannot be built from {arguments}: {said}.") from error


def refuse_download(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments with which MONAI's constructors download weights, or load a file.

    Raises:
        UserError: there is one.
    """
    for key, value in arguments.items():
        if key.startswith("pretrain") and value:
            raise UserError(f"{name}: {key}={value!r} would load weights unasked: leave it out, and give weights.")


def _look_up(target: Any) -> Callable[..., nn.Module]:
    """The class or function of that name, by ``getattr`` on the two packages alone."""
    from medtl_monai import backbones

    root = next((root for root in (_MONAI, _OURS) if str(target).startswith(f"{root}.")), "")
    packages = [package for package in (nets, backbones) if root in ("", package.__name__)]
    path = str(target).removeprefix(f"{root}.").split(".")
    if isinstance(target, str) and (root or len(path) == 1):
        found = next((one for package in packages if (one := _descend(package, path)) is not None), None)
        if found is not None:
            return found
    raise _unknown(target, path[-1], packages)


def _unknown(target: Any, name: str, packages: Sequence[ModuleType]) -> UserError:
    names = [one for package in packages for one in dir(package) if _descend(package, [one]) is not None]
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "give one of them, such as DenseNet121 or SegResNet."
    return UserError(f"_target_ {target!r} is no network of {_MONAI} or {_OURS}, and nothing else is built: {hint}")


def _descend(package: ModuleType, path: list[str]) -> Callable[..., nn.Module] | None:
    """The network at ``path`` inside ``package``; ``None``: there is none, or something else."""
    found: Any = package
    for name in path:
        inside = isinstance(found, ModuleType) and f"{found.__name__}.".startswith(f"{package.__name__}.")
        if not inside or name.startswith("_"):
            return None
        found = getattr(found, name, None)
    return found if _is_network(found) else None


def _is_network(found: Any) -> bool:
    """Whether it is one of the functions that make networks, or a class of networks in one of the two packages."""
    if inspect.isfunction(found):
        return found in _FUNCTIONS
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        return False
    ours = found.__module__.startswith(f"{_OURS}.") and issubclass(found, tuple(HEADS))
    return ours or found.__module__.startswith(f"{_MONAI}.")


def _check_plain(name: str, value: Any) -> None:
    """Refuse what is no plain data, or asks a parser of configurations to run something."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or key.startswith("_"):
                raise UserError(f"{name}: {key!r} is no name of an argument: nothing inside a network's is built.")
        _check_plain(name, list(value.values()))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_plain(name, inner)
    elif isinstance(value, str) and value.startswith(("$", "@", "%")):
        raise UserError(f"{name}: {value!r} is an expression, which is not evaluated here: write the value itself.")
    elif not (value is None or isinstance(value, (bool, int, float, str))):
        raise UserError(f"{name}: arguments are numbers, text, lists and dicts of these, got {type(value).__name__}.")


def _parameters(make: Callable[..., nn.Module]) -> dict[str, inspect.Parameter]:
    """What a constructor takes by name, and those take to which it passes the rest on."""
    kinds: Any = make.__mro__ if isinstance(make, type) else ()
    makers = [kind.__init__ for kind in kinds] or [make, _FUNCTIONS[make]]
    found: dict[str, inspect.Parameter] = {}
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        found |= {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    found.pop("self", None)
    return found


def _complete(
    name: str, kind: type, arguments: dict[str, Any], known: Mapping[str, Any], asked: Mapping[str, int]
) -> None:
    """Check the arguments' names, and fill in dimensions, channels and classes."""
    for key in arguments.keys() - known.keys():
        near = get_close_matches(key, known, n=1)
        raise UserError(f"{name} does not take {key}: {f'did you mean {near[0]!r}?' if near else 'leave it out.'}")
    for title, names in _NAMES.items():
        key = next((n for n in names if n in known), "")
        if key and arguments.setdefault(key, asked[title]) != asked[title]:
            raise UserError(f"{name}: {key} is {arguments[key]!r}, but {title} is {asked[title]}: leave {key} out.")
    _check_dimensions(name, kind, arguments, asked["spatial_dims"], asked["in_channels"])
    if "pretrained" in known:
        arguments.setdefault("pretrained", False)  # EfficientNetBN's own default downloads
    if issubclass(kind, nets.ViT):
        _make_classify(name, arguments)


def _check_dimensions(name: str, kind: type, arguments: Mapping[str, Any], dims: int, channels: int) -> None:
    """Dimensions and channels where the constructor asks for neither."""
    shape = arguments.get("in_shape")
    if isinstance(shape, (list, tuple)) and [len(shape) - 1, *shape[:1]] != [dims, channels]:
        raise UserError(
            f"{name}: in_shape is {list(shape)}, but there are {dims} dimensions and {channels} channels: give "
            "channels and size."
        )
    if issubclass(kind, nets.Quicknat) and dims != 2:
        raise UserError(f"{name} works in two dimensions alone, but spatial_dims is {dims}.")


def _make_classify(name: str, arguments: dict[str, Any]) -> None:
    """Of a ViT: logits of classes, whose own defaults give neither."""
    if arguments.get("classification") is not True:
        raise UserError(f"{name} classifies with 'classification': True alone: add it, or take UNETR to segment.")
    if arguments.setdefault("post_activation", None) == "Tanh":
        raise UserError(f"{name}: with post_activation 'Tanh' the outputs are no logits: leave it out.")


def _first(network: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _last(network: nn.Module, inputs: tuple[Tensor, ...], output: list[Tensor]) -> Tensor:
    return output[-1]


def _unstacked(network: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output[:, 0] if network.training and network.deep_supervision else output


# of networks with several outputs, the main one: (logits, hidden states), or those of deep supervision
_MAIN: dict[type[nn.Module], Callable[..., Tensor]] = {
    nets.BasicUNetPlusPlus: _last,
    nets.DynUNet: _unstacked,
    nets.MedNeXt: _first,
    nets.SegResNetDS: _first,
    nets.ViT: _first,
}
