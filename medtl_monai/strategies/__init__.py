"""Transfer-learning strategies, by name (for configurations) and by class (for Python)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

from ..utils import UserError
from .average import EMA
from .base import Chain, Context, Step, Strategy, Target
from .contrast import LinearDependency, SimCVD
from .feature import AFN, CDAN, CORAL, DANN, JAN, MCC, MMD, AdaBN, MixStyle
from .instance import (
    ClassBalanced,
    Focal,
    Importance,
    SampleWeights,
    SourceSelection,
    TrAdaBoost,
    discriminator_weights,
    kernel_mean_matching,
    kliep,
)
from .parameter import (
    L1,
    L2,
    L2SP,
    LPFT,
    Discriminative,
    FineTune,
    Freeze,
    FreezeBN,
    GradualUnfreeze,
    PartialFreeze,
    Scratch,
    l1_penalty,
    l2_penalty,
    l2_sp_penalty,
)
from .place import Localization
from .relation import AttentionTransfer, CoTuning, RelationalDistillation, SimilarityPreserving
from .semi import VAT, FixMatch, MeanTeacher, PseudoLabel
from .source import BSS, DELTA, L1SP, AlphaBeta, AutoRGN, BitFit, LwF, Mixout, Surgical
from .tap import extract
from .text import parse, render

__all__ = [
    "AFN",
    "BSS",
    "CDAN",
    "CORAL",
    "DANN",
    "DELTA",
    "EMA",
    "FAMILIES",
    "JAN",
    "L1",
    "L1SP",
    "L2",
    "L2SP",
    "LPFT",
    "MCC",
    "MMD",
    "STRATEGIES",
    "VAT",
    "AdaBN",
    "AlphaBeta",
    "AttentionTransfer",
    "AutoRGN",
    "BitFit",
    "Chain",
    "ClassBalanced",
    "CoTuning",
    "Context",
    "Discriminative",
    "FineTune",
    "FixMatch",
    "Focal",
    "Freeze",
    "FreezeBN",
    "GradualUnfreeze",
    "Importance",
    "LinearDependency",
    "Localization",
    "LwF",
    "MeanTeacher",
    "MixStyle",
    "Mixout",
    "PartialFreeze",
    "PseudoLabel",
    "RelationalDistillation",
    "SampleWeights",
    "Scratch",
    "SimCVD",
    "SimilarityPreserving",
    "SourceSelection",
    "Step",
    "Strategy",
    "Surgical",
    "Target",
    "TrAdaBoost",
    "build",
    "check",
    "describe",
    "discriminator_weights",
    "extract",
    "kernel_mean_matching",
    "kliep",
    "l1_penalty",
    "l2_penalty",
    "l2_sp_penalty",
]

FAMILIES: dict[str, dict[str, type[Strategy]]] = {
    "parameter": {
        "finetune": FineTune,
        "scratch": Scratch,
        "freeze": Freeze,
        "freeze_bn": FreezeBN,
        "partial_freeze": PartialFreeze,
        "gradual_unfreeze": GradualUnfreeze,
        "discriminative": Discriminative,
        "lp_ft": LPFT,
        "l1": L1,
        "l2": L2,
        "l2_sp": L2SP,
        "l1_sp": L1SP,
        "delta": DELTA,
        "bss": BSS,
        "lwf": LwF,
        "alpha_beta": AlphaBeta,
        "mixout": Mixout,
        "bitfit": BitFit,
        "surgical": Surgical,
        "auto_rgn": AutoRGN,
        "ema": EMA,
    },
    "feature": {
        "mmd": MMD,
        "jan": JAN,
        "coral": CORAL,
        "dann": DANN,
        "cdan": CDAN,
        "mcc": MCC,
        "afn": AFN,
        "adabn": AdaBN,
        "mixstyle": MixStyle,
        "linear_dependency": LinearDependency,
        "localization": Localization,
    },
    "instance": {
        "class_balanced": ClassBalanced,
        "focal": Focal,
        "sample_weights": SampleWeights,
        "importance": Importance,
        "source_selection": SourceSelection,
        "tradaboost": TrAdaBoost,
    },
    "relation": {
        "co_tuning": CoTuning,
        "rkd": RelationalDistillation,
        "similarity_preserving": SimilarityPreserving,
        "attention_transfer": AttentionTransfer,
        "simcvd": SimCVD,
    },
    "semi-supervised": {
        "vat": VAT,
        "mean_teacher": MeanTeacher,
        "pseudo_label": PseudoLabel,
        "fixmatch": FixMatch,
    },
}
"""Every strategy by family and name."""

STRATEGIES: dict[str, type[Strategy]] = {name: cls for family in FAMILIES.values() for name, cls in family.items()}
"""Every strategy by name."""


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
    names = [part.asked[0] for part in parts if part.asked]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the strategy {name} is given {names.count(name)} times: leave out all but one.")
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
        >>> describe(["l2_sp( alpha = 0.5 )", "freeze_bn", L2(weight=1.0)])
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
