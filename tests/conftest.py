"""Every test runs on eight virtual CPU devices and refuses silent rank promotion."""

import importlib.metadata
import itertools
import os
from pathlib import Path

# Nearly all of the time goes into compiling programs that run once: let XLA not try hard. A flag
# it does not know ends the process, so the third is for the version that has it. Flags of the
# caller's come later and win, but for the number of devices.
quick = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    quick.append("--xla_cpu_use_fusion_emitters=false")
devices = "--xla_force_host_platform_device_count=8"

# Read when jax is first imported.
os.environ["XLA_FLAGS"] = " ".join([*quick, os.environ.get("XLA_FLAGS", ""), devices])
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """Brings the tests of one scheme together, so that a worker's compiled programs are reused."""

    def scheme(item):
        callspec = getattr(item, "callspec", None)
        return str(callspec.params.get("name", "")) if callspec else ""

    items.sort(key=scheme)


_tests = itertools.count(1)
_MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def few_programs():
    """Forgets compiled programs in time: each takes memory maps, and Linux allows 65,530."""
    yield
    if next(_tests) % 20 == 0 and _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > 45_000:
        jax.clear_caches()
