"""Runs tests in a copy of the tree that has one error."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from tests.mutants import choose
from tests.mutants.changes import Change

SECONDS = 1800  # for one error; tests that take longer, because of a loop, have noticed it
# What a test of an experiment imports.
_EXPERIMENTS = re.compile(r"^\s*(from|import) (experiments|launch|configs|benchmarks)\b", re.M)


@dataclasses.dataclass(frozen=True)
class Result:
    """Holds the first test that failed under an error, or "" if all passed."""

    change: Change
    noticed_by: str
    seconds: float


def copy_of_tree(folder: pathlib.Path) -> pathlib.Path:
    """Copies all that git has or would add into a new folder, and returns it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=choose.ROOT, capture_output=True, text=True, check=True)
    for name in names.stdout.splitlines():
        if (choose.ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(choose.ROOT / name, folder / name)
    return folder


def tried(change: Change, tree: pathlib.Path) -> Result:
    """Runs the tests that should notice ``change``, then the library's others, until one does."""
    file, begun = tree / change.path, time.monotonic()
    source = file.read_bytes()
    words, room = choose.words_of(change), pathlib.PurePath(change.path).parts[1]
    described = {"schemes": choose.schemes_of(change), "words": words, "room": room}
    # The equations and golden arrays of tests/encodings notice most errors.
    files = (tree / "tests").rglob("test_*.py")
    tests = sorted(files, key=lambda file: ("encodings" not in file.parts, file))
    near = [
        file
        for file in tests
        if room in file.parts
        or choose.takes_schemes(file)
        or choose.is_about(file.read_text(), words)
    ]
    others = [f for f in tests if not _EXPERIMENTS.search(f.read_text())]
    try:
        file.write_bytes(change.applied(source))
        noticed_by = _run(tree, near, described | {"near": True})
        noticed_by = noticed_by or _run(tree, others, described | {"near": False})
    finally:
        file.write_bytes(source)
    return Result(change, noticed_by, time.monotonic() - begun)


def _run(tree, files, described) -> str:
    """Returns the first of the tests that fails, or ""."""
    options = ["-xq", "-m", "not slow", "--tb=no", "-rfE"]
    plugins = ["-p", "tests.mutants.plugin", "-p", "no:cacheprovider"]
    variables = {
        "MUTANT": json.dumps(described),
        # A file of bytecode may be as old as the error, to the second.
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(tree),
        # Most programs are those of the tree without the error.
        "JAX_COMPILATION_CACHE_DIR": str(choose.ROOT / "build/compiled"),
    }
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *plugins, *map(str, files)],
            cwd=tree,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:  # the machine may be slow, so this is no sign of an error
        return ""
    if run.returncode in (0, 5):  # 5 says that no test was left
        return ""
    failure = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout + run.stderr, re.M)
    return failure[1].removeprefix("tests/") if failure else "collection"
