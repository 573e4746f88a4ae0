"""Evaluates a model past its training length: every protocol from a few forward passes.

Each evaluation document is a sequence of tokens whose last ``last_tokens`` are the targets. A
protocol says how the model is given L tokens of context:

    last             the document's last L tokens, scored on the targets: the same tokens at every
                     length, only the prefix grows. The primary protocol.
    non_overlapping  the document cut into pieces of L, all tokens scored. Early tokens of a piece
                     have little context, which flatters longer pieces.
    sliding          windows of L moved by ``stride``, each scored on its last ``stride`` tokens, so
                     that together they score the targets. With stride 1 every target has exactly L
                     tokens of context.
    windowed         sliding at the training length: the baseline that sees only the most recent
                     tokens. A scheme whose loss with more context is higher gains nothing from the
                     context.

The loss at each position of the longest context is recorded too.

A token's loss depends on nothing but the tokens before it, unless the encoding differs between
lengths. A window that is the beginning of a longer one is then not scored again.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from experiments.evaluation.batches import in_batches, rows_of_pass
from experiments.settings import bounded, one_of
from experiments.training.corpus import SPLITS
from experiments.training.mesh import replicated, row_shards
from experiments.training.text import token_losses
from posenc_jax import Encoding, Layers, Transformer

# On one core of a CPU a small model is fastest with about this many tokens at a time, probably
# because their activations stay in the core's cache; see docs/performance.md.
_CPU_TOKENS = 1024


@dataclasses.dataclass(frozen=True)
class Protocols:
    """Says which evaluations are made, and on how much.

    Attributes:
      multiples: context lengths, as multiples of the training length, ascending from 1.
      last_tokens: targets at the end of each document; at most the training length.
      documents: documents of each split.
      splits: the parts of the corpus that are evaluated on.
      strides: ``(stride, documents)`` pairs for the sliding protocol.
      window_stride: stride of the windowed baseline, a divisor of ``last_tokens``.
      batch_tokens: the most tokens of one forward pass, over all devices; CPUs get fewer.
    """

    multiples: tuple[int, ...] = bounded((1, 2, 4, 8, 16), ascends=True, first=1)
    last_tokens: int = 256
    documents: int = 64
    splits: tuple[str, ...] = ("test", "manual")
    strides: tuple[tuple[int, int], ...] = ((256, 64), (1, 1))
    window_stride: int = 64
    batch_tokens: int = 16384

    def __post_init__(self):
        strides = [stride for stride, _ in self.strides]
        check_strides(self.last_tokens, self.window_stride, *strides)
        if any(self.multiples[-1] % multiple for multiple in self.multiples):
            raise ValueError(f"eval.multiples={self.multiples} must all divide the largest")
        for split in self.splits:
            one_of("eval.splits", split, SPLITS)

    def document_length(self, train_length: int) -> int:
        """Returns the tokens of a document, which has the longest context before each target."""
        return self.multiples[-1] * train_length + self.last_tokens + 1


def check_strides(last_tokens: int, *strides: int) -> None:
    """Raises a ValueError for a stride by which windows cannot cover the targets."""
    for stride in strides:
        if last_tokens % stride:
            raise ValueError(
                f"eval.last_tokens={last_tokens} must be a multiple of every stride, and {stride} "
                "is one: change eval.window_stride or eval.strides"
            )


def check_targets(last_tokens: int, train_length: int) -> None:
    """Raises a ValueError if there are more targets than a training sequence has tokens."""
    if last_tokens > train_length:
        raise ValueError(
            f"eval.last_tokens={last_tokens} must be at most the training length {train_length}, "
            "or the shortest context could not hold the targets"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Scorer:
    """Computes token losses of many windows under one model, batch by batch on the mesh.

    Attributes:
      batch_tokens: the most tokens of one forward pass, over all devices; CPUs get fewer.
      advance: called after each batch with a note and the number of its tokens.
      by_token: computes the losses from a model and tokens; see ``training/text.py``.
    """

    model: Transformer
    mesh: Mesh
    batch_tokens: int
    advance: Callable[..., None] = lambda *_, **__: None
    by_token: Callable[..., jax.Array] = token_losses

    def rows(self, windows_NL) -> int:
        """Returns how many of the windows are in one forward pass."""
        tokens = self.batch_tokens
        if self.mesh.devices.flat[0].platform == "cpu":
            tokens = min(tokens, _CPU_TOKENS * row_shards(self.mesh))
        return rows_of_pass(tokens, windows_NL.shape[1] - 1, self.mesh)

    def __call__(self, windows_NL, encoding: Encoding | Layers | None) -> np.ndarray:
        """Returns losses in nats, float64 ``[N, L - 1]``, under the model's or another encoding."""
        length, losses = windows_NL.shape[1] - 1, []
        program = scorer_program(self.mesh)
        score = functools.partial(program, self.by_token, self.model, encoding)
        for batch_losses in in_batches(score, windows_NL, self.rows(windows_NL), self.mesh):
            losses.append(batch_losses)
            self.advance(f"{length} tokens", steps=len(batch_losses) * length)
        return np.concatenate(losses).astype(np.float64)


@functools.cache
def scorer_program(mesh: Mesh) -> Callable[..., Any]:
    """Returns the jitted function that all scorers on a mesh share, with all it has compiled.

    It takes ``by_token``, a model, an encoding for the model or None, and tokens.
    """
    return jax.jit(_under, static_argnums=0, out_shardings=replicated(mesh))


