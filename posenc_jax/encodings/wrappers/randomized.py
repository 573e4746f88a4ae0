"""Gives another scheme randomized positions, so that training meets positions of longer texts.

Overrides ``moved``; everything else is the wrapped scheme's.
"""

import jax
import jax.numpy as jnp

from posenc_jax.checks import check_rows, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.lookup import rows
from posenc_jax.tokens import Tokens


class Randomized(Wrapper):
    r"""Gives another scheme randomly drawn, ordered positions.

    https://arxiv.org/abs/2305.16843

    $$ p_t \gets u_{p_t}, \qquad 0 \le u_0 < u_1 < \dots < u_{T-1} < L_{\max} $$

    A token at position p gets number p, counted from 0, of T different integers drawn from
    ``0 .. max_length - 1`` and sorted. T is ``length`` where it is given and else the largest
    position of the batch plus one, so one draw serves all rows, all position axes, queries and
    keys.

    Training draws again in every step. Evaluation has no key and uses one fixed draw, because the
    paper draws at evaluation too; average over seeds to estimate the expectation. The paper draws
    for each layer, but here one draw serves the whole model. The paper's relative variants draw
    distances instead of positions and are not defined for causal attention: here a relative
    scheme sees the differences of drawn positions.

    A position outside the draw raises ValueError; under ``jax.jit``, where values are not known,
    it becomes NaN, and so does every position if T exceeds ``max_length``.

    Args:
      over: the scheme that gets the drawn positions: its name, a mapping of its name and its own
        keywords (``{"name": "rope", "base": 500000.0}``), or one already built.
      max_length: how many numbers there are to draw from, at least the length of the longest
        sequence ever evaluated; 2048 in the paper, for lengths up to 500. It becomes the
        ``train_length`` of a scheme given by name.
      evaluation_seed: seed of the draw without a key.
    """

    def __init__(
        self, *, over: Encoding | str = "rope", max_length: int = 2048, evaluation_seed: int = 0
    ):
        super().__init__(over)
        self.max_length = _checked(max_length)
        self.evaluation_seed = evaluation_seed

    @classmethod
    def sizes_beneath(cls, sizes, *, max_length: int = 2048, **settings):
        return sizes | {"train_length": _checked(max_length)}

    def moved(self, tokens: Tokens, length, key):
        inner_key = None
        if key is not None:
            key, inner_key = jax.random.split(key)
        drawn = tokens.moved_to(self.draw(tokens.positions, key, length))
        # The length of the drawn positions would be another one.
        return super().moved(drawn, tokens.length(length), inner_key)

    def draw(self, positions, key=None, length=None) -> jax.Array:
        """Returns the number drawn for each position, float32, or NaN for none."""
        positions = jnp.asarray(positions)
        count = jnp.max(positions if length is None else jnp.asarray(length) - 1) + 1
        if not isinstance(count, jax.core.Tracer):
            if count_of("length", int(count)) > self.max_length:
                raise ValueError(
                    f"length={count} exceeds max_length={self.max_length}, the count of numbers "
                    "that positions are drawn from: give make a larger max_length"
                )
            check_rows(positions, int(count), "use whole positions below length=")
        key = jax.random.key(self.evaluation_seed) if key is None else key
        is_drawable = (positions >= 0) & (positions % 1 == 0) & (count <= self.max_length)
        is_drawable &= positions < count
        index = jnp.where(is_drawable, positions, self.max_length).astype(jnp.int32)
        drawn = jnp.sort(self._numbers(key, count))
        return rows(drawn, index, mode="fill", fill_value=jnp.nan)

    def _numbers(self, key, count):
        """Returns ``count`` different integers in any order, and inf: float32 ``[max_length]``."""
        numbers = jnp.arange(self.max_length, dtype=jnp.float32)
        is_drawn = jax.random.permutation(key, self.max_length) < count
        return jnp.where(is_drawn, numbers, jnp.inf)


class RandomFloat(Randomized):
    r"""Gives another scheme random real positions in training, and even ones in evaluation.

    https://arxiv.org/abs/2602.14050

    $$
    p_t \gets u_{p_t} \ \text{(training)}, \quad 0 \le u_0 \le \dots \le u_{T-1} < L_{\max}, \qquad
    p_t \gets \frac{(p_t + 1/2)\, L_{\max}}{\max(T, L)} \ \text{(evaluation)}
    $$

    The T numbers u are uniform and independent, and sorted; T is as in ``Randomized``, and L the
    training length. So evaluation at any length stays in the range of training. The paper could not
    be read. The class follows a summary of the paper. The summary has positions from 0 to 1,
    where RoPE would hardly rotate, and does not say how RoPE and ALiBi use them. Here the end of
    the range is a keyword.

    Args:
      over: keyword of ``Randomized``.
      max_length: end of the range of positions, and length of the longest sequence in training.
    """

    def __init__(self, *, train_length: int, over: Encoding | str = "rope", max_length: int = 2048):
        super().__init__(over=over, max_length=max_length)
        self.train_length = count_of("train_length", train_length)

    def draw(self, positions, key=None, length=None) -> jax.Array:
        """Returns a draw with a key, and else the even positions, float32."""
        if key is not None:
            return super().draw(positions, key, length)
        longest = jnp.max(positions) + 1 if length is None else jnp.max(jnp.asarray(length))
        step = self.max_length / jnp.maximum(longest, self.train_length)
        return (positions.astype(jnp.float32) + 0.5) * step

    def _numbers(self, key, count):
        drawn = jax.random.uniform(key, (self.max_length,), maxval=self.max_length)
        return jnp.where(jnp.arange(self.max_length) < count, drawn, jnp.inf)


def _checked(max_length) -> int:
    # Drawn positions are float32, which counts to 2^24, because only a float can be NaN.
    return count_of("max_length", max_length, 1, 2**24)
