r"""Computes the loss of each token of a document of any length, given all tokens before it.

    python -m experiments.evaluation.long_document --run=runs/small/runs/rope/seed0 \
        --document=book.txt --out=book

The document is read in chunks, with a cache of the keys and values of all earlier tokens, so memory
is linear in its length. A finished chunk becomes a file with its losses, keys and values. A run
that was killed reads these files and continues with the same numbers. Until the document is
finished they take as much disk space as the cache takes memory; then only the losses are kept.

One pass gives the loss at each position, and that of the last tokens. It cannot give the loss of a
sliding window, because from the second layer on keys depend on tokens before the window.
"""

import argparse
import dataclasses
import functools
import hashlib
import io
import re
import sys
import zipfile
import zlib
from pathlib import Path

from experiments import preemption

if __name__ == "__main__":  # before JAX, which takes seconds to import
    preemption.ask_again_if_stopped()

import jax
import numpy as np
from rich.console import Console

from experiments import command
from experiments.joining import join_job
from experiments.pretrained.trained import load_run, train_length
from experiments.progress import stage
from experiments.results.bucket import folder_at, remove
from experiments.results.record import open_run, write_files, write_json
from experiments.training.encodings import as_trained, make_encoding
from posenc_jax import Cache, Encoding, Layers, Transformer, cross_entropy
from posenc_jax.model.decode import check_reach


def score_document(
    model: Transformer,
    tokens_N,
    folder: Path,
    console: Console,
    *,
    chunk: int = 512,
    encoding: Encoding | Layers | None = None,
) -> np.ndarray:
    """Returns the loss of each token but the first, given all before it.

    The result is in nats, float32 ``[N - 1]``. Schemes that adapt to the length take the length of
    the whole document from the first token on, as if it were read at once. It is kept in ``folder``
    as ``losses.npy``; chunks finished there are not computed again. ``encoding``, or a pattern,
    replaces the trained one, and ``chunk`` is the tokens of one step.

    Raises:
      ValueError: the document has tokens the model does not know, or more than the encoding has
        positions for; or the folder holds another document, model, encoding or chunk.
      PreemptedError: the scheduler asked to stop; finished chunks are saved.
    """
    tokens_N = np.asarray(tokens_N)
    _check(tokens_N, model.embedding.shape[0])
    tokens_N, length = tokens_N.astype(np.int32), len(tokens_N) - 1
    model = model if encoding is None else model.under(encoding)
    check_reach(model, length, length)
    digest = _digest((model, tokens_N))
    open_run(folder, {"tokens": len(tokens_N), "chunk": chunk, "digest": digest})
    finished, chunks = folder / "losses.npy", folder / "chunks"
    if not finished.exists():
        losses_N = _all_chunks(model, tokens_N, chunks, console, chunk)
        _write(finished, lambda file: np.save(file, losses_N))
    remove(chunks)
    with finished.open("rb") as file:
        return np.load(file)


def _all_chunks(model, tokens_N, folder, console, chunk):
    length = len(tokens_N) - 1
    cache = Cache.empty(model, 1, length, length=length)
    losses = []
    with stage("document", length, console) as advance:
        for start in range(0, length, chunk):
            path = folder / f"{start:012d}.npz"
            tokens_1T = tokens_N[None, start : start + chunk + 1]
            read = _load(path, (cache.layers, cache.made))
            if read is not None:
                losses_T, newest = read
                cache = _put(cache, newest, count=len(losses_T))
            else:
                losses_T, cache = read_chunk(model, tokens_1T, cache)
                newest = _newest(cache, losses_T.size)
                arrays = [_plain(leaf) for leaf in (losses_T, *jax.tree.leaves(newest))]
                _write(path, lambda file, arrays=arrays: np.savez(file, *arrays))
            losses.append(np.asarray(losses_T))
            advance(f"loss {losses[-1].mean():.3f}", steps=len(losses[-1]))
            preemption.stop_if_requested(f"at token {start}")
    return np.concatenate(losses)


@functools.partial(jax.jit, donate_argnames="cache")
def read_chunk(model: Transformer, tokens_1L, cache: Cache) -> tuple[jax.Array, Cache]:
    """Reads all tokens but the last, and returns the losses of all but the first, and the cache."""
    x_BTD, cache = model.extend(tokens_1L[:, :-1], cache)
    losses = cross_entropy(x_BTD, model.output_table, tokens_1L[:, 1:])
    return losses[0], cache


# This is not a part of ``read_chunk``, because slicing within it would copy the cache.
@functools.partial(jax.jit, static_argnames="count")
def _newest(cache: Cache, count: int):
    """Returns the slots of the last ``count`` tokens, by layer and of all layers together."""
    start = cache.count - count

    def cut(axis, slots):
        return jax.lax.dynamic_slice_in_dim(slots, start, count, axis)

    layers = [stored.mapped(cut, state=stored.state) for stored in cache.layers]
    return tuple(layers), jax.tree.map(functools.partial(cut, 1), cache.made)


