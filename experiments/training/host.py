"""Prepares a CPU host, before any work starts, and says how much memory the work has taken."""

import ctypes
import os
import resource
import sys
from pathlib import Path

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Keeps freed memory in the process, for the next step to use again.

    XLA:CPU allocates its buffers again in every execution. By default glibc maps large blocks from
    the kernel and returns them when they are freed, so that every training step pays for tens of
    thousands of page faults, a sixth of its time or more. Call this function before any thread
    starts. On systems without glibc it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)


def keep_compiled(folder: Path | None = None) -> None:
    """Keeps compiled programs where this program and later ones find them again.

    By default that is the folder in the variable JAX_COMPILATION_CACHE_DIR, or else one in the
    user's cache. It is never in a workdir of ``launch.py``, because programs are executed as they
    are found, and a workdir may come from somebody else.
    """
    import jax  # not before ``keep_freed_memory``, because jax starts threads

    if folder is None and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        folder = user_cache("compiled")
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # Faster compilations are not worth a file: reading it would take as long. With this bound a
    # second sweep of small models spends 2.5 % of its time compiling; with 0.5 seconds, 14 %.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def user_cache(name: str) -> Path:
    """Returns a folder of this project in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "posenc_jax" / name


def peak_memory() -> int:
    """Returns the most bytes that a device of this process has held at once.

    A CPU does not say, and then it is the most that the process itself has held.
    """
    import jax

    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in statistics if "peak_bytes_in_use" in stats]
    if peaks:
        return max(peaks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
