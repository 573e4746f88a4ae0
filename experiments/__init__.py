"""Trains models and compares encodings, in programs that use the library.

``launch.py`` runs the experiment that a config names; ``registry.py`` lists them. A subpackage
imports only those below it:

    studies/     asks: on text, tasks, images and longer contexts, and of all answers together
    running/     runs the points of a study, here or in a queue of machines
    evaluation/  measures trained models, beyond the trained length and inside
    pretrained/  reads and writes published weights, and reads finished runs back
    training/    makes models: data, recipe, step, loop, checkpoints, and arrays on devices
    results/     keeps records of runs, computes statistics, and writes tables, figures and pages

All subpackages use the files beside this one: the fields of configs, the commands, their progress,
and how a process joins a job, and ends when it is preempted or another process is lost.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

_NEEDS = "{} needs the package {}; run: pip install -e '.[{}]'"


def require(packages: Mapping[str, str]) -> None:
    """Ends the program with a one-sentence error if a package, given by its module, is missing.

    It exits instead of raising an ImportError, because users of a program need no traceback.
    """
    if missing := [package for module, package in packages.items() if _spec(module) is None]:
        raise SystemExit(
            f"error: experiments need {' and '.join(missing)}, which the library alone does not; "
            "run: pip install -e '.[experiments]'"
        )


def imported(package: str, extra: str, purpose: str) -> ModuleType:
    """Imports an optional package, or raises a ValueError that says which ``extra`` brings it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ValueError(_NEEDS.format(purpose, package, extra)) from None


def folder_of(package: str, extra: str, purpose: str) -> Path:
    """Returns the folder of an optional package, without importing it; raises as ``imported``."""
    spec = _spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(_NEEDS.format(purpose, package, extra))
    return Path(spec.origin).parent


def _spec(module: str):
    try:
        return importlib.util.find_spec(module)
    except ImportError:
        return None


# The packages that experiments import and posenc_jax does not require. ``studies`` requires the
# packages that draw, because machines that only time steps do not need them.
require({"ml_collections": "ml_collections", "rich": "rich", "yaml": "pyyaml", "scipy": "scipy"})
require({"etils": "etils", "fsspec": "fsspec", "pandas": "pandas"})
