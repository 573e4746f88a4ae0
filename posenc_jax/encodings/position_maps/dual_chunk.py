r"""Dual chunk attention restarts positions in every chunk.

https://arxiv.org/abs/2402.17463

$$
n \to n \bmod s, \qquad
m \to \begin{cases}
m \bmod s & \text{for keys of the query's own chunk} \\
\min(m \bmod s + s,\ c) & \text{for keys of the chunk before} \\
\min(2 s - 1,\ c) & \text{for older keys}
\end{cases}
$$

RoPE rotates by these positions of keys n and queries m. A chunk has ``s = c - local_window``
tokens, and c is ``chunk_size``. Overrides ``prepare``, ``rotate`` and ``score``.
"""

import jax.numpy as jnp

from posenc_jax.checks import check_sizes, count_of
from posenc_jax.encodings.position_maps.position_map import PositionMap, products_of_parts
from posenc_jax.encodings.rotary.rope import check_length
from posenc_jax.pairs import Pairs, Side
from posenc_jax.tokens import Tokens


class DualChunk(PositionMap):
    """Rotates as RoPE by distances of at most ``chunk_size``, exact up to ``local_window``.

    There is one softmax over all keys.

    Chunks are counted from position 0, so a shift of all positions changes the logits, and packed
    documents need positions that restart. Keys in a later chunk than their query have no defined
    position; they count as keys of the query's chunk.

    Args:
      train_length: L, number of tokens in a sequence that the model was trained on.
      base, rotary_dim, layout: keywords of ``RoPE``, with the values of the trained model.
      chunk_size: number of tokens of a chunk and its local window together; by default ``3 L / 4``,
        as in the released code.
      local_window: distance up to which distances stay exact; by default ``L / 8``, as in the
        released code. If it is more than half of ``chunk_size``, distances to keys two chunks back
        are not exact.
      original_length: the logits of a text of n tokens, where n is larger than this number, are
        multiplied by ``1 + 0.1 ln(n / original_length)``, as in vLLM and SGLang for Qwen2.5-1M. By
        default there is no such temperature, as in the paper.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        train_length: int,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        layout: str = "half",
        chunk_size: int | None = None,
        local_window: int | None = None,
        original_length: int | None = None,
    ):
        super().__init__(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        chunk_size = train_length * 3 // 4 if chunk_size is None else chunk_size
        local_window = train_length // 8 if local_window is None else local_window
        self.chunk_size = count_of("chunk_size", chunk_size)
        self.local_window = count_of("local_window", local_window, 0, self.chunk_size - 1)
        self.stride = self.chunk_size - self.local_window
        check_sizes(original_length=original_length)
        self.original_length = original_length

    def prepare(self, tokens: Tokens, length):
        """Makes three cosines and sines for queries and for keys, and the temperature, if any.

        The temperature is float32 ``[B, T, 1, 1]``.
        """
        positions = tokens.positions
        within = positions % self.stride
        seen_from = (
            within,
            jnp.minimum(within + self.stride, self.chunk_size),
            jnp.full_like(within, min(2 * self.stride - 1, self.chunk_size)),
        )
        same, before, older = map(self.rope_tables, seen_from)
        temperature = None
        if self.original_length is not None:
            length = tokens.length(length)
            check_length(positions, length)
            growth = jnp.maximum(jnp.asarray(length, jnp.float32) / self.original_length, 1.0)
            ones = jnp.ones_like(same[0][..., :1])
            temperature = ones * (1 + 0.1 * jnp.log(growth))[..., None, None]
        return (same, before, older), (same, same, same), temperature

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        of_queries, of_keys, temperature = tokens.made
        rotated = self.rotate_by_each(x_BTHC, of_queries if side.is_query else of_keys)
        if temperature is None or not side.is_query:
            return rotated
        return (temperature * rotated).astype(x_BTHC.dtype)

    def score(self, logits_BHTS, pairs: Pairs):
        same, before, older = products_of_parts(pairs, 3)
        q_chunk, k_chunk = (
            tokens.positions // self.stride for tokens in (pairs.q_tokens, pairs.k_tokens)
        )
        chunks_back = q_chunk[:, None, :, None] - k_chunk[:, None, None, :]
        return jnp.where(chunks_back > 1, older, jnp.where(chunks_back == 1, before, same))
