"""Identifies the source code that runs, whether it is committed or not."""

import functools
import hashlib
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PATTERNS = ("launch.py", "posenc_jax/**/*.py", "experiments/**/*.py", "configs/**/*.py")


@functools.cache
def digests() -> dict[str, str]:
    """Returns the SHA-256 of each file of source, by its path in the checkout."""
    paths = sorted(path for pattern in _PATTERNS for path in _ROOT.glob(pattern))
    return {
        str(path.relative_to(_ROOT)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def digest() -> str:
    """Returns a digest of all files of source."""
    return hashlib.sha256(repr(digests()).encode()).hexdigest()[:16]
