"""Trains models and compares encodings, in programs that use the library."""

import importlib.util

# The packages that experiments import beyond those that posenc_jax requires.
_EXTRA = {"ml_collections": "ml_collections", "rich": "rich", "matplotlib": "matplotlib"}
_EXTRA |= {"PIL": "pillow", "yaml": "pyyaml", "scipy": "scipy"}
_EXTRA |= {"etils": "etils", "fsspec": "fsspec"}


def _is_missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ImportError:
        return True


if _missing := [package for module, package in _EXTRA.items() if _is_missing(module)]:
    # An exit instead of an ImportError, because users of a program need no traceback.
    raise SystemExit(
        f"error: experiments need {' and '.join(_missing)}, which the library alone does not; run: "
        "pip install -e '.[experiments]'"
    )
