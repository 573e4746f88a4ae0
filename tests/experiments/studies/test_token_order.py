"""Tests what a model sees of the order of its tokens, with positions, a mask, or neither."""

import pytest

from experiments.studies.claims.token_order import ORDERS, distances, order_study

MIRROR, OTHER = ORDERS


def test_without_positions_and_mask_no_order_is_seen_and_a_mask_alone_shows_it():
    """Attention without positions is equivariant to permutations (1706.03762, section 3.5)."""
    assert distances("nope", causal=False, seed=0) == {MIRROR: 0.0, OTHER: 0.0}
    assert min(distances("nope", causal=True, seed=0).values()) > 1e-4


@pytest.mark.slow
def test_a_bias_without_direction_confuses_mirror_images_alone():
    records = order_study(("rope", "alibi", "cope", "rnope_swa", "wall"), 1).records
    actual = {(r["scheme"], r["pair"]): r["distance"] for r in records}
    assert actual["alibi", MIRROR] == 0.0 and actual["alibi", OTHER] > 1e-3
    assert actual["rope", MIRROR] > 1e-3 and actual["rnope_swa", MIRROR] > 1e-4
    assert actual["cope", MIRROR] > 1e-3  # although its table begins at 0
    assert actual["wall", OTHER] > 1e-4  # although its gates begin open
    # Another processor rounds other digits.
    assert all(far == float(f"{far:.1e}") for far in actual.values())
