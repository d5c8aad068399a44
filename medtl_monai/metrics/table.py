"""The table of metrics that is printed at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["render_metrics"]


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    if entry["value"] is None:
        return f"- ({entry['reason']})"
    if entry["interval"] is None:
        return f"{entry['value']:.3f} ({entry['reason']})"
    low, high = entry["interval"]
    return f"{entry['value']:.3f} [{low:.3f}, {high:.3f}]"


def _column(title: str, part: dict[str, Any], names: Iterable[str]) -> list[str]:
    """What stands of a part: its size, what it was used for, its metrics."""
    size = f"{part['images']} images, {part['patients']} patients"
    return [title, size, ", ".join(part.get("used_for", [])), *(_cell(part["metrics"].get(name)) for name in names)]


def render_metrics(metrics: dict[str, Any]) -> str:
    """The table printed at the end of a run: a row per metric, a column per part, ``value [95% interval]``.

    What a part was used for before, such as choosing the epoch, stands above its scores, which are optimistic then.

    Args:
        metrics: the content of ``metrics.json``; its entries that are not parts are passed over.

    Raises:
        ValueError: there is no part with metrics.

    Example:
        >>> f1 = {"value": 0.9534, "interval": [0.9211, 0.978]}
        >>> print(render_metrics({"val": {"images": 12, "patients": 7, "metrics": {"f1": f1}}}))
        metric  val
                12 images, 7 patients
        f1      0.953 [0.921, 0.978]
    """
    parts = {name: part for name, part in metrics.items() if isinstance(part, dict) and "metrics" in part}
    if not parts:
        raise ValueError(f"Expected at least one part with metrics, got {list(metrics)}.")
    names = dict.fromkeys(name for part in parts.values() for name in part["metrics"])
    columns = [_column(title, part, names) for title, part in parts.items()]
    rows = [row for row in zip(["metric", "", "", *names], *columns, strict=True) if any(row)]
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
