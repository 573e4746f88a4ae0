"""Measures how a trained decoder uses positions, by three probes.

attention_by_distance  the attention of the last token of a training sequence, by how many tokens
                       back a key is: the U-shape that HoPE (2410.21216) argues from
loss_by_offset         the loss of training sequences that start at other positions: a higher loss
                       is due to positions alone, and not to length
kernel                 the logit by distance, with content averaged out

python -m experiments.evaluation.probes --run=runs/small/runs/rope/seed0
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.command import count, exit_status
from experiments.evaluation import probe_figures
from experiments.evaluation.layer_attention import watch, watch_texts, weights
from experiments.pretrained.trained import load_run
from experiments.results import report
from experiments.results.bucket import folder_at
from experiments.results.drawing import style, svg
from experiments.results.record import write_files
from experiments.training.data import load_corpus
from experiments.training.windows import eval_windows
from posenc_jax import Encoding, Transformer, cross_entropy
from posenc_jax.attention.dense import products

# Offsets and distances go up to this many times the training length.
TIMES = 16


def probe(model: Transformer, windows_NL: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns the results of all probes by name; one that does not apply to the scheme is left out.

    A layer that a probe does not apply to has None. Raises a ValueError if the model has no finite
    loss.

    Args:
      model: a trained decoder of text, small enough to run all windows at once.
      windows_NL: int tokens of two texts or more, each a training sequence and its last target:
        ``[N, train_length + 1]``.
    """
    train_length = windows_NL.shape[1] - 1
    by_offset = loss_by_offset(model, windows_NL, offsets(train_length))
    if not math.isfinite(by_offset["loss"][0]):
        raise ValueError(
            f"the loss of the model is {by_offset['loss'][0]} on these texts: a model that has "
            "diverged cannot be probed; train it again"
        )
    measured = {
        "attention_by_distance": attention_by_distance(model, windows_NL),
        "loss_by_offset": by_offset,
        "kernel": kernel(model, windows_NL, distances(train_length)),
    }
    return {name: value for name, value in measured.items() if value is not None}


