"""ReRoPE and Leaky ReRoPE limit the relative position of RoPE beyond a window.

https://github.com/bojone/rerope (Su, 2023; no paper)

Both schemes replace the distance of a key from a query, and leave all distances below a window w as
they are. They override ``prepare``, ``rotate`` and ``score``.
"""

import math

from posenc_jax.encodings.position_maps.position_map import NearFar
from posenc_jax.fields import check_range


class ReRoPE(NearFar):
    r"""Rotates as RoPE, but all distances of ``window`` or more count as ``window``.

    $$ m - n \to \min(m - n,\ w) $$

    It was published together with LogN scaling of the queries, which is a separate scheme here.

    Args:
      head_dim: number of channels in one head.
      base, rotary_dim, layout: keywords of ``RoPE``, with the values of the trained model.
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
        rope = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        super().__init__(window=window, compression=math.inf, **rope)


class LeakyReRoPE(NearFar):
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
      head_dim: number of channels in one head.
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
        check_range(1, factor=factor)
        rope = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        super().__init__(window=window, compression=factor, **rope)
