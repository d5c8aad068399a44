"""Transfer-learning strategies, by name (for configurations) and by class (for Python).

A folder a family, a file a strategy: its class, which is the file's only public one, says all that there is to say of
it, and the file's name is the strategy's. Modules whose names begin with an underscore hold what several share.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_args, get_type_hints

from ..utils import UserError
from .base import Chain, Context, Step, Strategy, Target
from .densities import discriminator_weights, kernel_mean_matching, kliep
from .parameter.l1 import l1_penalty
from .parameter.l2 import l2_penalty
from .parameter.l2_sp import l2_sp_penalty
from .text import parse, render

FOLDERS = {
    "parameter": "parameter",
    "feature": "feature",
    "instance": "instance",
    "relation": "relation",
    "semi-supervised": "semi",
}
"""Where the strategies of each family are."""


def _strategy_of(module: str) -> type[Strategy]:
    """The strategy of a file, by the name of its module.

    Raises:
        TypeError: the file has none or several public classes, or it is no strategy.
    """
    classes = [one for one in vars(import_module(module)).values() if inspect.isclass(one) and one.__module__ == module]
    public = [one for one in classes if not one.__name__.startswith("_")]
    if len(public) != 1 or not issubclass(public[0], Strategy):
        names = ", ".join(one.__name__ for one in public) or "none"
        raise TypeError(f"{module} must have one public class, a strategy, got {names}: begin other names with _.")
    return public[0]


def _gather() -> dict[str, dict[str, type[Strategy]]]:
    """Every strategy by family and name, from the files of the families' folders, in alphabetical order."""
    families = {}
    for family, folder in FOLDERS.items():
        package = f"{__name__}.{folder}"
        names = sorted(one.name for one in iter_modules(import_module(package).__path__) if one.name[0] != "_")
        families[family] = {name: _strategy_of(f"{package}.{name}") for name in names}
    return families


def _by_name(families: dict[str, dict[str, type[Strategy]]]) -> dict[str, type[Strategy]]:
    """Every strategy by its name alone.

    Raises:
        TypeError: two families have one of the same name, or two strategies are of the same class name.
    """
    every = [(name, cls) for members in families.values() for name, cls in members.items()]
    for words in ([name for name, _ in every], [cls.__name__ for _, cls in every]):
        twice = sorted({word for word in words if words.count(word) > 1})
        if twice:
            raise TypeError(f"two strategies are called {twice[0]}: rename one of the files, and its class.")
    return dict(every)


FAMILIES: dict[str, dict[str, type[Strategy]]] = _gather()
"""Every strategy by family and name."""

STRATEGIES: dict[str, type[Strategy]] = _by_name(FAMILIES)
"""Every strategy by name."""

_CLASSES = {cls.__name__: cls for cls in STRATEGIES.values()}

__all__ = [
    "FAMILIES",
    "FOLDERS",
    "STRATEGIES",
    "Chain",
    "Context",
    "Step",
    "Strategy",
    "Target",
    "build",
    "check",
    "describe",
    "discriminator_weights",
    "kernel_mean_matching",
    "kliep",
    "l1_penalty",
    "l2_penalty",
    "l2_sp_penalty",
]
__all__.extend(_CLASSES)


def __getattr__(name: str) -> type[Strategy]:
    """The class of a strategy: ``from medtl_monai.strategies import L2SP``."""
    if name in _CLASSES:
        return _CLASSES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build(spec: str | Strategy | Sequence[str | Strategy]) -> Strategy:
    """Turn what stands in a configuration or on the command line into a strategy.

    Args:
        spec: text, such as ``"l2_sp(alpha=0.5) + freeze_bn"``, with names of :data:`STRATEGIES`; a strategy; or a list
            of these, applied in order. :func:`medtl_monai.strategies.text.parse` tells how text is read.

    Raises:
        UserError: text that cannot be read, an unknown name or argument, a value that does not fit, the same name
            twice, or parts that clash.

    Example:
        >>> build("l2_sp(alpha=0.5)").alpha
        0.5
        >>> [type(part).__name__ for part in build("l2_sp(alpha=0.5) + freeze_bn")]
        ['L2SP', 'FreezeBN']
        >>> build("l2sp")
        Traceback (most recent call last):
        ...
        medtl_monai.utils.UserError: there is no strategy 'l2sp': did you mean 'l2_sp'?
    """
    specs = list(spec) if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]
    if not specs:
        raise UserError("the list of strategies is empty: give at least one, such as 'finetune'.")
    parts = [part for one in specs for part in _parts(one)]
    _check_once([part.asked[0] for part in parts if part.asked])
    return parts[0] if len(parts) == 1 else Chain(*parts)


