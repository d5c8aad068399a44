"""The configuration that is running."""

from __future__ import annotations

import inspect

from monai.bundle import ConfigWorkflow

__all__ = ["running"]


def running() -> ConfigWorkflow | None:
    """The workflow that is evaluating this expression; MONAI hands expressions no reference to it."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ConfigWorkflow):
            return frame.f_locals["self"]
        frame = frame.f_back
    return None
