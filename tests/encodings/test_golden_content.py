"""Compares schemes in which content and distance meet with other people's code."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import by_token, close

import posenc_jax
from posenc_jax.encodings.bias.kerple import inverse_positive
from posenc_jax.positions import text


@pytest.mark.parametrize(
    ("name", "u", "v"),
    [
        ("transformer_xl_h2_q6", "u", "v"),
        ("transformer_xl_h2_q4_mem3", "u", "v"),
        ("transformer_xl_hf_h2_q5_mem4", "u_r_w_bias", "v_r_r_bias"),
    ],
)
def test_transformer_xl(name, u, v):
    arrays, params = common.golden(name)
    arrays = {key: value.astype(np.float32) for key, value in arrays.items()}
    H, C, T, M = (params[key] for key in ("heads", "head_dim", "q_len", "mem_len"))
    D, S = H * C, M + T
    encoding = posenc_jax.make(
        "transformer_xl", num_heads=H, head_dim=C, model_dim=D, rngs=nnx.Rngs(0)
    )
    encoding.u[...], encoding.v[...] = jnp.asarray(arrays[u]), jnp.asarray(arrays[v])
    encoding.w_r[...] = jnp.asarray(arrays["r_weight"]).reshape(H, C, D)

    heads = np.concatenate([arrays["mems"], arrays["w"]]) @ arrays["qkv_weight"].T
    q, k, v = (part.reshape(1, S, H, C) for part in np.split(heads, 3, axis=-1))
    q_tokens, k_tokens, out, logits = jax.jit(attend_with_memory)(encoding, q[:, M:], k, v)

    if "logits_lower" in arrays:
        close(np.tril(logits, M), np.tril(arrays["logits_lower"], M), rtol=1e-4, atol=1e-5)
    if "attn_probs" in arrays:
        actual = common.probabilities(encoding, q[:, M:], k, q_tokens, k_tokens)[0]
        close(actual, arrays["attn_probs"], rtol=1e-4, atol=1e-5)
    expected = arrays.get("attn_plus_residual", arrays.get("out_plus_residual"))
    close(out.reshape(T, D) + arrays["w"], expected, rtol=1e-4, atol=1e-5)


def attend_with_memory(encoding, q, k, v):
    """Returns tokens of queries and of keys, whose last are the queries', output and logits."""
    T, S = q.shape[1], k.shape[1]
    k_tokens = encoding.tokens(text(S))
    q_tokens = k_tokens.part(S - T, T)
    out = posenc_jax.attend(encoding, q, k, v, q_tokens, k_tokens)
    return q_tokens, k_tokens, out, posenc_jax.logits(encoding, q, k, q_tokens, k_tokens)[0]


def heads(arrays, *names):
    """Yields arrays as attention wants them, which have heads first ``[B, H, T, C]`` or none."""
    for name in names:
        x = arrays[name].astype(np.float32)
        yield by_token(x) if x.ndim == 4 else x[:, :, None]


def load(encoding, **values):
    for name, value in values.items():
        getattr(encoding, name)[...] = jnp.asarray(value, jnp.float32)
    return encoding


def flat(out_BTHC):
    return out_BTHC.reshape(*out_BTHC.shape[:2], -1)


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_stick_breaking():
    """The code returns the remainder, which the authors' model gives to the query's own value."""
    arrays, params = common.golden("stickbreaking_h2_T9")
    encoding = posenc_jax.make("stick_breaking")
    q, k, v, out = heads(arrays, "q", "k", "v", "out")
    tokens = encoding.tokens(text(params["T"]))
    remainder = arrays["remainder"].swapaxes(1, 2)[..., None]
    close(posenc_jax.attend(encoding, q, k, v, tokens), out + remainder * v, atol=1e-5)
    weights = np.asarray(common.probabilities(encoding, q, k, tokens))
    close(np.einsum("bhtt->bht", weights), arrays["remainder"], rtol=1e-4)
    # A softmax would hide a number that is added to all logits of a row, and sinks would not.
    logits = posenc_jax.logits(encoding, q, k, tokens)
    close(np.tril(np.exp(logits)), weights, rtol=1e-4)


# Shaw


def shaw(keys, values=None):
    """Makes Shaw's encoding with these tables."""
    encoding = posenc_jax.make(
        "shaw",
        head_dim=keys.shape[1],
        max_distance=len(keys) // 2,
        values=values is not None,
        rngs=nnx.Rngs(0),
    )
    return load(encoding, keys=keys, **({} if values is None else {"values": values}))


