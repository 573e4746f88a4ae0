"""Every tutorial runs: its cells in order, in a process of their own."""

import os
import re
import subprocess
import sys

import common
import pytest

FOLDER = common.ROOT / "docs/tutorials"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.stem != "index")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path):
    cells = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```$", page.read_text(), re.M | re.S)
    assert cells
    script = tmp_path / f"{page.stem}.py"
    script.write_text("\n".join(cells))
    # As in the site's build: in the page's folder, with JAX as users have it.
    variables = dict(PYTHONPATH=str(common.ROOT), MPLBACKEND="agg", JAX_PLATFORMS="cpu")
    ran = subprocess.run(
        [sys.executable, script],
        cwd=FOLDER,
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr


def test_the_index_lists_every_tutorial():
    listed = re.findall(r"\]\(([\w-]+)\.md\)", (FOLDER / "index.md").read_text())
    assert sorted(listed) == [page.stem for page in PAGES]
