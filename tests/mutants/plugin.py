"""Puts the tests that should notice an error first, and leaves out tests that cannot.

pytest loads it in the copy of the tree that has the error, which ``trial`` describes in the
environment variable ``MUTANT``.
"""

import json
import os
from typing import Any

import pytest
from tests.mutants import choose

from posenc_jax.registry import REGISTRY

MUTANT: dict[str, Any] = json.loads(os.environ["MUTANT"])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Sorts tests by how probably they notice the error, the likeliest first."""
    ranks = {item.nodeid: _rank(item) for item in items}
    wanted = (0, 1, 2) if MUTANT["near"] else (3,)
    left_out = [item for item in items if ranks[item.nodeid] not in wanted]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if ranks[item.nodeid] in wanted]
    items.sort(key=lambda item: ranks[item.nodeid])


def _rank(item):
    """Returns 0 for tests of the scheme, 1 of its file, 2 of its room, 3 for others, 4 for none."""
    callspec = getattr(item, "callspec", None)
    values = [str(value) for value in callspec.params.values()] if callspec else []
    schemes = [value for value in values if value in REGISTRY]
    if {*schemes} & {*MUTANT["schemes"]}:
        return 0
    if MUTANT["schemes"] and schemes:  # Another scheme cannot notice it.
        return 4
    if choose.is_about(item.path.read_text(), MUTANT["words"]):
        return 1
    return 2 if MUTANT["room"] in item.path.parts else 3