def test_shaw_keys():
    arrays, params = common.golden("shaw_key_h2_T12_k4")
    encoding = shaw(arrays["table"])
    tokens = encoding.tokens(text(params["T"]))
    actual = common.probabilities(encoding, *heads(arrays, "q", "k"), tokens, causal=False)
    close(actual, softmax(arrays["logits"]), rtol=1e-4)


@pytest.mark.parametrize("name", ["shaw_kv_h2_T8_w7", "shaw_kv_clip_h2_T11_k3"])
def test_shaw_keys_and_values(name):
    arrays, params = common.golden(name)
    encoding = shaw(arrays["table_k"], arrays["table_v"])
    tokens = encoding.tokens(text(params["T"]))
    q, k, v = heads(arrays, "q", "k", "v")
    # Weights are read off without the values' table, which would add to the one-hot values.
    no_values = shaw(arrays["table_k"])
    close(common.probabilities(no_values, q, k, tokens), arrays["probs"], rtol=1e-4)
    out = posenc_jax.attend(encoding, q, k, v, tokens)
    expected = by_token(arrays["out"]) if arrays["out"].ndim == 4 else arrays["out"]
    close(flat(out), expected.reshape(*out.shape[:2], -1), rtol=1e-4, atol=1e-5)


def test_shaw_of_bert_counts_the_other_way():
    """BERT's table begins with the keys furthest ahead, and reaches further than its tokens."""
    arrays, params = common.golden("bert_relative_key_h2_T8")
    encoding = shaw(arrays["table"][::-1])
    tokens = encoding.tokens(text(params["T"]))
    q, k, v = heads(arrays, "q", "k", "v")
    actual = common.probabilities(encoding, q, k, tokens, causal=False)
    close(actual, arrays["probs"], rtol=1e-4)
    out = posenc_jax.attend(encoding, q, k, v, tokens, causal=False)
    close(flat(out), arrays["out"], rtol=1e-4, atol=1e-5)


# DeBERTa


def assert_deberta(arrays, encoding, scale=None):
    T = arrays["probs"].shape[-1]
    tokens = encoding.tokens(text(T))
    q, k, v = (
        np.moveaxis(arrays[name].reshape(-1, T, arrays[name].shape[-1]), 0, 1)[None]
        for name in "qkv"
    )
    q, k, v = (x.astype(np.float32) for x in (q, k, v))
    actual = common.probabilities(encoding, q, k, tokens, scale=scale, causal=False)
    close(actual, arrays["probs"], rtol=1e-4)
    out = posenc_jax.attend(encoding, q, k, v, tokens, scale=scale, causal=False)
    expected = arrays.get("context", arrays.get("out"))
    close(flat(out), expected, rtol=1e-4, atol=1e-5)


def deberta(arrays, params, key, query, bias, **keywords):
    """Makes DeBERTa's encoding with the table and the projections of these names."""
    H, C = params["heads"], params["head_dim"]
    D = H * C
    encoding = posenc_jax.make(
        "deberta",
        num_heads=H,
        head_dim=C,
        model_dim=D,
        max_distance=params["max_relative_positions"],
        rngs=nnx.Rngs(0),
        **keywords,
    )
    return load(
        encoding,
        table=arrays["rel_embeddings"],
        w_kr=arrays[key].reshape(H, C, D),
        w_qr=arrays[query].reshape(H, C, D),
        b_qr=arrays[bias].reshape(H, C),
    )


V1 = ("pos_key_proj_weight", "pos_query_proj_weight", "pos_query_proj_bias")


@pytest.mark.parametrize("name", ["deberta_v1_h2_T10", "deberta_v1_clip_T14_k4"])
def test_deberta_v1(name):
    arrays, params = common.golden(name)
    assert_deberta(arrays, deberta(arrays, params, *V1))
    with pytest.raises(AssertionError):
        assert_deberta(arrays, deberta(arrays, params, *V1, p2c_row="paper"))


def test_deberta_v2():
    """Positions share the projections of the tokens; the bias of keys does not show."""
    arrays, params = common.golden("deberta_v2_h2_T20")
    names = ("w.key_proj.weight", "w.query_proj.weight", "w.query_proj.bias")
    num_buckets = params["position_buckets"]
    assert_deberta(arrays, deberta(arrays, params, *names, num_buckets=num_buckets))