def attention_by_distance(model: Transformer, windows_NL) -> dict[str, Any]:
    """Measures the attention of the last token of each window, by how many tokens back a key is.

    Only the last token has a whole training sequence before it. Each of its distances is one
    position, so both ends of the U, the nearest tokens and the first ones, have buckets of their
    own.

    Returns:
      ``distance``, the mean of each bucket; ``keys``, the number of keys in each; and ``weight``,
      the attention to all keys of a bucket, ``[layers, heads, buckets]``, which sums to 1.
    """
    last_ENHS = last_weights(model, windows_NL[:, :-1])
    length = last_ENHS.shape[-1]
    near = _spaced(length // 2, 4)
    edges = np.unique([0, *near, *(length - near), length])
    by_distance = last_ENHS.mean(axis=1)[..., ::-1]
    return {
        "distance": (edges[:-1] + edges[1:] - 1) / 2,
        "keys": np.diff(edges),
        "weight": np.add.reduceat(by_distance, edges[:-1], axis=-1),
    }


def last_weights(model: Transformer, inputs_NT) -> np.ndarray:
    """Returns the attention of the last token of each text, ``[layers, N, H, T]``."""
    return np.stack(watch_texts(model, _last_weights, inputs_NT))


def _last_weights(encoding, tile, rule):
    return weights(encoding, tile, rule)[:, :, -1]


def offsets(train_length: int) -> np.ndarray:
    """Returns the offsets that are tried, int32 ascending: to multiples of L, and between them."""
    times = np.array([0, 0.25, 1, 2.7, 4, 9.3, TIMES])
    return np.unique((times * train_length).astype(np.int32))


def loss_by_offset(model: Transformer, windows_NL, offsets_O) -> dict[str, Any]:
    """Measures the loss if all positions are moved by an offset; sequences stay as they are.

    A scheme that adapts to the length takes it from the largest position, as in decoding. Past the
    end of a learned table its ``out_of_range`` decides, and the loss may not be finite.

    Returns:
      ``offset``; ``loss``, in nats per token; ``change`` against the first offset and ``stderr``,
      its standard error over texts.
    """
    losses_ON = np.asarray(_losses(model, windows_NL, offsets_O), np.float64)
    change_ON = losses_ON - losses_ON[:1]
    return {
        "offset": offsets_O,
        "loss": losses_ON.mean(axis=1),
        "change": change_ON.mean(axis=1),
        "stderr": change_ON.std(axis=1, ddof=1) / math.sqrt(change_ON.shape[1]),
    }


@jax.jit
def _losses(model, windows_NL, offsets_O):
    inputs_NT, targets_NT = windows_NL[:, :-1], windows_NL[:, 1:]

    def losses(offset):
        hidden = model.hidden(inputs_NT, offset + jnp.arange(inputs_NT.shape[1])[None])
        return cross_entropy(hidden, model.output_table, targets_NT).mean(axis=1)

    return jax.lax.map(losses, offsets_O)


def distances(train_length: int) -> np.ndarray:
    """Returns the distances of the kernel, int32 ascending: all up to 64, then eight an octave."""
    last = TIMES * train_length
    # Fast rotary pairs turn in a few tokens: with fewer distances their curves would be aliased.
    every = np.arange(1, min(64, last) + 1, dtype=np.int32)
    return np.union1d(every, [distance for distance in _spaced(last, 8) if distance > 64])


def kernel(model: Transformer, windows_NL, distances_D) -> dict[str, Any] | None:
    """Measures the logit by distance, with content averaged out.

    Queries are from one text and keys from another: token t of the one against token t of the
    other. All positions of the queries' text are moved by the distance. So every distance has
    the same contents, which are independent of each other, and schemes that add positions to the
    embeddings are measured like schemes that rotate or add a bias. Each text is a quarter of a
    training sequence, so that distances up to three quarters of it are within trained positions.

    The kernel does not show what a model learns from a causal mask alone (NoPE). Schemes whose
    distance depends on the content between two tokens (FoX, PaTH, Selective RoPE, CoPE) have none.

    Returns:
      None if no layer has a kernel. Else ``distance``; ``window``, how many keys a query of each
      layer sees (None for all); and ``logit``, for each layer ``[heads, distances]``, or None if
      the layer has no kernel.
    """
    layers = [model.layer_at(number) for number in range(model.num_layers)]
    if not any(_has_kernel(encoding) for encoding, _ in layers):
        return None
    windows = [window for _, window in layers]
    texts_NT = windows_NL[:, : (windows_NL.shape[1] - 1) // 4]
    logits = [
        None if logit_DH is None else np.asarray(logit_DH).T
        for logit_DH in _mean_logits(model, texts_NT, distances_D)
    ]
    return {"distance": distances_D, "window": windows, "logit": logits}


def _has_kernel(encoding: Encoding) -> bool:
    needs_more = encoding.whole_rows or encoding.mixes_keys or encoding.overrides("observe")
    return not needs_more


@jax.jit
def _mean_logits(model, texts_NT, distances_D):
    """Returns the mean logits of each layer that has a kernel, ``[D, H]``, and None for others."""
    N, T = texts_NT.shape

    def look(encoding, tile, rule):
        return encoding, tile

    def at(distance):
        def tiles(texts_NT, start):
            positions_1T = start + jnp.arange(T)[None]
            length = (distance + T).astype(jnp.float32)[None, None]
            return watch(model, look, texts_NT, positions_1T, length=length)

        queries = tiles(texts_NT, distance)
        # The two texts are half of all texts apart, because neighbours often share a document.
        keys = tiles(jnp.roll(texts_NT, N // 2, axis=0), 0)
        return [
            _mean_logit(encoding, of_queries, of_keys) if _has_kernel(encoding) else None
            for (encoding, of_queries), (_, of_keys) in zip(queries, keys, strict=True)
        ]

    return jax.lax.map(at, distances_D)


def _mean_logit(encoding, of_queries, of_keys):
    """Returns the mean over tokens of the logit of each query for its key, float32 ``[H]``."""
    tile = dataclasses.replace(of_queries, k=of_keys.k, k_tokens=of_keys.k_tokens)
    logits_BHTS = encoding.score(products(tile.q, tile.k) * tile.scale, tile)
    return jnp.diagonal(logits_BHTS, axis1=2, axis2=3).mean(axis=(0, 2))


def _spaced(last: int, per_octave: int) -> np.ndarray:
    """Returns integers from 1 to ``last``, int32, nearly evenly spaced on a logarithmic axis."""
    count = math.ceil(per_octave * math.log2(last)) + 1
    return np.unique(np.geomspace(1, last, count).round().astype(np.int32))


def run_and_windows(folder: str, count: int) -> tuple[Transformer, np.ndarray]:
    """Returns the model of a finished run on text, and texts of its test split for ``probe``."""
    state, config = load_run(folder_at(folder))
    length, corpus = config["train"]["length"], load_corpus(config["corpus"])
    return state.model, eval_windows(corpus, "test", length=length + 1, count=count)


@exit_status
def main(arguments: Sequence[str] | None = None) -> None:
    """Probes the model of a finished run and writes the page."""
    parser = argparse.ArgumentParser("posenc probe", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="the folder of a run on text")
    parser.add_argument("--out", type=Path, default=Path("build/probes.html"))
    parser.add_argument("--windows", type=count, default=64, help="texts of the test split")
    args = parser.parse_args(arguments)
    if args.windows < 2:
        raise ValueError(f"--windows={args.windows} must be 2 or more: texts are compared")
    model, windows_NL = run_and_windows(args.run, args.windows)
    probed = probe(model, windows_NL)
    with style():
        sections = [
            report.drawn(svg(figure), title, caption)
            for figure, title, caption in probe_figures.draw(probed, windows_NL.shape[1] - 1)
        ]
    page = report.page(f"Probes of {args.run}", sections)
    write_files(args.out.parent, {args.out.name: page})
    print(f"probes: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
