r"""Self-Extend counts far tokens in groups.

https://arxiv.org/abs/2401.01325

$$
m - n \to \begin{cases}
m - n & m - n < w \\
\lfloor m / G \rfloor - \lfloor n / G \rfloor + w - w / G & \text{otherwise}
\end{cases}
$$

RoPE rotates by these distances; w is the window and G the size of a group. Overrides ``prepare``,
``rotate`` and ``score``.
"""

from typing import Any

import jax

from posenc_jax.checks import count_of
from posenc_jax.encodings.lib.angles import tables_of_text
from posenc_jax.encodings.position_maps.rerope import LeakyReRoPE


class SelfExtend(LeakyReRoPE):
    """Rotates as RoPE by exact distances within a window, and by grouped positions beyond it.

    Groups are counted from position 0, so a shift of all positions changes the logits.

    Args:
      base, rotary_dim, layout: keywords of ``RoPE``, with the values of the trained model.
      window: w, the distance up to which distances are exact; 1024 in the released code, for models
        trained on 4096 tokens.
      group_size: G, number of tokens in a group; 8 in the released code. Distances stay within a
        training length L up to ``(L - w) * G + w``.
      floor: whether ``w / G`` is rounded down, as in the paper. By default it is not, as in the
        released code. The two differ where G does not divide w.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        layout: str = "half",
        window: int = 1024,
        group_size: int = 8,
        floor: bool = False,
    ):
        group_size = count_of("group_size", group_size)
        rope: Any = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        super().__init__(window=window, factor=group_size, **rope)
        self.group_size = group_size
        if floor:
            self.offset = self.window - self.window // group_size

    def far_tables(self, positions, inv_freq) -> tuple[jax.Array, jax.Array]:
        return tables_of_text(positions // self.group_size, inv_freq)
