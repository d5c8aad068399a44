"""The table of metrics that is printed at the end of a run."""

from __future__ import annotations

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


def render_metrics(metrics: dict[str, Any]) -> str:
    """The table printed at the end of a run: a row per metric, a column per part, ``value [95% interval]``.

    What a part was used for before, such as choosing the epoch, stands above its scores, which are optimistic then.

    Args:
        metrics: the content of ``metrics.json``; its entries that are not parts are passed over.

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
    used = ["", *(", ".join(part.get("used_for", [])) for part in parts.values())]
    rows = [
        ["metric", *parts],
        ["", *(f"{part['images']} images, {part['patients']} patients" for part in parts.values())],
        *([used] if any(used) else []),
        *([name, *(_cell(part["metrics"].get(name)) for part in parts.values())] for name in names),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
