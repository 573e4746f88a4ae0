"""Functions that read earlier tokens compute exactly, and within a document."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from jax.test_util import check_grads

import posenc_jax
from posenc_jax.encodings.lib.sequence import running_sum
from posenc_jax.positions import text


@pytest.mark.parametrize("mean", [1e-3, 50.0])
def test_differences_of_running_sums_are_exact_however_long_the_sequence(mean):
    x_BTN = mean * np.random.default_rng(0).exponential(size=(1, 1 << 18, 1)).astype(np.float32)
    high, low = jax.jit(running_sum)(x_BTN)
    exact = np.cumsum(x_BTN.astype(np.float64), axis=1)
    for apart in (1, 2, 300, 100_000):
        of_float32 = high[:, apart:] - high[:, :-apart]
        actual = of_float32 + (low[:, apart:] - low[:, :-apart])
        expected = exact[:, apart:] - exact[:, :-apart]
        close(actual, expected, rtol=2e-6, atol=1e-6 * mean)
        if apart < 3:  # what float32 alone would give
            assert np.abs(of_float32 - expected).max() > 1e-3 * mean


KEYWORDS = {
    "path": {"forget_gate": True},
    "kv_shift": {"over": "nope"},
    "dynamic_short_conv": {"over": "nope"},
}


@pytest.mark.parametrize("name", ["fox", "cope", *KEYWORDS])
def test_documents_interleaved_in_any_layout_are_separate_documents(name):
    """Tokens come in another order than they were written, those of two documents by turns.

    PaTH solves two blocks of keys for each document, and three for both together.
    """
    encoding = common.build(name, **KEYWORDS.get(name, {}))
    length, rng = 150, np.random.default_rng(0)
    segment_ids = rng.integers(0, 2, (1, length))
    x_BTD = 0.5 * common.normal(0, 1, length, common.WIDTH)
    layout = rng.permutation(length)

    @jax.jit
    def attend(x_BTD, segment_ids, index):
        here = encoding.at(text(x_BTD.shape[1]), segment_ids, index=index)
        here = here.see(x_BTD)[0]
        q, k, v = (jnp.einsum("btd,dhc->bthc", x_BTD, w) for w in common.projections())
        return posenc_jax.attend(here, q, k, v)

    actual = np.empty((length, common.HEADS, common.HEAD_DIM))
    actual[layout] = attend(x_BTD[:, layout], segment_ids[:, layout], layout[None])[0]
    for document in (0, 1):
        given = np.flatnonzero(segment_ids[0] == document)
        close(actual[given], attend(x_BTD[:, given], None, None)[0])


def test_gradients_of_path():
    """Queries, keys, directions and betas have the gradients of small steps."""
    T, H, C = 9, common.HEADS, common.HEAD_DIM
    encoding = common.build("path")
    q, k, v, w = (common.normal(seed, 1, T, H, C) for seed in range(4))
    w /= np.linalg.norm(w, axis=-1, keepdims=True)
    beta = np.random.default_rng(4).uniform(0, 2, (1, T, H)).astype(np.float32)

    @jax.jit
    def attended(q, k, w, beta):
        here = encoding.at(text(T)).see(jnp.zeros((1, T, common.WIDTH)))[0]
        here = common.having(here, {"w": w, "beta": beta, "gate": None})
        return posenc_jax.attend(here, q, k, v)

    check_grads(attended, (q, k, w, beta), order=1, modes=["rev"], atol=5e-3, rtol=5e-3)


# Keys and values that are mixed with those before them


B, T = 2, 9
X_BTD = common.normal(0, B, T, common.WIDTH)
Q, K, V = (common.normal(seed, B, T, common.HEADS, common.HEAD_DIM) for seed in (1, 2, 3))


attend = jax.jit(posenc_jax.attend)


@jax.jit
def seen(encoding):
    return encoding.at(text(T)).see(jnp.asarray(X_BTD))[0]


def test_the_other_scheme_sees_keys_and_values_after_the_shift():
    """FoX reads the layer's input too, and has the same gates as without a shift."""
    encoding = common.build("kv_shift", over="fox")
    gates = 1 / (1 + np.exp(-X_BTD @ np.asarray(encoding.kernel[...])))
    mixed = []
    for x, g in zip((K, V), np.split(gates, 2, axis=-1), strict=True):
        before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
        mixed.append(g[..., None] * before + (1 - g[..., None]) * x)

    close(attend(seen(encoding), Q, K, V), attend(seen(encoding.inner), Q, *mixed))


def test_a_key_that_follows_one_not_given_is_no_number():
    encoding = common.build("kv_shift")

    @jax.jit
    def both(here):
        rest = here.part(4, T - 4).keys(K[:, 4:], V[:, 4:])
        return posenc_jax.logits(here, Q, K), posenc_jax.logits(here.part(0, T), Q, rest)

    whole, logits = both(seen(encoding))
    assert np.isnan(logits[..., 0]).all()
    close(logits[..., 1:], whole[..., 5:])


def test_cope_under_a_window_counts_what_the_window_shows():
    here = seen(common.build("cope"))
    windowed = attend(here, Q, K, V, window=5)
    alone = attend(here.part(T - 5, 5), *(x[:, -5:] for x in (Q, K, V)))
    close(windowed[:, -1], alone[:, -1])
