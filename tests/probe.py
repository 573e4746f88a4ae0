"""Runs each scheme once, in one compiled program, and returns all that the properties need.

What differs in positions alone is in rows of one batch, because a program takes as long to compile
for one row as for many.
"""

import functools
from types import SimpleNamespace

import common
import jax
import jax.numpy as jnp
import numpy as np
import schemes

import posenc_jax
from posenc_jax.positions import text

TILES = frozenset(common.one_of_each_tile())
B, T = 2, 64  # twice the training length, so that a scheme may adapt to it
FAR = 1001  # a position that bfloat16 cannot hold
QUERY = 10  # the one whose causality is asked for
FIRST, SECOND = 20, 43  # tokens of two packed documents; the last token is a third one
SHARD = (3, 1)
HALF = T // 2
FEW = HALF, 4  # queries amid a text


def shuffled(limit: int, seed: int = 0) -> np.ndarray:
    """Returns int32 ``[B, T]`` positions below ``limit``, in another order in every row."""
    rng = np.random.default_rng(limit + seed)
    return np.stack([rng.choice(limit, T, replace=False) for _ in range(B)]).astype(np.int32)


RESIDUAL = 0.5 * common.normal(0, B, T, common.WIDTH)
SHUFFLED = shuffled(80)
LENGTH = FAR + 100


def placings(name: str) -> dict[str, np.ndarray]:
    """Returns int32 positions ``[B, T]`` of the same tokens, by what is done to them."""
    distant = schemes.ALL[name].distant if schemes.ALL[name].shift_invariant else 0
    return {
        "shuffled": SHUFFLED,
        "shifted": SHUFFLED + np.int32(7),
        "distant": SHUFFLED + np.int32(distant),
        "reversed": SHUFFLED[:, ::-1],
        "text": np.repeat(text(T), B, axis=0),
        "far": SHUFFLED + np.int32(FAR),
    }


def packed_rows() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns tokens ``[T, D]``, positions and segments ``[T]`` of sequences with documents.

    Two documents and a single token are packed; in "first" and "second" a document comes first, and
    what follows is no part of it. In "one", all tokens are one document in no order.
    """
    x_TD, junk_TD = RESIDUAL
    place = np.concatenate([np.arange(n) for n in (FIRST, SECOND, 1)]).astype(np.int32)
    segment = np.repeat([3, 5, 0], (FIRST, SECOND, 1))
    alone = np.concatenate([x_TD[FIRST:-1], junk_TD[SECOND:]])
    after = np.arange(T, dtype=np.int32)
    return {
        "packed": (x_TD, place, segment),
        "first": (np.concatenate([x_TD[:FIRST], junk_TD[FIRST:]]), after, 1 * (after >= FIRST)),
        "second": (alone, after, 1 * (after >= SECOND)),
        "one": (x_TD, SHUFFLED[0], 0 * segment),
        "mixed": (junk_TD, SHUFFLED[1], np.sort(SHUFFLED[1] % 2)),
        "repeated": (junk_TD, SHUFFLED[1] // 4, 0 * segment),
    }


def _cotangents() -> dict[str, np.ndarray]:
    """Returns the weights ``[T, H, C]`` of the outputs of ``packed_rows`` in a loss."""
    weights = common.normal(7, T, common.HEADS, common.HEAD_DIM)
    of_query = np.zeros_like(weights)
    of_query[QUERY] = weights[QUERY]
    every = dict.fromkeys(packed_rows(), weights)
    return every | {"first": 0 * weights, "second": 0 * weights, "one": of_query}


def arguments() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns what ``documents`` takes beside the encoding: x, positions and segments, weights."""
    x, positions, segments = map(np.stack, zip(*packed_rows().values(), strict=True))
    weights_BTHC = np.stack([*_cotangents().values()])
    return {"x": x, "positions": positions, "segments": segments}, weights_BTHC