@functools.partial(jax.jit, static_argnames="count", donate_argnames="cache")
def _put(cache: Cache, newest, count: int) -> Cache:
    """Returns the cache with ``count`` more tokens of text, whose slots are ``newest``."""

    def write(axis, slots, tokens):
        return jax.lax.dynamic_update_slice_in_dim(slots, tokens, cache.count, axis)

    layers, made = newest
    pairs = zip(cache.layers, layers, strict=True)
    return dataclasses.replace(
        cache.with_positions(None, None, count),
        layers=tuple(old.mapped(write, new, state=new.state) for old, new in pairs),
        made=jax.tree.map(functools.partial(write, 1), cache.made, made),
    )


def _load(path, like):
    """Returns the saved arrays of a chunk, or None if it is unfinished or its file is damaged."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            losses_T, *leaves = arrays.values()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    kinds, structure = jax.tree.flatten(like)
    leaves = [x.view(kind.dtype) for x, kind in zip(leaves, kinds, strict=True)]
    return losses_T, jax.tree.unflatten(structure, leaves)


def _plain(array):
    """Returns a float array unchanged, and any other, such as bfloat16, as its bits in uint16."""
    array = np.asarray(array)
    return array if array.dtype.kind == "f" else array.view(np.uint16)


def _write(path, save):
    content = io.BytesIO()
    save(content)
    write_files(path.parent, {path.name: content.getvalue()})


def _digest(tree) -> str:
    """Returns a digest of all numbers in ``tree`` and of all settings of its modules."""
    settings = re.sub("0x[0-9a-f]+", "", str(jax.tree.structure(tree)))
    digest = hashlib.sha256(settings.encode())
    for leaf in jax.tree.leaves(tree):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _check(tokens_N, vocab_size):
    # A cast to integers would change the tokens.
    if tokens_N.ndim != 1 or len(tokens_N) < 2 or tokens_N.dtype.kind not in "iu":
        raise ValueError(
            f"the document is {tokens_N.dtype} {tokens_N.shape}, but must be integers [N], two "
            "tokens or more: one to read, one to score"
        )
    outside = tokens_N[(tokens_N < 0) | (tokens_N >= vocab_size)]
    if outside.size:
        raise ValueError(
            f"the document has token {outside[0]}, but the model knows 0..{vocab_size - 1}"
        )


def summary(losses_N, last_tokens: int = 256) -> dict:
    """Returns the mean loss of all tokens, of the last, and by position in ranges that double."""
    edges = [0, *(2**k for k in range(len(losses_N).bit_length()) if 2**k < len(losses_N))]
    means = [
        float(losses_N[start:end].mean())
        for start, end in zip(edges, [*edges[1:], len(losses_N)], strict=True)
    ]
    return {
        "tokens": len(losses_N),
        "loss": float(losses_N.mean()),
        "last_tokens": min(last_tokens, len(losses_N)),
        "last_loss": float(losses_N[-last_tokens:].mean()),
        "first_position": edges,
        "loss_by_position": means,
    }


@command.exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of a trained run")
    parser.add_argument(
        "--document", type=Path, required=True, help=".npy of token ids, or a file read as bytes"
    )
    parser.add_argument("--out", required=True, help="folder of the result")
    parser.add_argument("--chunk", type=command.count, default=512, help="tokens of one step")
    parser.add_argument(
        "--encoding",
        type=command.encoding,
        help='an encoding to replace the trained one, such as {"name": "yarn", "factor": 4}; '
        "keywords that it does not give are as trained",
    )
    args = parser.parse_args()
    console = Console(highlight=False, markup=False)
    join_job()
    folder, out = folder_at(args.run), folder_at(args.out)
    state, config = load_run(folder)
    model = state.model
    encoding = None
    if args.encoding:
        keywords = as_trained(args.encoding["name"], config["encoding"]) | args.encoding
        encoding = make_encoding(keywords, config["model"], train_length(config), rngs=None)
    is_ids = args.document.suffix == ".npy"
    if not is_ids and len(model.embedding) != 256:
        raise ValueError(
            f"the run in {folder} does not read bytes, and --document={args.document} is read as "
            "bytes: give token ids, as a file .npy"
        )
    tokens_N = np.load(args.document) if is_ids else np.fromfile(args.document, np.uint8)
    losses_N = score_document(model, tokens_N, out, console, chunk=args.chunk, encoding=encoding)
    result = summary(losses_N)
    write_json(out / "summary.json", result)
    console.print(
        "document: {loss:.4f} nats per token over {tokens} tokens, {last_loss:.4f} over the last "
        "{last_tokens}".format(**result)
    )


if __name__ == "__main__":
    sys.exit(main())
