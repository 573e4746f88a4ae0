"""Computes the two training objectives of SeqPE, and draws the positions for them."""

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.absolute.seqpe_encoder import BASE
from posenc_jax.lookup import rows

# MODES has the shares of pivots whose candidates come from everywhere, from everywhere and edits of
# the pivot's digits, or from one window. EDITS is the share of edits in the second mode.
# The values are in the code of the released samplers, one for text and one for images. A comment in
# the sampler for text gives the shares for images.
TEXT_MODES, TEXT_EDITS = (0.0, 0.4, 0.6), 0.25
IMAGE_MODES, IMAGE_EDITS = (0.5, 0.3, 0.2), 0.2
WINDOW = 256


def contrastive_loss(pivots_PE, candidates_PNE, nearest_P) -> jax.Array:
    """Returns the cross-entropy of choosing the nearest candidate, by inner product with pivots."""
    logits_PN = jnp.einsum("pe,pne->pn", pivots_PE, candidates_PNE)
    log_weights = jax.nn.log_softmax(logits_PN)
    return -jnp.take_along_axis(log_weights, nearest_P[:, None], axis=-1).mean()


def transfer_loss(teacher_PNE, student_PNE, num_heads: int) -> jax.Array:
    """Returns how far the student's attention within N positions is from the teacher's.

    It is the sum of the Kullback-Leibler divergences of both directions, each a mean over all
    ``P H N N`` elements. The teacher gets no gradient.
    """

    def log_attention(x_PNE):
        x_PNHC = x_PNE.reshape(*x_PNE.shape[:2], num_heads, -1)
        return jax.nn.log_softmax(jnp.einsum("pnhc,pmhc->phnm", x_PNHC, x_PNHC))

    teacher = jax.lax.stop_gradient(log_attention(teacher_PNE))
    student = log_attention(student_PNE)
    # sum exp(t) (t - s) + sum exp(s) (s - t), in one.
    return ((jnp.exp(teacher) - jnp.exp(student)) * (teacher - student)).mean()


def nearest(pivots_AP, candidates_APN) -> jax.Array:
    """Returns the first candidate at the smallest Euclidean distance, int ``[P]``."""
    return squared_distances(pivots_AP, candidates_APN).argmin(axis=-1)


def squared_distances(pivots_AP, candidates_APN) -> jax.Array:
    """Returns the squared distance of each candidate from its pivot, float32 ``[P, N]``."""
    apart = (candidates_APN - pivots_AP[:, :, None]).astype(jnp.float32)
    return (apart**2).sum(axis=0)


def draw_candidates(key, pivots_AP, count: int, max_position: int, modes=None) -> jax.Array:
    """Draws positions to compare with each pivot, int32 ``[A, P, count]``.

    ``modes`` replaces ``TEXT_MODES`` or ``IMAGE_MODES``.

    Three things differ from the released sampler, which loops over Python integers: candidates from
    everywhere may repeat each other; one of them replaces an unusable edit, which is not tried
    again; and with several axes each edit changes one axis, not the joined string of all.
    """
    one_axis = len(pivots_AP) == 1
    edits = TEXT_EDITS if one_axis else IMAGE_EDITS
    if modes is None:
        modes = TEXT_MODES if one_axis else IMAGE_MODES
    everywhere_key, window_key, hard_key, mode_key = jax.random.split(key, 4)
    shape = (*pivots_AP.shape, count)
    everywhere = jax.random.randint(everywhere_key, shape, 0, max_position)
    # A candidate that equals the pivot moves by one along the first axis.
    is_pivot = (everywhere == pivots_AP[:, :, None]).all(axis=0)
    everywhere = everywhere.at[0].set((everywhere[0] + is_pivot) % max_position)
    near = draw_window(window_key, pivots_AP, count, max_position)

    def fit(candidates, at_least):
        """Replaces candidates no farther away than ``at_least`` by candidates from everywhere."""
        is_far = squared_distances(pivots_AP, candidates) > at_least
        return jnp.where(is_far[None], candidates, everywhere)

    hard = draw_edits(hard_key, pivots_AP, count, max_position)
    num_hard = int(edits * count)
    nearest_other = squared_distances(pivots_AP, everywhere)[:, num_hard:].min(-1, keepdims=True)
    is_hard = (jnp.arange(count) < num_hard)[None, None]
    with_edits = jnp.where(is_hard, fit(hard, nearest_other), everywhere)
    number = jax.random.uniform(mode_key, (1, pivots_AP.shape[1], 1))
    return jnp.where(
        number < modes[0],
        everywhere,
        jnp.where(number < modes[0] + modes[1], with_edits, fit(near, 0.0)),
    )


