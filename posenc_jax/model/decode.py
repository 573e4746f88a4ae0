"""Generates text with a Transformer and its cache."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import (
    MOST_ROUNDING,
    as_array,
    check_ids,
    check_positive,
    check_range,
    checked_positions,
    count_of,
    is_key,
)
from posenc_jax.model.cache import Cache

# On a CPU, equally long prompts are read one after the other where a chunk has so many tokens,
# because their activations then stay in its cache: eight prompts of 1,024 tokens take 0.90 of the
# time, of 512 tokens 0.96.
_LONG = 512


def generate(
    model,
    prompt_BT,
    key=None,
    *,
    max_new_tokens: int,
    lengths=None,
    positions=None,
    next_positions=None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop_token: int | None = None,
    length: int | None = None,
    prefill_chunk: int = 512,
) -> jax.Array:
    """Generates the tokens that follow the prompts, int32 ``[B, max_new_tokens]``.

    Args:
      model: a Transformer.
      prompt_BT: int token ids; a row that is shorter than T may end in anything.
      key: randomness; greedy decoding needs none.
      max_new_tokens: largest number of tokens to generate.
      lengths: int ``[B]``, number of tokens in each prompt. Default: T for all. A row's result does
        not depend on other rows, with two exceptions. Randomized positions are drawn for the
        longest prompt. Without ``length``, a scheme that adapts to the length does so at the end of
        each chunk of a prompt, and the longest prompt decides where chunks end.
      positions: positions of the prompts, ``[B, T]`` or ``[B, T, A]``. Default: text from 0 on.
      next_positions: ``[B]``, the position of the first new token of each row, on every axis:
        ``Placed.next`` of the builders; or ``[B, A]`` where axes differ. Default: one after the
        prompt's last token, which must have the same position on all axes, as text has.
        Every later token is one further on every axis, so the numbers of a camera
        (``positions.cameras``) would change too: continue such prompts by ``Transformer.extend``.
      temperature: divisor of the logits; 0 takes the most likely token.
      top_p: draw from the fewest tokens that have this probability together (1904.09751).
      stop_token: ends a sequence, and fills the rest of its row.
      length: the length that a scheme adapts to. Default: the length at each step.
        ``Transformer.extend`` says when the result is the same as without a cache.
      prefill_chunk: the most prompt tokens read at a time; memory is proportional to it. Chunks
        are equal, and read by one program, where ``lengths`` differ or the fewest chunks divide T;
        else the last one is shorter.

    Raises:
      ValueError: an argument is out of range, or a scheme has no such position.

    Call it outside of ``jax.jit``: it reads the values of prompts, and compiles its own steps.
    """
    max_new_tokens = count_of("max_new_tokens", max_new_tokens)
    prefill_chunk = count_of("prefill_chunk", prefill_chunk)
    check_range(0, temperature=temperature)
    check_positive(top_p=top_p)
    check_range(0, 1, top_p=top_p)
    if stop_token is not None:
        stop_token = count_of("stop_token", stop_token, 0, model.embedding.shape[0] - 1)
    if temperature == 0:
        key = jax.random.key(0)
    elif not is_key(key):
        raise ValueError(
            f"key={key!r} must be a random key, because temperature={temperature} draws tokens: "
            "pass jax.random.key(0), or temperature=0"
        )
    prompts = _Prompts.of(model, prompt_BT, lengths, positions, next_positions, prefill_chunk)
    check_reach(model, prompts.reach(max_new_tokens), length, prompts.positions)
    B, T = prompts.tokens.shape
    chunk = _in_equal_chunks(T, prefill_chunk)
    is_one_by_one = B > 1 and chunk >= _LONG and prompts.is_text and _is_on_one_cpu(model)
    prefilled = _prefilled_one_by_one if is_one_by_one else _prefilled
    logits_BV, cache = prefilled(model, prompts, chunk, T + max_new_tokens, length)
    how = _How(max_new_tokens, float(temperature), float(top_p), stop_token)
    first = None if prompts.is_text else prompts.next.reshape(B, 1, *prompts.positions.shape[2:])
    return _continue(how, model, logits_BV, cache, first, key)[0]


@dataclasses.dataclass(frozen=True)
class _How:
    """Holds the settings of ``generate`` that are static while its loop is traced."""

    count: int
    temperature: float
    top_p: float
    stop_token: int | None


class _Prompts(NamedTuple):
    """Holds prompts of one length, shorter ones moved to the right so that all end together.

    The padding at the start of a shorter prompt is a segment of its own.
    """

    tokens: Any  # [B, T]
    positions: Any  # [B, T] or [B, T, A]
    segment_ids: Any  # [B, T], or None where no prompt is shorter
    next: Any  # [B, A], where the text after each prompt continues; A is 1 for [B, T]
    is_text: bool  # whether positions were left out, so that they are text from 0 on

    @classmethod
    def of(cls, model, prompt_BT, lengths, positions, next_positions, prefill_chunk) -> "_Prompts":
        prompt_BT = np.asarray(as_array("prompt_BT", prompt_BT))
        check_ids("prompt_BT", prompt_BT, model.embedding.shape[0])
        B, T = prompt_BT.shape
        lengths_B1 = _lengths(lengths, B, T)[:, None]
        is_ragged = bool((lengths_B1 < T).any())
        # Where there is padding, a little more makes all chunks of prompts equally long.
        size = _in_equal_chunks(T, prefill_chunk)
        W = -(-T // size) * size if is_ragged else T
        padding_B1, column_1W = W - lengths_B1, np.arange(W, dtype=np.int32)[None]
        prompt_BW = np.take_along_axis(prompt_BT, (column_1W - padding_B1) % T, axis=1)
        is_text = positions is None and next_positions is None and not is_ragged
        positions = _positions(positions, padding_B1, T, W)
        return cls(
            prompt_BW,
            positions,
            (column_1W >= padding_B1).astype(np.int32) if is_ragged else None,
            _next_positions(next_positions, positions),
            is_text,
        )

    def part(self, which: slice):
        """Returns the tokens, positions and segments of a part of each prompt, for ``read``."""
        return (
            self.tokens[:, which],
            None if self.is_text else self.positions[:, which],
            None if self.segment_ids is None else self.segment_ids[:, which],
        )

    def reach(self, max_new_tokens: int) -> np.ndarray:
        """Returns one more than the last position that a token will have, ``[]``, or ``[A]``."""
        # In 64 bits, so that a position that does not fit into int32 is detected.
        new = self.next.max(axis=0).astype(np.float64)
        last = np.maximum(new + max_new_tokens - 1, self.positions.max(axis=(0, 1)) + 1.0)
        return np.ceil(last).astype(np.int64).reshape(self.positions.shape[2:])


def check_reach(
    model, length: int | np.ndarray, adapted: int | None = None, positions=None
) -> None:
    """Checks that every encoding has the positions of a text, which ``jax.jit`` could not check.

    Args:
      model: a Transformer.
      length: one more than the last position, or an array with this number for each axis.
      adapted: the length that schemes adapt to, if it stays the same.
      positions: the positions of earlier tokens.
    """
    extremes = (np.asarray(length) - 1)[None]
    if positions is not None:
        # Only the least, the largest and a fractional position of each axis, to save memory.
        before = positions.reshape(-1, *extremes.shape[1:])
        which = [np.ravel(x) for x in (before.argmin(0), before.argmax(0), (before % 1).argmax(0))]
        extremes = np.concatenate([before[np.concatenate(which)], extremes])
    for encoding in model.distinct():
        here = encoding.at(extremes[None], length=adapted)
        here.embed(jnp.zeros((1, len(extremes), model.embedding.shape[1])))


def _extended(model, chunk, cache):
    """Returns float32 logits ``[B, vocab_size]`` after the last token of a chunk, and the cache.

    A chunk is tokens ``[B, T]``, positions and segments, both None for text.
    """
    tokens_BT, positions, segment_ids = chunk
    x_BTD, cache = model.extend(tokens_BT, cache, positions, segment_ids)
    return model.unembed(x_BTD[:, -1:])[:, 0], cache


read = jax.jit(_extended, donate_argnames="cache")


@functools.partial(jax.jit, static_argnames=("size", "length"))
def _begin(model, chunk, *, size: int, length: int | None):
    """Returns ``read`` of the first chunk and an empty cache of ``size`` slots.

    The program makes the cache, so the chunk attends to itself, as a text without a cache does, and
    not to empty slots.
    """
    tokens_BT, positions, segment_ids = chunk
    is_text = positions is None
    cache = Cache.empty(
        model,
        len(tokens_BT),
        size,
        segments=segment_ids is not None,
        axes=None if is_text or positions.ndim == 2 else positions.shape[2],
        dtype="int32" if is_text else positions.dtype.name,
        length=length,
    )
    return _extended(model, chunk, cache)


def _prefilled(model, prompts: _Prompts, chunk: int, size: int, length: int | None):
    """Returns the logits ``[B, vocab_size]`` after prompts, and their cache of ``size`` slots."""
    first = prompts.part(slice(chunk))
    logits_BV, cache = _begin(model, first, size=size, length=length)
    for start in range(chunk, prompts.tokens.shape[1], chunk):
        logits_BV, cache = read(model, prompts.part(slice(start, start + chunk)), cache)
    return logits_BV, cache


def _prefilled_one_by_one(model, prompts: _Prompts, chunk: int, size: int, length: int | None):
    """Returns the same as ``_prefilled``; reads prompts, which are text, one after the other."""
    logits, cache = [], Cache.empty(model, len(prompts.tokens), size, length=length)
    for number, tokens_T in enumerate(prompts.tokens):
        prompt = prompts._replace(tokens=tokens_T[None])
        logits_1V, of_prompt = _prefilled(model, prompt, chunk, size, length)
        logits.append(logits_1V)
        cache = _with_sequence(cache, number, of_prompt)
    return jnp.concatenate(logits), cache


_with_sequence = jax.jit(Cache.with_sequence, donate_argnums=0)


def _is_on_one_cpu(model) -> bool:
    devices = jnp.asarray(model.embedding[...]).devices()  # It may be an array of NumPy.
    return [device.platform for device in devices] == ["cpu"]


@functools.partial(jax.jit, static_argnames="how", donate_argnames="cache")
def _continue(how: _How, model, logits_BV, cache, start, key):
    """Returns the output, and the cache, which replaces the donated one."""
    B, stop_token = logits_BV.shape[0], how.stop_token
    segment_ids = None if cache.segment_ids is None else jnp.ones((B, 1), jnp.int32)

    def put(step, logits_BV, stopped_B, output_BN):
        """Returns the tokens of one step, who has stopped, and the output with the tokens."""
        step_key = jax.random.fold_in(key, step)
        token_B = sample(logits_BV, step_key, how.temperature, how.top_p)
        if stop_token is not None:
            token_B = jnp.where(stopped_B, stop_token, token_B)
            stopped_B = token_B == stop_token
        return token_B, stopped_B, output_BN.at[:, step].set(token_B)

    def is_unfinished(state):
        step, _, _, stopped_B, _ = state
        return (step < how.count) & ~stopped_B.all()

    def one_more(state):
        step, token_B, cache, stopped_B, output_BN = state
        position = None if start is None else start + step - 1
        logits_BV, cache = read(model, (token_B[:, None], position, segment_ids), cache)
        token_B, stopped_B, output_BN = put(step, logits_BV, stopped_B, output_BN)
        return step + 1, token_B, cache, stopped_B, output_BN

    output_BN = jnp.full((B, how.count), 0 if stop_token is None else stop_token, jnp.int32)
    token_B, stopped_B, output_BN = put(0, logits_BV, jnp.zeros(B, bool), output_BN)
    state = jnp.ones((), jnp.int32), token_B, cache, stopped_B, output_BN
    _, _, cache, _, output_BN = jax.lax.while_loop(is_unfinished, one_more, state)
    return output_BN, cache


def sample(logits_BV, key, temperature: float, top_p: float) -> jax.Array:
    """Draws tokens from float32 logits, int32 ``[B]``; see ``generate``."""
    # A smaller temperature is 0 on a device, where the most likely token's 0 / 0 would be NaN.
    if temperature < np.finfo(np.float32).tiny:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    # The largest becomes 0, so that no temperature makes it too large for float32.
    logits_BV = (logits_BV - logits_BV.max(axis=-1, keepdims=True)) / temperature
    if top_p == 1:
        return jax.random.categorical(key, logits_BV).astype(jnp.int32)
    order_BV = jnp.argsort(-logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    shares_BV = jax.nn.softmax(logits_BV)
    before_BV = jnp.cumsum(shares_BV, axis=-1) - shares_BV
    place_B = jax.random.categorical(key, jnp.where(before_BV < top_p, logits_BV, -jnp.inf))
    return jnp.take_along_axis(order_BV, place_B[:, None], axis=-1)[:, 0]


def _in_equal_chunks(count: int, most: int) -> int:
    """Returns the size of the fewest chunks of at most ``most`` that make up ``count``."""
    chunks = -(-count // most)
    return -(-count // chunks)


def _lengths(lengths, B, T) -> np.ndarray:
    lengths_B = np.full(B, T) if lengths is None else np.asarray(lengths)
    fits = lengths_B.shape == (B,) and lengths_B.dtype.kind in "iu"
    if not fits or lengths_B.min() < 1 or lengths_B.max() > T:
        raise ValueError(
            f"lengths={lengths_B.tolist()} must be {B} whole numbers within 1..{T}, the tokens of "
            "each row of prompt_BT"
        )
    return lengths_B.astype(np.int32)


def _positions(positions, padding_B1, T, W) -> np.ndarray:
    """Returns positions of rows of T moved to the right, ``[B, W]`` or ``[B, W, A]``."""
    column_1W = np.arange(W, dtype=np.int32)[None]
    positions = np.asarray(checked_positions(column_1W[:, :T] if positions is None else positions))
    B = len(padding_B1)
    if positions.shape[:2] not in ((B, T), (1, T)):
        raise ValueError(
            f"positions have shape {positions.shape}, but the prompts are {B} x {T}: give "
            f"[{B}, {T}] or [{B}, {T}, A]; {B} may be 1"
        )
    positions = np.broadcast_to(positions, (B, *positions.shape[1:]))
    index = np.maximum(column_1W - padding_B1, 0)
    return np.take_along_axis(positions, index.reshape(B, W, *[1] * (positions.ndim - 2)), axis=1)


def _next_positions(next_positions, positions) -> np.ndarray:
    """Returns ``[B, A]`` in the dtype of positions; A is 1 for positions ``[B, T]``."""
    last_BA = positions[:, -1].reshape(len(positions), -1)
    if next_positions is None:
        if (last_BA != last_BA[:, :1]).any():
            raise ValueError(
                "next_positions=None continues prompts that end at one position on all axes, but "
                f"these end at {last_BA.tolist()}: pass Placed.next of each row, or a number for "
                "each axis"
            )
        return last_BA + 1
    given = np.asarray(as_array("next_positions", next_positions))
    cast = given.astype(positions.dtype)
    fits = given.shape in (last_BA.shape[:1], last_BA.shape)
    if not fits or not (abs(given - cast) <= MOST_ROUNDING).all():
        B, A = last_BA.shape
        raise ValueError(
            f"next_positions={given.tolist()} must be {B} numbers, one for each row of prompt_BT, "
            f"or {B} x {A}, one for each axis too, and fit into {positions.dtype}, the type of "
            "positions"
        )
    return np.broadcast_to(cast.reshape(len(cast), -1), last_BA.shape)
