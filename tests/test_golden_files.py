"""Checks the golden arrays themselves."""

import common


def test_every_golden_array_is_listed_and_used():
    files = {path.stem for path in common.GOLDEN.glob("*.npz")}
    assert files == set(common.INDEX)
    tests = common.GOLDEN.parent.rglob("test_golden_*.py")
    source = "".join(path.read_text() for path in tests)
    assert not [name for name in files if f'"{name}"' not in source]
