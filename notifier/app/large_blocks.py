"""Has the C library return large blocks of memory to the system as soon as they are freed."""

from __future__ import annotations

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # glibc, malloc.h
LARGE_BYTES: Final = 1024 * 1024


def return_large_blocks() -> None:
    """Set the size from which on a block is returned when it is freed; glibc only.

    glibc raises this size by itself, up to 32 MiB, when a larger block is freed. Bodies with files
    then leave gaps in the heap, and a process keeps twice what it holds.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
