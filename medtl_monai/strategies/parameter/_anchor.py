"""How a strategy names the buffers that hold where the weights started."""

from __future__ import annotations

__all__ = ["anchor_name"]


def anchor_name(name: str) -> str:
    """Of the parameter ``name``; a buffer's name must not hold a dot."""
    return "anchor_" + name.replace(".", "__")
