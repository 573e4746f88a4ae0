"""Compares every scheme with its paper's equation, written in ``schemes`` in float64 NumPy."""

import pathlib

import common
import jax
import numpy as np
import pytest
import schemes

BATCH, TOKENS, HEAD_DIM = 3, 20, 16
LIST = pathlib.Path(__file__).parents[1] / "docs/schemes/index.md"


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def reference_attention(equations, x_BTD, positions_BT, own, weights, projections):
    outputs = []
    positions_BT = equations.place(positions_BT, own)
    # The equations have the axes of positions first.
    for x_TD, positions_T in zip(x_BTD, [row.T for row in positions_BT], strict=True):
        x_TD = equations.embed(x_TD, positions_T, own, weights)
        q, k, v = (np.einsum("td,dhc->thc", x_TD, w) for w in projections)
        equations.observe(x_TD, own, weights)
        logits_HTS = equations.logits(q, k, positions_T, own, weights)
        # A query sees the tokens written before it, wherever their positions lie.
        logits_HTS = np.where(np.tri(len(x_TD), dtype=bool), logits_HTS, -np.inf)
        attention_HTS = softmax(logits_HTS)
        out_THC = np.einsum("hts,shc->thc", attention_HTS, v)
        outputs.append(equations.values(out_THC, attention_HTS, positions_T, own, weights))
    return np.stack(outputs)


CASES = [(name, i) for name, scheme in schemes.ALL.items() for i in range(len(scheme.settings))]


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_attention_is_the_equation(name, setting):
    scheme = schemes.ALL[name]
    own = scheme.settings[setting]
    num_heads = own.get("num_heads", common.HEADS)
    encoding = common.build(name, head_dim=HEAD_DIM, **own)
    weights = common.parameters_float64(encoding)
    rng = np.random.default_rng(setting)
    positions = np.stack([rng.choice(150, TOKENS, replace=False) for _ in range(BATCH)])
    positions[0] //= 8  # a row within the training length, with positions that repeat
    positions = positions.astype(np.int32)
    if setting and not scheme.whole_positions_only:
        positions = positions.astype(np.float32) * np.float32(0.75) - 9
    if setting and scheme.num_axes > 1:
        axes = [rng.permuted(positions, axis=1) for _ in range(scheme.num_axes)]
        positions = np.stack(axes, axis=-1) + np.arange(scheme.num_axes, dtype=np.float32)

    x_BTD = 0.5 * common.normal(setting, BATCH, TOKENS, common.WIDTH)
    projections = common.projections(num_heads, HEAD_DIM)
    actual = common.attention(encoding, x_BTD, positions, weights=projections)
    arguments = [a.astype(np.float64) for a in (x_BTD, positions)]
    expected = reference_attention(
        scheme.equations, *arguments, own, weights, [w.astype(np.float64) for w in projections]
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-5)

    # The comparison is worth something only if the order of positions shows in it.
    if scheme.reads_positions:
        mixed = jax.numpy.asarray(np.roll(positions, 1, axis=1))
        other = common.attention(encoding, x_BTD, mixed, weights=projections)
        assert np.abs(other - expected).max() > 1e-2


@pytest.mark.parametrize("name", common.SCHEMES)
def test_every_scheme_has_its_equation(name):
    """A scheme of one's own may go without; those that docs/schemes/index.md lists may not."""
    if name in schemes.ALL:
        assert len(schemes.ALL[name].settings) >= 2
        return
    missing = f"no equation for {name!r}: add it, with two settings or more, to tests/schemes"
    if f"`{name}`" in LIST.read_text():
        pytest.fail(missing)
    pytest.skip(f"nothing compares the numbers with those of the paper, {missing}")
