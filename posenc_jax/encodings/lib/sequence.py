"""Sums and convolves over the tokens of a sequence, and finds the tokens before each one."""

import jax
import jax.numpy as jnp

from posenc_jax.lookup import check_width, lying_as, pick, with_whole_rows


def by_segment(function, x_BTD, tokens):
    """Calls ``function(x_BTD, segment_ids)`` with tokens sorted by segment, then by index.

    Each segment is then contiguous and in the order it was written, whatever the arrangement.
    ``segment_ids`` is None without segments. The result, arrays with the tokens along axis 1, comes
    back in the tokens' own arrangement.
    """
    segment_ids = tokens.segment_ids
    if tokens.index is None and segment_ids is None:
        return function(x_BTD, None)
    order_BT = jnp.argsort(for_each_row(tokens.order(), x_BTD), axis=1)
    if segment_ids is not None:
        by_index = arrange(for_each_row(segment_ids, x_BTD), order_BT)
        segments = jnp.argsort(by_index, axis=1, stable=True)
        order_BT, segment_ids = arrange(order_BT, segments), arrange(by_index, segments)
    result = function(arrange(x_BTD, order_BT), segment_ids)
    back_BT = jnp.argsort(order_BT, axis=1)
    return jax.tree.map(lambda x: arrange(x, back_BT), result)


def sums_up_to(x_BTN, tokens, state=None):
    """Returns ``running_sum`` of a sequence's, or segment's, tokens, and the state after the last.

    ``state`` comes from the tokens before, as in a scheme's ``observe``.
    """
    x_BTN = with_whole_rows(x_BTN)
    if state is None:
        sums = by_segment(lambda x_BTN, _: running_sum(x_BTN), x_BTN, tokens)
    else:
        sums = running_sum(x_BTN, state)
    return sums, tuple(x[:, -1] for x in sums)


def convolved(x_BTN, kernel_WN, tokens, state=None):
    """Returns ``short_convolution`` of a sequence's, or segment's, tokens, and the state.

    The state is the last W - 1 tokens, zeros where there are fewer.
    """
    x_BTN, T, before = with_whole_rows(x_BTN), x_BTN.shape[1], kernel_WN.shape[0] - 1
    if state is None:
        longer = jnp.pad(x_BTN, ((0, 0), (before, 0), (0, 0)))
        out = by_segment(lambda x, ids: short_convolution(x, kernel_WN, ids), x_BTN, tokens)
    else:
        longer = jnp.concatenate([state, x_BTN], axis=1)
        out = short_convolution(longer, kernel_WN)[:, before:]
    return out, longer[:, T:]


def places_back(tokens, reach):
    """Returns where the ``reach`` tokens before each one in its segment lie, counted backwards.

    The result is int32 ``[B, T, reach]``, the token written just before first, and 0 where there is
    none. Its ``B`` is 1 where the batch shares order and segments.
    """

    def before(number_BT, segment_ids):
        return jnp.stack([_before(number_BT, segment_ids, n + 1) for n in range(reach)], axis=-1)

    number_BT = jnp.arange(tokens.count, dtype=jnp.int32)[None]
    for numbers_BT in (tokens.index, tokens.segment_ids):
        if numbers_BT is not None:
            number_BT = for_each_row(number_BT, numbers_BT)
    before_BTN = by_segment(before, number_BT, tokens)
    return jnp.where(before_BTN < 0, 0, number_BT[..., None] - before_BTN)


def _before(number_BT, segment_ids, count):
    """Returns the number of the token ``count`` before in the same segment, or -1."""
    T = number_BT.shape[1]
    before = jnp.pad(number_BT, ((0, 0), (count, 0)), constant_values=-1)[:, :T]
    if segment_ids is None:
        return before
    is_same = jnp.pad(segment_ids, ((0, 0), (count, 0)))[:, :T] == segment_ids
    return jnp.where(is_same, before, -1)


def earlier(x_BSKC, tokens, back_BSN, count):
    """Returns the key, or value, ``count`` before each one: 0 for none, NaN if it is not given.

    ``back_BSN`` comes from ``places_back``.
    """
    return lying_as(_earlier(with_whole_rows(x_BSKC), tokens, back_BSN, count), x_BSKC)