@functools.cache
def probe(name: str) -> SimpleNamespace:
    """Returns what a scheme does to attention, as NumPy arrays ``[B, T, H, C]``.

    Attributes:
      placed, rounded: outputs by the names of ``placings``, and the same in bfloat16.
      last, shard, in_pieces: for all of these one after another, outputs of the last query, of some
        heads, and of keys rotated ahead, where the scheme can.
      text: outputs at positions of text, one row for the batch; few: of some of its queries, under
        one scheme of each tile.
      documents: outputs by the names of ``packed_rows``, each ``[T, H, C]``; embedded: the tokens.
      by_input, by_parameters: the gradients of a weighted sum of these.
      grouped, repeated: outputs of grouped queries, and of kv heads repeated for them, under one
        scheme of each tile.
    """
    plain, grouped = common.build(name), common.build(name, num_kv_heads=2)
    heads = [(0, common.HEADS), (1, 2), (2, 2)]
    qkv = [common.normal(seed, B, T, count, common.HEAD_DIM) for seed, count in heads]
    places = placings(name)
    given = np.concatenate([*places.values()]), RESIDUAL, qkv, *arguments()
    results = jax.device_get(_run(name, plain, grouped, *given))
    for key in ("placed", "rounded"):
        results[key] = dict(zip(places, np.split(results[key], len(places)), strict=True))
    for key in ("documents", "embedded", "by_input"):
        results[key] = dict(zip(packed_rows(), results[key], strict=True))
    return SimpleNamespace(encoding=plain, **results)


def documents(name, encoding, rows, weights_BTHC, projections=None):
    """Returns the outputs of rows of documents and the embedded tokens, and gradients."""
    length = LENGTH if schemes.ALL[name].depends_on_batch else None

    def loss(encoding, x_BTD):
        here = encoding.at(rows["positions"], rows["segments"], length=length)
        out, embedded, _ = common.layer(here, x_BTD, projections)
        return (out * weights_BTHC).sum(), (out, embedded)

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, (out, embedded)), (by_parameters, by_input) = gradient(encoding, jnp.asarray(rows["x"]))
    return dict(documents=out, embedded=embedded, by_parameters=by_parameters, by_input=by_input)


# All numbers are arguments: XLA computes with constants while it compiles, which takes longer.
@functools.partial(jax.jit, static_argnums=0)
def _run(name, plain, grouped, positions, x_BTD, qkv, rows, weights_BTHC):
    here = plain.at(positions, length=LENGTH)
    x = jnp.tile(x_BTD, (len(positions) // B, 1, 1))
    placed, embedded, sides = common.layer(here, x)
    results = {"placed": placed, "rounded": common.layer(here, x.astype(jnp.bfloat16))[0]}
    results |= _parts(name, here.see(embedded)[0], *sides)
    # Not by ``common.attention``, a program of its own in which no position is known.
    of_text = plain.at(text(T), length=LENGTH)
    results["text"], embedded, (q, k, v) = common.layer(of_text, x_BTD)
    if name in TILES:
        of_text = of_text.see(embedded)[0]
        few = of_text.part(*FEW), jax.lax.dynamic_slice_in_dim(q, *FEW, axis=1)
        results["few"] = posenc_jax.attend(*few, of_text.keys(k, v))
    results |= documents(name, plain, rows, weights_BTHC)
    return results | (_groups(grouped, x_BTD, qkv, positions[:B]) if name in TILES else {})


def _parts(name, here, q, k, v):
    """Returns outputs of one query, of some of the heads, and of keys rotated in two pieces."""
    results = {"last": posenc_jax.attend(here.part(T - 1, 1), q[:, -1:], here.keys(k, v))}
    if not schemes.ALL[name].mixes_heads:
        heads = jnp.array(SHARD)
        shard = here.of_heads(heads, common.HEADS)
        results["shard"] = posenc_jax.attend(shard, *(x[:, :, heads] for x in (q, k, v)))
    if not schemes.ALL[name].mixes_keys:
        first, second = (
            here.part(start, HALF).keys(*(x[:, start : start + HALF] for x in (k, v)))
            for start in (0, HALF)
        )
        results["in_pieces"] = posenc_jax.attend(here.part(0, T), q, first.append(second))
    return results


def _groups(encoding, x_BTD, qkv, positions):
    """Returns outputs of two kv heads for four query heads, as they are and repeated."""
    here = encoding.at(positions, length=LENGTH).see(x_BTD)[0]
    q, k, v = qkv
    repeated = (jnp.repeat(x, 2, axis=2) for x in (k, v))
    return {
        "grouped": posenc_jax.attend(here, q, k, v),
        "repeated": posenc_jax.attend(here, q, *repeated),
    }
