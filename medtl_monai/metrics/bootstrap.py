"""Confidence intervals by resampling patients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Bootstrap", "add_intervals", "patient_bootstrap"]

Array = NDArray[Any]

RESAMPLED_WEIGHTS = 2**22  # weights held at a time (32 MiB), so that large cohorts fit in memory


class Bootstrap(NamedTuple):
    """Interval of a statistic: its ends (NaN if there is none) and how many resamples left it undefined."""

    low: Array
    high: Array
    undefined_resamples: Array


def patient_bootstrap(
    statistic: Callable[[Array], Array], patients: ArrayLike, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Bootstrap:
    """Percentile interval of a statistic when patients, with all their images, are drawn with replacement.

    Images of one patient resemble each other, so resampling images would give intervals that are too narrow. The
    resamples do not depend on the order of the images. Those where the statistic is undefined are left out and counted;
    there is no interval if they are more than half, or with fewer than two patients. A perfect score gets an interval
    of width 0: the bootstrap knows no errors but those that occurred.

    Field and Welsh, Bootstrapping Clustered Data, Journal of the Royal Statistical Society B, 2007.

    Args:
        statistic: maps weights ``(R, N)``, how often each image was drawn, to values ``(R, ...)``, NaN if undefined.
        patients: ``(N,)``, the patient of each image.
        n: number of resamples.
        seed: of the draw.
        level: share of the resamples inside the interval.

    Raises:
        ValueError: ``n`` or ``level`` is out of range.

    Example:
        >>> x = np.array([1.0, 2.0, 3.0, 4.0])
        >>> mean = lambda weights: weights @ x / weights.sum(axis=1)
        >>> low, high, undefined = patient_bootstrap(mean, ["a", "a", "b", "b"])
        >>> float(low), float(high), int(undefined)
        (1.5, 3.5, 0)
    """
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"Expected n of at least 1 and a level between 0 and 1, got {n} and {level}.")
    ids, image_patient = np.unique(np.asarray(patients), return_inverse=True)
    generator, share = np.random.default_rng(seed), np.full(len(ids), 1 / len(ids))
    block = max(1, RESAMPLED_WEIGHTS // len(image_patient))
    sizes = [min(block, n - start) for start in range(0, n, block)]
    draws = (generator.multinomial(len(ids), share, size=size)[:, image_patient].astype(float) for size in sizes)
    values = np.concatenate([statistic(weights) for weights in draws])
    undefined = np.isnan(values).sum(axis=0)
    usable = (undefined <= n / 2) & (len(ids) > 1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.nanquantile(np.where(usable, values, 0.0), tails, axis=0)
    return Bootstrap(np.where(usable, low, np.nan), np.where(usable, high, np.nan), undefined)


def add_intervals(rows: list[dict[str, Any]], bootstrap: Bootstrap, *, patients: int, resamples: int) -> None:
    """Put ``interval`` and ``undefined_resamples`` into the entries of metrics, with a ``reason`` if there is none.

    Args:
        rows: the entries of each row of the bootstrapped statistic ``(len(rows), metrics)``, by metric.
        bootstrap: of the same statistic.
        patients: how many were resampled.
        resamples: how often.
    """
    for row, entries in enumerate(rows):
        for column, entry in enumerate(entries.values()):
            low, high = float(bootstrap.low[row, column]), float(bootstrap.high[row, column])
            entry["undefined_resamples"] = missing = int(bootstrap.undefined_resamples[row, column])
            entry["interval"] = [low, high]
            if entry["value"] is None or np.isnan(low):
                entry["interval"] = None
                few = "fewer than two patients" if patients < 2 else f"undefined in {missing} of {resamples} resamples"
                entry.setdefault("reason", f"no interval: {few}")
