"""Compares Wall attention, GRAPE and shifted keys with their authors' code."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import as_published, close

import posenc_jax
from posenc_jax.encodings.bias.alibi import alibi_slopes
from posenc_jax.positions import text


def float32(name):
    arrays, params = common.golden(name)
    return {key: jnp.asarray(x, jnp.float32) for key, x in arrays.items()}, params


@jax.jit
def run(encoding, q, k, v, x_BTD, window=None, sinks=None):
    """Returns the logits and the attended sums of a layer of text."""
    tokens = encoding.tokens(text(q.shape[1])).observed(encoding, x_BTD)
    out = posenc_jax.attend(encoding, q, k, v, tokens, window=window, sinks=sinks)
    return posenc_jax.logits(encoding, q, k, tokens), out


def close_where_seen(logits, expected, **tolerance):
    """Compares logits of keys that are not ahead of their query."""
    close(np.tril(logits), np.tril(expected), **tolerance)


def bias_of(logits, q, k, params):
    """Returns what is added to the scaled products, 0 for keys ahead of their query."""
    return np.tril(logits - params["scale"] * np.einsum("bthc,bshc->bhts", q, k))


@pytest.mark.parametrize("golden", ["wall", "wall_is_fox", "wall_scalar_sink_window"])
def test_wall(golden):
    arrays, params = float32(golden)
    H, C, D = params["num_heads"], params["head_dim"], arrays["x"].shape[-1]
    sizes = dict(num_heads=H, head_dim=C, model_dim=D, rngs=nnx.Rngs(0))
    encoding = posenc_jax.make("wall", forget_gate="w_s" in arrays, **sizes)
    if "w_g" in arrays:
        encoding.kernel[...], encoding.bias[...] = arrays["w_g"], arrays["b_g"]
    else:
        # Gates that are open for good leave the products alone.
        encoding.kernel[...], encoding.bias[...] = jnp.zeros((D, H, C)), jnp.full((H, C), 200.0)
    if "w_s" in arrays:
        encoding.gate.kernel[...], encoding.gate.bias[...] = arrays["w_s"], arrays["b_s"]
    given = (arrays[key] for key in ("q", "k", "v", "x"))
    logits, out = run(encoding, *given, params["window"], arrays.get("sinks"))
    close_where_seen(logits, arrays["logits"], rtol=2e-5, atol=3e-5)
    as_published(golden, out=out)
    of_channels, of_heads = (
        encoding.tokens(text(len(arrays["x"][0]))).observed(encoding, arrays["x"]).made
    )
    for key, sums in (("g", of_channels), ("g_scalar", of_heads)):
        if key in arrays:  # A sum less the sum before it is a token's own gate.
            sums = np.asarray(sums, np.float64).sum(0)
            as_published(golden, **{key: np.diff(sums, axis=1, prepend=0)})


@pytest.mark.parametrize(("golden", "gate"), [("grape_a_key", "key"), ("grape_a_querykey", "both")])
def test_grape_a(golden, gate):
    arrays, params = float32(golden)
    sizes = dict(num_heads=params["num_heads"], head_dim=params["head_dim"], rngs=nnx.Rngs(0))
    encoding = posenc_jax.make("grape_a", gate=gate, **sizes)
    close(jax.nn.softplus(encoding.omega[...]), np.ones(params["num_heads"]))
    encoding.omega[...], encoding.of_key[...] = arrays["omega"], arrays["u"]
    if gate == "both":
        encoding.of_query[...] = arrays["w"]
    q, k, v = arrays["q"], arrays["k"], arrays["v"]
    logits, out = run(encoding, q, k, v, jnp.zeros((*q.shape[:2], 1)))
    close_where_seen(logits, arrays["logits"], rtol=1e-5, atol=2e-5)
    as_published(
        golden, out=out, bias=bias_of(logits, q, k, params), slopes=alibi_slopes(len(q[0, 0]))
    )


@pytest.mark.parametrize("golden", ["grape_ap", "grape_ap_tied_key"])
def test_grape_ap(golden):
    arrays, params = float32(golden)
    q, k, H, P = arrays["q"], arrays["k"], params["num_heads"], params["p_head_dim"]
    x_BTD = arrays["x"] if "w_p" in arrays else arrays["p"].reshape(*q.shape[:2], H * P)
    D = x_BTD.shape[-1]
    sizes = dict(num_heads=H, model_dim=D, rngs=nnx.Rngs(0))
    encoding = posenc_jax.make("grape_ap", width=P, **sizes)
    encoding.kernel[...] = arrays["w_p"].reshape(D, H * P) if "w_p" in arrays else jnp.eye(D)
    logits, out = run(encoding, q, k, arrays["v"], x_BTD)
    close_where_seen(logits, arrays["logits"], rtol=1e-5, atol=3e-5)
    p, _ = encoding.tokens(text(x_BTD.shape[1])).observed(encoding, x_BTD).made
    as_published(golden, out=out, bias=bias_of(logits, q, k, params), slopes=alibi_slopes(H), p=p)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("golden", "name"),
    [("grape_m_learned", "grape_m"), ("grape_m_contextual", "grape_m_contextual")],
)
def test_grape_m(golden, name):
    """The learned norm of the authors' code comes after the rotation."""
    arrays, params = float32(golden)
    H, C, T = params["num_heads"], params["head_dim"], arrays["q_raw"].shape[1]
    x_BTD = arrays.get("x", jnp.zeros((len(arrays["q_raw"]), T, 1)))
    sizes = dict(num_heads=H, head_dim=C, model_dim=x_BTD.shape[-1], base=params["base"])
    encoding = posenc_jax.make(name, rngs=nnx.Rngs(0), **sizes)
    close(encoding.logs[...].reshape(-1), arrays["log_freq_init"], rtol=1e-5, atol=1e-5)
    encoding.logs[...] = arrays["log_freq"].reshape(encoding.logs.shape)
    if "x" in arrays:
        close(encoding.bias[...], arrays["b_omega_init"], rtol=1e-5)
        encoding.kernel[...], encoding.bias[...] = arrays["w_omega"], arrays["b_omega"]

    tokens = encoding.tokens(text(T)).observed(encoding, x_BTD)
    sides = []
    for key, is_query in (("q", True), ("k", False)):
        side = posenc_jax.Side(None, H, H, is_query=is_query)
        turned = encoding.rotate(arrays[f"{key}_raw"], tokens, side)
        mean = (turned**2).mean(-1, keepdims=True)
        sides.append(turned * jax.lax.rsqrt(mean + 1e-6) * arrays[f"{key}_norm"][None, None, None])
    q, k = sides
    scale = params["scale"]
    nope = posenc_jax.Encoding()
    out = posenc_jax.attend(nope, q, k, arrays["v"], nope.tokens(text(T)), scale=scale)
    as_published(golden, q=q, k=k, out=out)
    logits = scale * np.einsum("bthc,bshc->bhts", q, k)
    close_where_seen(logits, arrays["logits"], rtol=1e-5, atol=5e-5)
    if "phase" in arrays:
        # The slowest pair turns by less than half a turn in all, clockwise.
        cos, sin = (table[..., -1] for table in tokens.made)
        as_published(golden, phase=np.arctan2(-sin, cos) / arrays["freq"][0, -1])


def test_kv_shift():
    """The oracle is of keys; values are mixed by the same code."""
    arrays, params = float32("kv_shift")
    K, D = params["num_heads"], arrays["x"].shape[-1]
    encoding = posenc_jax.make("kv_shift", num_heads=K, model_dim=D, over="nope", rngs=nnx.Rngs(0))
    encoding.kernel[...] = jnp.concatenate([arrays["w_shift"]] * 2, axis=1)
    tokens = encoding.tokens(text(arrays["x"].shape[1])).observed(encoding, arrays["x"])
    side = posenc_jax.Side(None, K, K, is_query=False)
    for turn in (encoding.rotate, encoding.rotate_values):
        close(turn(arrays["k_raw"], tokens, side), arrays["k"], rtol=1e-5, atol=1e-6)
