"""Compares a scheme with golden arrays, through what users call."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import posenc_jax
from posenc_jax import Side
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.positions import text

ONE_HEAD = Side(None, num_heads=1, is_query=True)


def close(actual, expected, rtol=1e-5, atol=1e-6):
    """Compares with a golden array, as float64 numbers."""
    common.close(np.asarray(actual, np.float64), expected, rtol=rtol, atol=atol)


# Where the index has none.
TOLERANCES = {"weights": dict(rtol=1e-4), "out": dict(rtol=1e-4, atol=1e-5)}
TOLERANCES |= {"logits": dict(rtol=1e-4, atol=1e-5)}


def tolerance(golden, key, name=None):
    """Returns the tolerance that the index has for a key, or the usual one of such arrays."""
    given = dict(common.INDEX[golden].get("tolerance") or TOLERANCES.get(name or key, {}))
    of_key = given.pop("per_key", {})
    return {"atol": 0} | of_key[key] if key in of_key else given


def float32(golden):
    """Returns the arrays of a golden file in float32, and its settings."""
    arrays, params = common.golden(golden)
    return {key: jnp.asarray(x, jnp.float32) for key, x in arrays.items()}, params


def as_published(golden, **actual):
    """Compares with keys of a golden file, each within the tolerance that its index has for it."""
    arrays, _ = common.golden(golden)
    for key, x in actual.items():
        close(x, arrays[key], **tolerance(golden, key))


def empty(scheme, **keywords):
    """Makes a scheme with zeros in the place of its parameters: arrays are loaded, none drawn."""
    outline = jax.eval_shape(lambda: posenc_jax.make(scheme, rngs=nnx.Rngs(0), **keywords))
    return jax.tree.map(lambda p: np.zeros(p.shape, p.dtype), outline)


def load(encoding, weights):
    """Puts arrays into the parameters at their dotted paths, and returns the encoding."""
    for path, value in weights.items():
        parameter = functools.reduce(getattr, path.split("."), encoding)
        parameter[...] = np.asarray(value, np.float32)
    return encoding


@functools.partial(jax.jit, static_argnames=("causal", "with_weights"))
def layer(encoding, q, k, v, x=None, positions=None, *, causal=True, with_weights=False, **rule):
    """Returns a layer's rotated queries and keys, logits, weights and outputs, by these names."""
    S, (H, K) = k.shape[1], (x.shape[2] for x in (q, k))
    here = encoding.at(text(S) if positions is None else positions)
    here, _ = here.see(x)
    of_query, of_key = Side(None, H, is_query=True), Side(None, K, is_query=False)
    attend = functools.partial(posenc_jax.attend, here, q, k, causal=causal, **rule)
    results = {
        "q_rot": encoding.rotate(q, here.tokens, of_query),
        "k_rot": encoding.rotate(k, here.tokens, of_key),
        "logits": posenc_jax.logits(here, q, k, scale=rule.get("scale")),
        "out": attend(v),
    }
    if with_weights:
        one_hot = jnp.broadcast_to(jnp.eye(S)[None, :, None], (*k.shape[:3], S))
        results["weights"] = attend(one_hot).swapaxes(1, 2)
    return results


@functools.partial(jax.jit, static_argnames="length")
def cos_and_sin(encoding, positions, length):
    """Returns the cosine and sine, ``[T, channels / 2]``, by which every pair rotates.

    They are read off by rotating pairs (1, 0); any attention factor is still in them.
    ``test_lengths`` shows that an array says what a length of Python says.
    """
    pairs, half = encoding.rotary_dim // 2, encoding.layout == "half"
    unit_C = np.repeat([1.0, 0.0], pairs) if half else np.tile([1.0, 0.0], pairs)
    unit_C = np.pad(unit_C, (0, encoding.head_dim - 2 * pairs))
    unit_1T1C = jnp.broadcast_to(jnp.float32(unit_C), (1, len(positions), 1, len(unit_C)))
    here = encoding.at(jnp.asarray(positions)[None], length=length)
    after = encoding.rotate(unit_1T1C, here.tokens, ONE_HEAD)[0, :, 0, : 2 * pairs]
    return jnp.split(after, 2, axis=-1) if half else (after[:, 0::2], after[:, 1::2])


def close_tables(tables, arrays, name="{}", rows=slice(None), **tolerance):
    """Compares cosine and sine ``[T, pairs]`` with the first columns of those of a golden file."""
    for table, kind in zip(tables, ("cos", "sin"), strict=True):
        expected = arrays[name.format(kind)][rows][:, : table.shape[-1]]
        close(table[rows], expected, **tolerance)


def assert_frequencies(encoding, inv_freq, attention_factor=1.0, length=1):
    """Checks by what angle a token each pair rotates, and the factor on cosines and sines.

    Encodings with tables of their own are rotated; the float64 equations see that RoPE's tables
    are those of its frequencies.
    """
    if type(encoding).prepare is RoPE.prepare:
        actual, factor = encoding.frequencies(encoding.rotary_dim, encoding.base, length)
        close(actual, inv_freq, rtol=1e-5, atol=1e-12)
        close(factor, attention_factor, rtol=1e-6)
        return
    positions = np.array([1, 0, 3, 64, 200])
    tables = cos_and_sin(encoding, positions, length)
    cos, sin = (np.asarray(table, np.float64) for table in tables)
    close(np.arctan2(sin, cos)[0], inv_freq, rtol=1e-5, atol=1e-12)
    close(np.hypot(sin, cos), np.full(cos.shape, attention_factor), rtol=1e-6)
    # The arrays' own float32 rounding grows with the position.
    angles = positions[:, None] * inv_freq.astype(np.float64)
    close(cos, attention_factor * np.cos(angles), rtol=0, atol=2e-3)
    close(sin, attention_factor * np.sin(angles), rtol=0, atol=2e-3)


@jax.jit
def rotated(encoding, x_BTHC, positions):
    """Returns queries of all heads, rotated in float32."""
    H = x_BTHC.shape[2]
    side = Side(None, num_heads=H, is_query=True)
    return encoding.rotate(x_BTHC.astype(jnp.float32), encoding.at(positions).tokens, side)


def rates(encoding):
    """Returns by how much each pair rotates in a token, read off at position 1 of text."""
    cos, sin = (table[0, 0, 0] for table in encoding.at(np.array([[1]])).tokens.made)
    return jnp.arctan2(sin, cos)


def by_token(x_BHTC):
    """Returns ``[B, T, H, C]``."""
    return np.swapaxes(x_BHTC, 1, 2)
