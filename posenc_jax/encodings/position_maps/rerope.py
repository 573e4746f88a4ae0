"""ReRoPE and Leaky ReRoPE rectify rotary positions.

https://github.com/bojone/rerope (Su, 2023; no paper)

RoPE whose relative position stops at a window w, or grows more slowly from there on:
``min(d, w)``, or ``w + (d - w) / factor`` where the distance d exceeds w. Overrides ``prepare``,
``rotate`` and ``score``.
"""

import math

from posenc_jax.encodings.position_maps.position_map import NearFar


class ReRoPE(NearFar):
    """Turns as RoPE, where distances of ``window`` or more all count as ``window``.

    Published together with LogN scaling of the queries, which is not part of it here.

    Args:
      head_dim: channels of one head.
      base, rotary_dim, layout: keywords of ``RoPE``, with the values of the trained model.
      window: tokens up to which distances are exact, fewer than the model was trained on; 512 as
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
    """Turns by ``window + (d - window) / factor`` where a distance d is ``window`` or more.

    Published together with LogN scaling of the queries, which is not part of it here.

    Args:
      head_dim: channels of one head.
      base, rotary_dim, layout: keywords of ``RoPE``, with the values of the trained model.
      window: tokens up to which distances are exact; 512 as published.
      factor: how many distances beyond the window share the room of one; 16 as published.
        Distances stay within a training length L up to ``window + (L - window) * factor``.
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
        if not 1 <= factor < math.inf:
            raise ValueError(f"factor={factor!r} must be a finite number, 1 or more")
        rope = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        super().__init__(window=window, compression=factor, **rope)
