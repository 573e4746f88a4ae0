"""Tests that packages import only what docs/architecture.md has below them."""

from pathlib import Path

from docs.site.architecture import imports, packages

ROOT = Path(__file__).parents[1]


def test_rooms_import_only_what_is_below_them():
    order = packages((ROOT / "docs/architecture.md").read_text())
    place = {package: number for number, package in enumerate(order)}
    edges = imports(ROOT, order)
    assert len(edges) > 50 and {package for pair in edges for package in pair} <= {*order}
    upward = {pair: files for pair, files in edges.items() if place[pair[0]] > place[pair[1]]}
    assert not upward