def _earlier(x_BSKC, tokens, back_BSN, count):
    S = x_BSKC.shape[1]
    if tokens.index is None and tokens.segment_ids is None:
        return jnp.pad(x_BSKC, ((0, 0), (count, 0), (0, 0), (0, 0)))[:, :S]
    back_BS = for_each_row(back_BSN[..., count - 1], x_BSKC)
    number = jnp.arange(S, dtype=jnp.int32)[None] - back_BS
    is_given = (number >= 0) & (number < S)
    index = jnp.clip(number, 0, S - 1)
    before = pick(x_BSKC.transpose(0, 2, 3, 1), index[:, None, None]).transpose(0, 3, 1, 2)
    before = jnp.where(is_given[..., None, None], before, jnp.nan)
    return jnp.where(back_BS[..., None, None] == 0, 0, before)


def for_each_row(numbers, x):
    """Returns whole numbers ``[B or 1, T, ...]`` for every row of ``x``, sharded as ``x`` is.

    ``x [B, T, ...]`` may have any number of axes.
    """
    numbers = jnp.asarray(numbers)
    # A sum and no slice: JAX does not slice an axis that a mesh shares.
    zeros_BT = jnp.zeros_like(x, dtype=numbers.dtype).sum(axis=tuple(range(2, x.ndim)))
    return numbers + zeros_BT.reshape(*x.shape[:2], *[1] * (numbers.ndim - 2))


def arrange(x, order_BT):
    """Returns the tokens of ``x [B, T, ...]`` in the order of ``order_BT``."""
    order = order_BT.reshape(order_BT.shape + (1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, order, axis=1, mode="promise_in_bounds")


def arrange_keys(x_BHTS, order_BS):
    """Returns the columns of ``x`` in the order of ``order_BS``."""
    return pick(x_BHTS, order_BS[:, None, None, :])


def running_sum(x_BTN, before=None):
    """Returns the sum of the tokens up to each one, as two float32 arrays that add up to it.

    The difference of two sums ``(high, low)`` is ``(high - high') + (low - low')``, as exact as if
    only the tokens between had been added, however many came before. ``before``, two arrays
    ``[B, N]``, is the sum to continue from; by default zero.
    """

    def add(a, b):
        (high_a, low_a), (high_b, low_b) = a, b
        high = high_a + high_b
        of_b = high - high_a
        lost = (high_a - (high - of_b)) + (high_b - of_b)
        return high, low_a + low_b + lost

    x_BTN = x_BTN.astype(jnp.float32)
    terms = [x_BTN, jnp.zeros_like(x_BTN)]
    if before is not None:
        terms = [
            jnp.concatenate([sums[:, None], x], axis=1)
            for sums, x in zip(before, terms, strict=True)
        ]
    high, low = jax.lax.associative_scan(add, tuple(terms), axis=1)
    if before is not None:
        high, low = high[:, 1:], low[:, 1:]
    return high, jax.lax.stop_gradient(low)  # what rounding loses has no derivative


def short_convolution(x_BTN, kernel_WN, segment_ids=None):
    """Sums each channel over the last W tokens of the segment, weighted by how far back they are.

    Row 0 of the kernel is for the token itself. The tokens are sorted as by ``by_segment``.
    """
    total = x_BTN * kernel_WN[None, None, 0]
    for back in range(1, min(kernel_WN.shape[0], x_BTN.shape[1])):
        earlier = jnp.pad(x_BTN[:, :-back], ((0, 0), (back, 0), (0, 0)))
        if segment_ids is not None:
            same = segment_ids[:, back:] == segment_ids[:, :-back]
            earlier = earlier * jnp.pad(same, ((0, 0), (back, 0)))[..., None]
        total = total + earlier * kernel_WN[None, None, back]
    return total


def project(x_BTD, kernel_DN) -> jax.Array:
    """Returns ``x`` times the kernel, float32 ``[B, T, N]``.

    It is not rounded to fewer digits, because sums over many tokens follow.
    """
    check_width(x_BTD, model_dim=kernel_DN.shape[0])
    x_BTD, kernel_DN = x_BTD.astype(jnp.float32), kernel_DN.astype(jnp.float32)
    return jnp.einsum("btd,dn->btn", x_BTD, kernel_DN, precision="highest")