@pytest.mark.parametrize("name", ["deberta_v2_bucket_256_512", "deberta_repo_bucket_256_512"])
def test_deberta_buckets(name):
    arrays, params = common.golden(name)
    num_buckets = params["position_buckets"]
    encoding = posenc_jax.make(
        "deberta",
        num_heads=1,
        head_dim=1,
        model_dim=1,
        max_distance=params["max_position"],
        num_buckets=num_buckets,
        rngs=nnx.Rngs(0),
    )
    rows = encoding.row(jnp.asarray(arrays["relative_pos"], jnp.float32))
    expected = np.clip(arrays["bucket"] + num_buckets, 0, 2 * num_buckets - 1)
    np.testing.assert_array_equal(rows, expected)


def test_relative_key_query_of_bert_is_deberta_without_projections():
    """BERT has no sqrt(3) either, and its table no row for the key furthest ahead."""
    arrays, params = common.golden("bert_relative_key_query_h2_T8")
    H, C, half = params["heads"], params["head_dim"], params["max_position"]
    encoding = posenc_jax.make(
        "deberta", num_heads=H, head_dim=C, model_dim=C, max_distance=half, rngs=nnx.Rngs(0)
    )
    unit = np.tile(np.eye(C), (H, 1, 1))
    load(encoding, table=np.pad(arrays["table"], ((1, 0), (0, 0))), w_kr=unit, w_qr=unit)
    assert_deberta(arrays, encoding, scale=float(np.sqrt(3 / C)))


# DAPE


@pytest.mark.parametrize("bias", ["alibi", "kerple"])
def test_dape(bias):
    arrays, params = common.golden("dape_h3_T8")
    H, T = params["heads"], params["T"]
    encoding = posenc_jax.make(
        "dape",
        num_heads=H,
        hidden=params["mlp_width"],
        bias="alibi" if bias == "alibi" else "kerple_log",
        rngs=nnx.Rngs(0),
    )
    inner, outer = arrays[f"{bias}.0.weight"].T, arrays[f"{bias}.2.weight"]
    load(
        encoding,
        of_logit=inner[:H],
        of_bias=inner[H:],
        hidden_bias=arrays[f"{bias}.0.bias"],
        out=outer,
        out_bias=arrays[f"{bias}.2.bias"],
    )
    if bias == "kerple":
        p, a = (jnp.maximum(arrays[f"kerple_{key}"], 0.01 + 1e-7) for key in "pa")
        load(encoding.bias, raw_p=inverse_positive(p), raw_a=inverse_positive(a))
    actual = score(encoding, arrays["logits_in"].astype(np.float32), text(T))
    close(np.tril(actual), np.tril(arrays[f"{bias}_out_lower"]), rtol=1e-4, atol=1e-5)


def score(encoding, logits_BHTS, positions):
    """Returns what a scheme that does not look at queries and keys makes of these logits."""
    B, H, T, _ = logits_BHTS.shape
    tokens, nothing = encoding.tokens(positions), jnp.zeros((B, T, H, 1))
    tile = posenc_jax.Tile(nothing, nothing, tokens, tokens, 1.0, None, H)
    return jax.jit(type(encoding).score)(encoding, logits_BHTS, tile)


# CoPE


def cope(table, **keywords):
    num_positions, C = table.shape
    encoding = posenc_jax.make(
        "cope", head_dim=C, num_positions=num_positions, rngs=nnx.Rngs(0), **keywords
    )
    return load(encoding, table=table)


@pytest.mark.parametrize("name", ["cope_h2_T7_p16", "cope_h2_T10_p6"])
def test_cope_of_x_transformers(name):
    arrays, params = common.golden(name)
    encoding = cope(arrays["pos_emb"])
    tokens = encoding.tokens(text(params["T"]))
    q, k = heads(arrays, "q_scaled", "k")
    actual = common.probabilities(encoding, q, k, tokens, scale=1.0)
    close(actual, arrays["final_probs"], rtol=1e-4)


@pytest.mark.parametrize("name", ["cope_official_L9_n6", "cope_official_nodiv_L8"])
def test_cope(name):
    arrays, params = common.golden(name)
    encoding = cope(arrays["pos_emb"].T, nodiv=params["nodiv"])
    tokens = encoding.tokens(text(params["L"]))
    q, k, v = heads(arrays, "q", "k", "v")
    close(common.probabilities(encoding, q, k, tokens)[:, 0], arrays["probs"], rtol=1e-4)
    out = posenc_jax.attend(encoding, q, k, v, tokens)
    close(flat(out), arrays["out"], rtol=1e-4, atol=1e-5)
