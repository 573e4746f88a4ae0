"""Tests that rooms import only what docs/architecture.md has below them."""

from pathlib import Path

from docs.site.architecture import imports, rooms

ROOT = Path(__file__).parents[1]


def test_rooms_import_only_what_is_below_them():
    order = rooms((ROOT / "docs/architecture.md").read_text())
    place = {room: number for number, room in enumerate(order)}
    edges = imports(ROOT, order)
    assert len(edges) > 50 and {room for pair in edges for room in pair} <= {*order}
    upward = {pair: files for pair, files in edges.items() if place[pair[0]] > place[pair[1]]}
    assert not upward
