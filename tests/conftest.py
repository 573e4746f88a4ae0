"""Every test runs on eight virtual CPU devices and refuses silent rank promotion."""

import ctypes
import fcntl
import functools
import gc
import importlib.metadata
import os
import shutil
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
# A program that one worker has compiled is read by the others, and by the next run of the tests.
compiled = Path(__file__).parents[1] / "build/compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Where in our source an operation stands is written into every program, and no test reads it.
jax.config.update("jax_traceback_in_locations_limit", 0)
# Tracing makes so many objects that looking for garbage as often as usual takes a tenth of a run.
gc.set_threshold(200_000, 20, 20)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Brings together what shares programs or fixtures, for one worker to run in one go.

    The tests of a file that has fixtures of its own come first, because they take longest; then
    those of each scheme; and at the end all others, one by one, for workers to be done together.
    """

    def place(item):
        if _has_fixtures(item.path):
            return 0, item.path.stem
        return (1, name) if (name := _scheme_of(item)) else (2, "")

    items.sort(key=place)
    for item in items:
        rank, group = place(item)
        if rank < 2:
            item.add_marker(pytest.mark.xdist_group(group))


def _scheme_of(item) -> str | None:
    """Returns the scheme that a case is about, if it is about one."""
    from posenc_jax import REGISTRY

    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("name") if callspec else None
    return name if isinstance(name, str) and name in REGISTRY else None


@functools.cache
def _has_fixtures(path: Path) -> bool:
    """Says whether tests of a file share what takes long to make."""
    return 'scope="module"' in path.read_text()


_MOST_BYTES = 2.4e9
_STATUS = Path("/proc/self/statm")


@pytest.fixture(autouse=True)
def little_memory():
    """Forgets compiled programs where Linux says that memory is short."""
    yield
    if not _STATUS.exists():
        return
    pages = int(_STATUS.read_text().split()[1])
    if pages * os.sysconf("SC_PAGE_SIZE") > _MOST_BYTES:
        jax.clear_caches()
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Returns a folder that all workers of pytest-xdist share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def corpus(shared):
    """Makes a folder of small text files, and returns the ``files:`` corpus that covers it."""

    def make(folder):
        for number in range(40):
            words = (f"{number} tokens in a row, {step} of them. " for step in range(40))
            (folder / f"{number}.txt").write_text("".join(words))

    return f"files:{_made_once(shared / 'corpus', make)}/*.txt"


@pytest.fixture(scope="session")
def finished(shared, corpus):
    """Returns the workdir of a tiny comparison that has ended; tests read it, and copy to write."""
    import tiny_runs as runs

    from experiments.running.pool import run_points

    def make(workdir):
        one, _ = runs.comparison(runs.config(corpus), workdir)
        assert run_points(one) == []
        one.write_report("the command")

    return _made_once(shared / "finished", make)


@pytest.fixture
def workdir(finished, tmp_path):
    """Returns a copy of the finished workdir."""
    return Path(shutil.copytree(finished, tmp_path / "workdir"))


def _made_once(folder, make):
    """Returns a folder that the first worker to come makes, and the others wait for."""
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder
