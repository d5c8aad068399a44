"""Transfer-learning strategies, by name (for configurations) and by class (for Python)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

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


def build(spec: str | Strategy | Sequence[Any], settings: Mapping[str, Mapping[str, Any]] | None = None) -> Strategy:
    """Turn what stands in a configuration or on the command line into a strategy.

    Args:
        spec: a name of :data:`STRATEGIES`, a strategy, or a list of these, applied in order.
        settings: constructor arguments by strategy name.

    Raises:
        UserError: an unknown name or setting, settings for a strategy that is not used, or parts that clash.

    Example:
        >>> build("l2_sp", {"l2_sp": {"alpha": 0.5}}).alpha
        0.5
        >>> build("l2sp")
        Traceback (most recent call last):
        ...
        medtl_monai.utils.UserError: there is no strategy 'l2sp': did you mean 'l2_sp'?
    """
    settings = settings or {}
    specs = list(spec) if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]
    if not specs:
        raise UserError(f"the list of strategies is empty: give at least one of {', '.join(STRATEGIES)}.")
    for name in settings:
        _check_name(name)
        if settings[name] and name not in specs:
            raise UserError(
                f"settings are given for {name!r}, but the strategy is {spec!r}: they would have no effect."
            )
    parts = [_build_one(one, settings) for one in specs]
    return parts[0] if len(parts) == 1 else Chain(*parts)


def _build_one(spec: Any, settings: Mapping[str, Mapping[str, Any]]) -> Strategy:
    if isinstance(spec, Strategy):
        return spec
    if not isinstance(spec, str):
        raise UserError(f"a strategy is a name, an object or a list of these, got {spec!r}.")
    _check_name(spec)
    given = settings.get(spec, {})
    known = list(inspect.signature(STRATEGIES[spec]).parameters)
    for key in given:
        if key not in known:
            raise UserError(f"{spec} has no setting {key!r}: it has {', '.join(known) or 'none'}{_meant(key, known)}.")
    return STRATEGIES[spec](**given)


def _check_name(name: str) -> None:
    if name not in STRATEGIES:
        meant = _meant(name, list(STRATEGIES))
        raise UserError(f"there is no strategy {name!r}{meant or ': choose from ' + ', '.join(STRATEGIES) + '.'}")


def _meant(word: str, options: list[str]) -> str:
    near = get_close_matches(word, options, n=1)
    return f": did you mean {near[0]!r}?" if near else ""
