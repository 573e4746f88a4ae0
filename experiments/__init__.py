"""Trains models and compares encodings, in programs that use the library.

``launch.py`` runs the experiment that a config names; ``registry.py`` lists them. The modules:

    compare.py                     schemes on text
    tasks/, multimodal/            schemes on tasks about order, and on images, videos and stories
    extension.py, longrope/        trained models that are made longer
    atlas.py, claims.py, guide.py  all schemes and questions, published claims, a guide from both
    train.py, loop.py, run.py      one step of training, all steps, the files of a run
    data.py                        the corpora
    evaluate.py, probes.py         losses beyond the trained length, and inside trained models
    mesh.py, checkpoint.py         arrays on devices, and on disk
    report/, submit/               pages and tables, queues of machines

``sweep.py`` and ``experiment.py`` hold what comparisons share, ``schedule.py`` runs their points.
"""

import importlib.util
from collections.abc import Mapping


def require(packages: Mapping[str, str]) -> None:
    """Ends the program with a one-sentence error if a package is missing.

    It exits instead of raising an ImportError, because users of a program need no traceback.

    Args:
      packages: for each module, the name of its package.
    """
    if missing := [package for module, package in packages.items() if _is_missing(module)]:
        raise SystemExit(
            f"error: experiments need {' and '.join(missing)}, which the library alone does not; "
            "run: pip install -e '.[experiments]'"
        )


def _is_missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ImportError:
        return True


# The packages that experiments import beyond those that posenc_jax requires. ``report`` requires
# the packages that draw, because machines that only time steps do not need them.
require({"ml_collections": "ml_collections", "rich": "rich", "yaml": "pyyaml", "scipy": "scipy"})
require({"etils": "etils", "fsspec": "fsspec"})
