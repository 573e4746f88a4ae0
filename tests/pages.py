"""Reads and runs the Python of a page, as a reader does: from top to bottom, in one namespace.

Blocks that are marked ``python no-run`` are left out: they download something, or are a line of
another file.
"""

import re
from typing import Any

import common
import numpy as np

INCLUDE = re.compile(
    r'```{include} (\S+)\n(?::.*\n)*?:start-after: "(.*)"\n:end-before: "(.*)"\n```'
)


def printed(name: str) -> str:
    """Returns a page with the parts of other pages that it includes."""

    def included(match: re.Match) -> str:
        file, start, end = match.groups()
        text = ((common.ROOT / name).parent / file).read_text()
        return text.split(start)[1].split(end)[0]

    return INCLUDE.sub(included, (common.ROOT / name).read_text())


def blocks(name: str) -> list[str]:
    """Returns the Python of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```", printed(name), re.DOTALL | re.M)


def run(name: str) -> dict[str, Any]:
    """Runs a page, and returns its names. Outputs and logits must be finite after each block."""
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks(name), start=1):
        exec(compile(block, f"{name}, block {number}", "exec"), names)
        for variable, value in names.items():
            if variable.startswith(("out", "logits")):
                assert np.isfinite(value).all(), f"{name}, block {number}: {variable}"
    return names
