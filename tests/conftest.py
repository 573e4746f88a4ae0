"""Every test runs on eight virtual CPU devices and refuses silent rank promotion."""

import os

# Read when jax is first imported. Nearly all of the time goes into compiling programs that run
# once, so LLVM is told not to try hard; an XLA_FLAGS of the caller's has the last word on that.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_backend_optimization_level=0",
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
    ]
)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """Brings the tests of one scheme together, so that a worker's compiled programs are reused."""

    def scheme(item):
        callspec = getattr(item, "callspec", None)
        return str(callspec.params.get("name", "")) if callspec else ""

    items.sort(key=scheme)
