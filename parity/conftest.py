"""Makes the modules of tests/ importable here."""

import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