def _under(by_token, model, encoding, tokens_BL):
    return by_token(model if encoding is None else model.under(encoding), tokens_BL)


def work(protocols: Protocols, train_length: int, adapts: bool) -> int:
    """Returns how many tokens ``evaluate`` will pass through the model, for a progress bar."""
    tokens = 0

    def count(windows_NL, _):
        nonlocal tokens
        tokens += windows_NL[:, 1:].size
        return np.zeros(windows_NL[:, 1:].shape)

    shape = protocols.documents, protocols.document_length(train_length)
    evaluate(count, np.zeros(shape, np.int8), protocols, train_length, lambda _: None, adapts)
    return tokens


def evaluate(
    score: Callable[[np.ndarray, Any], np.ndarray],
    documents_NL: np.ndarray,
    protocols: Protocols,
    train_length: int,
    encoding_at: Callable[[int], Any],
    adapts: bool,
) -> tuple[list[dict], dict]:
    """Evaluates one model under every protocol at every length.

    It returns records (see ``scored``), and a curve: the loss at each position of the longest
    context, averaged over buckets of positions.

    Args:
      score: a :class:`Scorer` of the model.
      documents_NL: int ``[N, protocols.document_length(train_length)]``.
      protocols, train_length: the evaluations to make, and tokens of a training sequence.
      encoding_at: returns the encoding at a multiple of the training length, None for the model's
        own.
      adapts: whether encodings differ between lengths, or one of them adapts to the length.
    """
    longest, last = protocols.multiples[-1] * train_length, protocols.last_tokens
    end = documents_NL.shape[1] - 1
    records: list[dict] = []
    windows = _Windows(score, documents_NL)

    def record(protocol, losses, stride=None):
        where = {"protocol": protocol, "stride": stride, "multiple": multiple, "length": length}
        records.append(where | scored(losses))

    # The longest length comes first, because its windows begin with windows of shorter lengths.
    for multiple in reversed(protocols.multiples):
        length, encoding = multiple * train_length, encoding_at(multiple)
        if adapts:
            windows.known.clear()
        losses = windows.losses(range(end - longest, end, length), length, encoding)
        if length == longest:
            curve = _position_curve(losses[:, 0], train_length)
        # The last piece is the last L tokens: the primary protocol is already computed.
        record("last", losses[:, -1, -last:])
        record("non_overlapping", losses)
        slides = [("sliding", *pair) for pair in protocols.strides]
        if multiple == 1:
            slides.append(("windowed", protocols.window_stride, protocols.documents))
        for protocol, stride, count in slides:
            starts = range(end - length, end - length - last, -stride)
            record(protocol, windows.losses(starts, length, encoding, count)[..., -stride:], stride)
    return records[::-1], curve


def scored(losses: np.ndarray) -> dict[str, Any]:
    """Returns the mean of losses ``[documents, ...]``, that of each document, and their number."""
    by_text = losses.reshape(len(losses), -1).mean(axis=1)
    # Five decimals are less than rounding changes, and a third of the file.
    return {
        "loss": float(losses.mean()),
        "by_text": by_text.round(5).tolist(),
        "tokens": losses.size,
    }


class _Windows:
    """Scores windows of documents; a window that begins a scored window is not scored again.

    ``known`` has the losses of windows of all documents, ``[N, length]``, by the windows' start.
    """

    def __init__(self, score, documents_NL):
        self._score, self._documents_NL = score, documents_NL
        self.known: dict[int, np.ndarray] = {}

    def losses(self, starts, length, encoding, count=None) -> np.ndarray:
        """Returns the losses in windows of the first ``count`` documents, [count, windows, length].

        No known window may be shorter than ``length``.
        """
        documents_NL = self._documents_NL[:count]
        by_start = {start: losses[:count, :length] for start, losses in self.known.items()}
        if new := [start for start in starts if start not in by_start]:
            cut = [documents_NL[:, start : start + length + 1] for start in new]
            scored = self._score(np.stack(cut, axis=1).reshape(-1, length + 1), encoding)
            scored = scored.reshape(len(documents_NL), len(new), length)
            by_start |= zip(new, scored.swapaxes(0, 1), strict=True)
            if count is None:
                self.known |= {start: by_start[start] for start in new}
        return np.stack([by_start[start] for start in starts], axis=1)


def in_other_units(loss: float, bytes_per_token: float) -> dict[str, float]:
    """Returns bits per byte and perplexity per token for a loss in nats per token."""
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return {"bits_per_byte": loss / math.log(2) / bytes_per_token, "perplexity": perplexity}


def print_losses(schemes: Iterable[str], records: Sequence[dict], console: Console) -> None:
    """Prints bits per byte of the last tokens in the first split, a line for each scheme."""
    last = [r for r in records if r["protocol"] == "last" and r["split"] == records[0]["split"]]
    for scheme in schemes:
        losses = [
            f"{r['multiple']}x {r['bits_per_byte']:.3f}" for r in last if r["scheme"] == scheme
        ]
        console.print(f"  {scheme:<15} {'  '.join(losses)}  bits per byte")


def _position_curve(losses_NL, train_length) -> dict[str, list]:
    width = train_length // 8 if train_length % 8 == 0 else train_length
    by_bucket = losses_NL.mean(axis=0).reshape(-1, width).mean(axis=1)
    edges = width * np.arange(1, len(by_bucket) + 1)
    return {"positions": edges.tolist(), "loss": by_bucket.tolist()}