def draw_window(key, pivots_AP, count: int, max_position: int) -> jax.Array:
    """Draws ``count`` cells of one window (line, square, cube): int32 ``[A, P, count]``."""
    A, P = pivots_AP.shape
    side = min(int(max(WINDOW, 5 * count) ** (1 / A)), max_position)
    start_key, cell_key = jax.random.split(key)
    start = jax.random.randint(start_key, (A, P, 1), 0, max_position - side + 1)
    return start + draw_cells(cell_key, P, count, side, A)


def draw_cells(key, rows_count: int, count: int, side: int, num_axes: int) -> jax.Array:
    """Draws distinct cells of a cube with ``num_axes`` axes: int32 ``[A, rows_count, count]``.

    If the cube has fewer than ``count`` cells, all of them are drawn and then repeated.
    """
    total = side**num_axes
    keys = jax.random.split(key, rows_count)
    shuffled = jax.vmap(lambda key: jax.random.permutation(key, total))(keys)
    chosen = rows(shuffled.T, jnp.arange(count) % total).T
    return jnp.stack([chosen // side**axis % side for axis in reversed(range(num_axes))])


def draw_edits(key, pivots_AP, count: int, max_position: int) -> jax.Array:
    """Draws the pivots after one to three random edits of digits: int32 ``[A, P, count]``.

    An edit inserts, removes, changes or swaps digits of the number without leading zeros; an edit
    whose result lies outside ``0 .. max_position - 1`` is skipped.
    """
    shape = (*pivots_AP.shape, count)
    number = jnp.broadcast_to(pivots_AP[:, :, None], shape)
    axes = np.arange(shape[0])[:, None, None]
    amount_key, *edit_keys = jax.random.split(key, 4)
    amount = jax.random.randint(amount_key, (1, *shape[1:]), 1, 4)
    for i, edit_key in enumerate(edit_keys):
        edit_key, axis_key = jax.random.split(edit_key)
        edited = _edit(edit_key, number)
        is_edited = (i < amount) & (edited >= 0) & (edited < max_position)
        is_edited &= jax.random.randint(axis_key, (1, *shape[1:]), 0, shape[0]) == axes
        number = jnp.where(is_edited, edited, number)
    return number


def _edit(key, number):
    """Makes one random edit of every number, all below 10^8."""
    kind_key, digit_key, *nth_keys = jax.random.split(key, 4)
    length = 1 + sum((number >= BASE**i).astype(jnp.int32) for i in range(1, 9))
    first, second = (
        # A digit counted from the right, 0 .. length - 1; the first may also be length.
        jax.random.randint(nth_key, number.shape, 0, length + extra)
        for nth_key, extra in zip(nth_keys, (1, 0), strict=True)
    )
    # Digits as powers of ten: exact, and cheaper than strings of varying length.
    units = BASE ** jnp.arange(9)
    new = jax.random.randint(digit_key, number.shape, 0, BASE)
    unit = rows(units, first)
    inserted = (number // unit * BASE + new) * unit + number % unit
    first = jnp.minimum(first, length - 1)
    first_unit, second_unit = rows(units, first), rows(units, second)
    first_digit, second_digit = number // first_unit % BASE, number // second_unit % BASE
    removed = number // (BASE * first_unit) * first_unit + number % first_unit
    changed = number + (new - first_digit) * first_unit
    swapped = number + (second_digit - first_digit) * (first_unit - second_unit)
    kind = jax.random.randint(kind_key, number.shape, 0, 4)
    return jnp.select([kind == i for i in range(3)], [inserted, removed, changed], swapped)
