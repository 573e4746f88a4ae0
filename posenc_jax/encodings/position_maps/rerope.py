"""ReRoPE and Leaky ReRoPE limit the relative position of RoPE beyond a window.

https://github.com/bojone/rerope (Su, 2023; no paper)

Both schemes replace the distance of a key from a query, and leave all distances below a window w as
they are. They override ``prepare``, ``rotate`` and ``score``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from posenc_jax.checks import check_range, count_of
from posenc_jax.encodings.lib.angles import cos_sin, rotated, tables_of_text
from posenc_jax.encodings.position_maps.position_map import PositionMap, products_of_parts
from posenc_jax.encodings.rotary.frequencies.base import geometric
from posenc_jax.pairs import Pairs
from posenc_jax.tokens import Tokens


class LeakyReRoPE(PositionMap):
    r"""Rotates by ``window + (d - window) / factor`` where a distance d is ``window`` or more.

    $$
    m - n \to \begin{cases}
    m - n & m - n < w \\
    w + (m - n - w) / s & \text{otherwise}
    \end{cases}
    $$

    w is the window and s the factor.

    It was published together with LogN scaling of the queries, which is a separate scheme here.

    Args:
      base, rotary_dim, layout: keywords of ``RoPE``, with the values of the trained model.
      window: distance up to which distances are exact; 512 as published.
      factor: factor by which distances beyond the window shrink; 16 as published. Distances stay
        within a training length L up to ``window + (L - window) * factor``.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        layout: str = "half",
        window: int = 512,
        factor: float = 16.0,
    ):
        super().__init__(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        check_range(1, math.inf, factor=factor)
        self.window = count_of("window", window)
        self.factor = factor
        self.offset = self.window - self.window / factor

    def prepare(self, tokens: Tokens, length):
        """Makes cosines and sines, near and far, for queries and for keys."""
        near = self.rope_tables(tokens.positions)
        inv_freq = geometric(self.rotary_dim, self.base)
        cos, sin = self.far_tables(tokens.positions, inv_freq)
        # The offset is a separate rotation: added to large float32 positions it would be rounded.
        offset = cos_sin(jnp.ones((1, 1, 1, 1), jnp.int32), inv_freq * self.offset)
        far_query = rotated(cos, sin, *offset)
        return (near, far_query), (near, (cos, sin))

    def far_tables(self, positions, inv_freq) -> tuple[jax.Array, jax.Array]:
        """Returns cosines and sines of compressed positions, ``[B, T, 1, rotary_dim / 2]``."""
        # For the same reason the frequency is divided, and not the position.
        return tables_of_text(positions, inv_freq / self.factor)

    def score(self, logits_BHTS, pairs: Pairs):
        near, far = products_of_parts(pairs, 2)
        return jnp.where(pairs.distance() < self.window, near, far)


class ReRoPE(LeakyReRoPE):
    r"""Rotates as RoPE, but all distances of ``window`` or more count as ``window``.

    $$ m - n \to \min(m - n,\ w) $$

    It is Leaky ReRoPE with an infinite factor, and was published together with LogN scaling too.

    Args:
      window: distance up to which distances are exact, less than the training length; 512 as
        published.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        layout: str = "half",
        window: int = 512,
    ):
        rope: Any = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        super().__init__(window=window, factor=math.inf, **rope)