def check(spec: str | Strategy | Sequence[str | Strategy]) -> None:
    """Raise what :func:`build` would raise: cheap, and possible before any image is read.

    Example:
        >>> check("discriminative + freeze_bn")
        >>> check("partial_freeze(block=4)")
        Traceback (most recent call last):
        ...
        medtl_monai.utils.UserError: partial_freeze takes blocks, not 'block': did you mean 'blocks'?
    """
    build(spec)


def describe(spec: str | Strategy | Sequence[str | Strategy]) -> str:
    """The text of a strategy as it was asked for: names, with the arguments that were given.

    :func:`build` makes the same strategy of it, unless a part was given as an object, which stands with its class.

    Example:
        >>> describe(["l2_sp( alpha = 0.5 )", "freeze_bn", STRATEGIES["l2"](weight=1.0)])
        'l2_sp(alpha=0.5) + freeze_bn + L2'
    """
    strategy = spec if isinstance(spec, Strategy) else build(spec)
    if isinstance(strategy, Chain):
        return " + ".join(map(describe, strategy))
    return render([strategy.asked]) if strategy.asked else strategy.name


def _parts(spec: Any) -> list[Strategy]:
    if isinstance(spec, Strategy):
        return list(spec) if isinstance(spec, Chain) else [spec]
    if not isinstance(spec, str):
        raise UserError(f"a strategy is text, an object or a list of these, got {spec!r}.")
    known = {name: list(inspect.signature(cls).parameters) for name, cls in STRATEGIES.items()}
    return [_made(name, given) for name, given in parse(spec, arguments=known)]


def _check_once(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the strategy {name} is given {names.count(name)} times: leave out all but one.")


def _made(name: str, given: dict[str, Any]) -> Strategy:
    """The strategy ``name``, of arguments as text holds them."""
    if name not in STRATEGIES:
        meant = _meant(name, list(STRATEGIES)) or f": choose from {', '.join(STRATEGIES)}."
        raise UserError(f"there is no strategy {name!r}{meant}")
    known = get_type_hints(STRATEGIES[name].__init__)
    known.pop("return", None)
    for key, value in given.items():
        if key not in known:
            raise UserError(f"{name} takes {', '.join(known) or 'no arguments'}, not {key!r}{_meant(key, list(known))}")
        if not _fits(value, known[key]):
            raise UserError(f"{name}: {key} must be {_wanted(known[key])}, got {value!r}.")
    try:
        made = STRATEGIES[name](**given)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{render([(name, given)])} cannot be made: {error}.") from error
    made.asked = (name, given)
    return made


_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("text", (str,)),
    type(None): ("none", (type(None),)),
}


def _fits(value: Any, kind: Any) -> bool:
    """Whether ``value`` is of a kind that is annotated; for Python, true and false are numbers, here they are not."""
    if get_args(kind):
        return any(_fits(value, one) for one in get_args(kind))
    if isinstance(value, bool) and kind in (int, float):
        return False
    return kind not in _KINDS or isinstance(value, _KINDS[kind][1])


def _wanted(kind: Any) -> str:
    return " or ".join(_KINDS[one][0] for one in get_args(kind) or (kind,))


def _meant(word: str, options: list[str]) -> str:
    near = get_close_matches(word, options, n=1)
    return f": did you mean {near[0]!r}?" if near else ""
