"""Trains models and compares encodings, in programs that use the library.

``launch.py`` runs the experiment that a config names; ``registry.py`` lists them. Where to begin:

    compare.py                     schemes on text
    tasks/, multimodal/            schemes on tasks about order, and on images, videos and stories
    extension.py, longrope/        trained models that are made longer
    atlas.py, claims.py, guide.py  all schemes at all questions, published claims, the guide of both
    train.py, loop.py, run.py      one step of training, all steps, the files of a run
    data.py                        the corpora
    evaluate.py, probes.py         the losses beyond the trained length, a look into trained models
    mesh.py, checkpoint.py         arrays on devices, and on disk
    report/, submit/               pages and tables, queues of machines

``sweep.py`` and ``experiment.py`` hold what comparisons share, ``schedule.py`` runs their points.
"""

import importlib.util
from collections.abc import Mapping


def require(packages: Mapping[str, str]) -> None:
    """Ends the program with a sentence if a package is missing.

    This is an exit instead of an ImportError, because users of a program need no traceback.

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


# The packages that experiments import beyond those that posenc_jax requires. What draws is required
# by ``report``, because steps are timed on machines that need not draw.
require({"ml_collections": "ml_collections", "rich": "rich", "yaml": "pyyaml", "scipy": "scipy"})
require({"etils": "etils", "fsspec": "fsspec"})
