r"""Jet-Long counts far tokens in groups whose size follows the length of the text.

https://arxiv.org/abs/2607.07740

$$
m - n \to \begin{cases}
m - n & m - n \le w \\
\lfloor m / G \rfloor - \lfloor n / G \rfloor & \text{otherwise}
\end{cases}, \qquad G = \max\big(1, \lceil T / L \rceil\big)
$$

RoPE rotates by these distances; w is the window, T the length of the text and L the training
length. Overrides ``prepare``, ``rotate`` and ``score``.
"""

import jax.numpy as jnp

from posenc_jax.checks import count_of
from posenc_jax.encodings.position_maps.position_map import PositionMap, products_of_parts
from posenc_jax.encodings.rotary.rope import check_length
from posenc_jax.pairs import Pairs
from posenc_jax.tokens import Tokens


class JetLong(PositionMap):
    """Rotates as RoPE up to the training length, and beyond it by exact distances or by groups.

    No distance beyond the window exceeds the training length, however long the text is. Unlike
    Self-Extend's, these distances do not continue where the window ends: a key d tokens away counts
    as ``d / G`` away. There is one softmax over all keys. The authors' code groups all rows of a
    batch by the longest; here each text has its own G. Groups are counted from position 0, so a
    shift of all positions changes the logits.

    Args:
      train_length: L, number of tokens in a sequence that the model was trained on.
      base, rotary_dim, layout: keywords of ``RoPE``, with the values of the trained model.
      window: w, the largest exact distance; by default ``L / 16``, as in the authors' code.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        train_length: int,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        layout: str = "half",
        window: int | None = None,
    ):
        super().__init__(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        self.train_length = count_of("train_length", train_length)
        window = max(1, train_length // 16) if window is None else window
        self.window = count_of("window", window, 1, train_length)

    def prepare(self, tokens: Tokens, length):
        """Makes cosines and sines, near and far, for queries and for keys."""
        positions, length = tokens.positions, tokens.length(length)
        check_length(positions, length)
        length = jnp.atleast_2d(jnp.asarray(length, jnp.float32))
        group = jnp.maximum(jnp.ceil(length / self.train_length), 1)
        near = self.rope_tables(positions)
        far = self.rope_tables(positions // group.astype(positions.dtype))
        # A length that is NaN has no group; see ``Tokens.length``.
        unknown = jnp.isnan(length)[..., None, None]
        tables = near, tuple(jnp.where(unknown, jnp.nan, table) for table in far)
        return tables, tables

    def score(self, logits_BHTS, pairs: Pairs):
        near, far = products_of_parts(pairs, 2)
        return jnp.where(pairs.distance() <= self.window, near, far)
