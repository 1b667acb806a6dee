"""What the C library does with memory that is given back to it."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_KEPT_BYTES = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for itself, which glibc would hand back to the system; True where that worked.

    For processes that free and ask for the same large arrays over and over, as workers do that read training samples:
    the system clears every page that it gives out. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_MMAP_MAX, 0))
