"""How the C library treats memory that a training step frees."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let what is freed be allocated again, rather than handed back to the system.

    By default glibc maps every large array anew and unmaps it when it is freed, so that each step on a CPU has all
    pages of its feature maps cleared by the system again. Results do not change. Elsewhere than with glibc nothing
    happens.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, -1)
