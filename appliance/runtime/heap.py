"""How this process's C library hands out memory.

Owns three settings of glibc's malloc; another C library is left as it is. As it comes, glibc gives
each thread a heap of its own and gives freed pieces of a body back to the kernel at once, only to
have the kernel clear the same pages for the next piece: a fifth of a large read. Two heaps that
keep a bounded rest are faster and smaller.
"""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_MEBIBYTE: Final = 1024 * 1024


def settle_heap() -> None:
    """Choose for a process that moves bodies. Call it before threads are started."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 2)
        mallopt(_TRIM_THRESHOLD, 32 * _MEBIBYTE)
        mallopt(_MMAP_THRESHOLD, 4 * _MEBIBYTE)
