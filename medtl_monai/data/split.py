"""Splits by patient: balanced by class and by number of images, reproducible, independent of the order of the rows."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..utils import UserError, write_table

__all__ = ["fold_patients", "split_patients", "write_split_csv"]

_CANDIDATES = 64
_TOLERANCE = 0.02  # a split whose classes all lie this near to the wanted share is good enough

Item = Mapping[str, Any]


def split_patients(
    items: Sequence[Item],
    *,
    val_fraction: float = 0.2,
    fold: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> list[str]:
    """A part, ``train``, ``val`` or ``test``, for each item, such that no patient stands in two parts.

    Patients are drawn class by class (a patient's class is its most frequent label, or the rarer of two), so that each
    class has about ``val_fraction`` of its *images* in the validation part: patients differ in how many images they
    have. Items that carry a ``split`` keep it; if none of them is for validation, this is made from the training
    patients. Where findings may stand together (labels are lists of 1, 0 and NaN), a patient counts under his rarest
    finding.

    Args:
        items: with ``image``, ``label``, ``patient`` and perhaps ``split``.
        val_fraction: share of each class's images, above 0 and at most 0.5.
        fold: which of ``round(1 / val_fraction)`` disjoint folds is the validation part, from 0; default: random.
        seed: of the choice.
        classes: names of the labels, for messages.

    Raises:
        UserError: a class has fewer than two patients, nothing is left for training, or a setting is out of range.

    Example:
        >>> items = [{"patient": f"p{i}", "label": i % 2} for i in range(10)]
        >>> split_patients(items).count("val")
        2
    """
    parts = [item.get("split") or "train" for item in items]
    if "train" not in parts:
        raise UserError(f"no image is for training: the data's own split names only {', '.join(sorted(set(parts)))}.")
    if "val" in parts:
        if fold is not None:
            raise UserError(f"fold {fold} has no effect, as the data's own split names val: leave fold out.")
        return parts
    chosen = [i for i, part in enumerate(parts) if part == "train"]
    val = _choose([items[i] for i in chosen], val_fraction, fold, seed, classes)
    for i in chosen:
        if str(items[i]["patient"]) in val:
            parts[i] = "val"
    return parts


def fold_patients(
    items: Sequence[Item], *, most: int = 5, seed: int = 0, classes: Sequence[str] | None = None
) -> list[int]:
    """A fold, from 0, for each item, such that no patient stands in two; the classes are spread evenly.

    There are as many folds as the class with the fewest patients has patients, but at most ``most``.

    Args:
        items: with ``label``, an integer, and ``patient``.
        most: how many folds at most.
        seed: of the choice.
        classes: names of the labels, for messages.

    Raises:
        UserError: a class has fewer than two patients.

    Example:
        >>> fold_patients([{"patient": f"p{i // 2}", "label": i // 4} for i in range(8)], seed=1)
        [0, 0, 1, 1, 0, 0, 1, 1]
    """
    groups = _by_class(items)
    _check_enough(groups, 2, classes)
    count = min(most, *map(len, groups.values()))
    sizes, rng = Counter(str(item["patient"]) for item in items), np.random.default_rng(seed)
    fold_of = {
        patient: fold
        for patients in groups.values()
        for fold, chosen in enumerate(_folds(patients, sizes, count, rng))
        for patient in chosen
    }
    return [fold_of[str(item["patient"])] for item in items]


def write_split_csv(path: str | os.PathLike[str], items: Sequence[Item], parts: Sequence[str]) -> None:
    """Write which image and patient went into which part: ``image,patient,label,domain,part``, as the items say it."""
    rows = (
        [item["image"], item.get("patient"), item.get("label"), item.get("domain", ""), name]
        for item, name in zip(items, parts, strict=True)
    )
    write_table(path, [["image", "patient", "label", "domain", "part"], *rows])


def _choose(
    items: Sequence[Item], val_fraction: float, fold: int | None, seed: int, classes: Sequence[str] | None
) -> set[str]:
    folds = _folds_of(val_fraction, fold)
    least = 2 if fold is None else folds
    if isinstance(items[0]["label"], Sequence):
        groups = _by_rarest_finding(items, least)
    else:
        groups = _by_class(items)
        _check_enough(groups, least, classes)
    sizes = Counter(str(item["patient"]) for item in items)
    rng = np.random.default_rng(seed)
    if fold is not None:
        return {p for patients in groups.values() for p in _folds(patients, sizes, folds, rng)[fold]}
    return _best_draw(list(groups.values()), sizes, val_fraction, rng)


def _folds_of(val_fraction: float, fold: int | None) -> int:
    """How many folds there are.

    Raises:
        UserError: a setting is out of range.
    """
    if not 0 < val_fraction <= 0.5:
        raise UserError(f"val_fraction must be above 0 and at most 0.5, got {val_fraction}.")
    folds = round(1 / val_fraction)
    if fold is not None and not (isinstance(fold, int) and 0 <= fold < folds):
        raise UserError(f"fold must be a whole number from 0 to {folds - 1} (1 / val_fraction folds), got {fold!r}.")
    return folds


def _best_draw(
    groups: Sequence[Sequence[str]], sizes: Mapping[str, int], val_fraction: float, rng: np.random.Generator
) -> set[str]:
    """Of several random draws the first that is good enough, else the one whose worst class is best."""
    best: tuple[float, set[str]] = (float("inf"), set())
    for _ in range(_CANDIDATES):
        val = {p for patients in groups for p in _draw(patients, sizes, val_fraction, rng)}
        off = max(
            abs(sum(sizes[p] for p in patients if p in val) / sum(sizes[p] for p in patients) - val_fraction)
            for patients in groups
        )
        if off < best[0]:
            best = (off, val)
        if off <= _TOLERANCE:
            break
    return best[1]


def _by_class(items: Sequence[Item]) -> dict[int, list[str]]:
    """Patients, sorted, by their most frequent label; of equally frequent ones, the rarer in all: the ill breast's."""
    total = Counter(item["label"] for item in items)
    labels: dict[str, Counter[int]] = defaultdict(Counter)
    for item in items:
        labels[str(item["patient"])][item["label"]] += 1
    groups: dict[int, list[str]] = defaultdict(list)
    for patient in sorted(labels):
        own = labels[patient]
        groups[min(own, key=lambda label: (-own[label], total[label], label))].append(patient)
    return groups


def _by_rarest_finding(items: Sequence[Item], least: int) -> dict[int, list[str]]:
    """Patients, sorted, by the rarest of their findings; groups of fewer than ``least`` join those without any (-1)."""
    having = _patients_by_finding(items)
    groups: dict[int, list[str]] = {}
    left = {str(item["patient"]) for item in items}
    for finding in sorted(having, key=lambda finding: (len(having[finding]), finding)):
        if len(having[finding] & left) >= least:
            groups[finding] = sorted(having[finding] & left)
            left -= having[finding]
    if len(left) < least and groups:
        last = next(reversed(groups))
        left |= set(groups.pop(last))
    if len(left) < least:
        raise UserError(f"a split by patient needs at least {least} patients, found {len(left)}: add patients.")
    return {**groups, -1: sorted(left)} if left else groups


def _patients_by_finding(items: Sequence[Item]) -> dict[int, set[str]]:
    having: dict[int, set[str]] = defaultdict(set)
    for item in items:
        for finding, value in enumerate(item["label"]):
            if value == 1:
                having[finding].add(str(item["patient"]))
    return having


def _check_enough(groups: Mapping[int, Sequence[str]], least: int, classes: Sequence[str] | None) -> None:
    for label, patients in sorted(groups.items()):
        if len(patients) < least:
            name = f"number {label}" if classes is None else classes[label]
            count = "1 patient" if len(patients) == 1 else f"{len(patients)} patients"
            raise UserError(
                f"class {name} has images of {count} only; a split by patient needs at least {least} in each class: "
                "add patients, leave the class out"
                f"{', or give a larger val_fraction (fewer folds)' if least > 2 else ''}."
            )


def _draw(patients: Sequence[str], sizes: Mapping[str, int], share: float, rng: np.random.Generator) -> list[str]:
    """Patients in random order for as long as that brings their images nearer to the wanted share."""
    wanted, have = share * sum(sizes[p] for p in patients), 0
    drawn: list[str] = []
    for i in rng.permutation(len(patients)):
        size = sizes[patients[i]]
        if abs(have + size - wanted) < abs(have - wanted) and len(drawn) < len(patients) - 1:
            drawn.append(patients[i])
            have += size
    return drawn or [min(patients, key=lambda p: sizes[p])]


def _folds(patients: Sequence[str], sizes: Mapping[str, int], folds: int, rng: np.random.Generator) -> list[list[str]]:
    """Largest patients first (in random order among equals), each to the fold with the fewest images."""
    order = sorted((patients[i] for i in rng.permutation(len(patients))), key=lambda p: -sizes[p])
    result: list[list[str]] = [[] for _ in range(folds)]
    for patient in order:
        min(result, key=lambda fold: (sum(sizes[p] for p in fold), len(fold))).append(patient)
    return result
