r"""LongRoPE and LongRoPE2 slow each channel pair down by a factor found by a search.

https://arxiv.org/abs/2402.13753, https://arxiv.org/abs/2502.20082

$$
\theta'_i = \frac{\theta_i}{\lambda_i}, \qquad
\lambda = \begin{cases} \text{long factors} & T > L \\ \text{short factors} & T \le L \end{cases}
$$

T is the length of the sequence, and L the training length. All tokens of a sequence switch
together, so keys that were rotated before the switch are useless after it. Cosine and sine are
multiplied by ``sqrt(1 + ln(factor) / ln(L))``. Overrides ``prepare``.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import check_positive, check_range, count_of
from posenc_jax.encodings.lib.axes import Allocation
from posenc_jax.encodings.rotary.frequencies.base import checked_base
from posenc_jax.encodings.rotary.rope import RoPE, check_length
from posenc_jax.tokens import Tokens

Factors = Sequence[float] | float


class LongRoPE(RoPE):
    """Slows each pair down by a factor of its own (``longrope`` in Hugging Face, ``su`` before).

    https://arxiv.org/abs/2402.13753

    Args:
      train_length: L, number of tokens in a training sequence before the extension.
      factor: target length / train length; only the defaults below depend on it.
      long_factor: how many times slower each pair rotates past L, the fastest pair first, or one
        number for all of them. Default: ``factor``, which is PI, where the search starts.
      short_factor: the same up to L. Default: 1, as in RoPE.
      attention_factor: factor of cosine and sine. Default: ``sqrt(1 + ln(factor) / ln(L))``.
      short_attention_factor: the same up to L. Default: ``attention_factor``, as in Hugging Face;
        the paper leaves it open.
      start_tokens: tokens at positions below this number (n-hat in the paper) rotate as in RoPE.
        Later positions are not renumbered, so the product of a start token and a later one depends
        on more than their distance. The cosine and sine of start tokens have no attention factor,
        as in the released code.

    The released code's dynamic variant, whose factors grow with the length, is not offered.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        train_length: int,
        factor: float,
        long_factor: Factors | None = None,
        short_factor: Factors | None = None,
        attention_factor: float | None = None,
        short_attention_factor: float | None = None,
        start_tokens: int = 0,
        base: float = 10000.0,
        axes: Allocation | None = None,
        rotary_dim: int | None = None,
        layout: str = "half",
    ):
        super().__init__(
            head_dim=head_dim, base=base, axes=axes, rotary_dim=rotary_dim, layout=layout
        )
        check_range(1, factor=factor)
        check_positive(
            attention_factor=attention_factor, short_attention_factor=short_attention_factor
        )
        # Without an attention factor, its logarithm divides.
        count_of("train_length", train_length, 2 if attention_factor is None else 1)
        if attention_factor is None:
            attention_factor = math.sqrt(1 + math.log(factor) / math.log(train_length))
        if short_attention_factor is None:
            short_attention_factor = attention_factor
        long_factor = factor if long_factor is None else long_factor
        short_factor = 1.0 if short_factor is None else short_factor
        pairs = self.rotary_dim // 2
        self.train_length = train_length
        self.factor = factor
        self.long_factor = _of_pairs("long_factor", long_factor, pairs)
        self.short_factor = _of_pairs("short_factor", short_factor, pairs)
        self.attention_factor = attention_factor
        self.short_attention_factor = short_attention_factor
        self.start_tokens = count_of("start_tokens", start_tokens, minimum=0)

    def prepare(self, tokens: Tokens, length):
        """Makes the ``tables`` for the length of each token's sequence."""
        positions, length = tokens.positions, tokens.length(length)
        check_length(positions, length)
        inv_freq, no_factor = self.frequencies(self.rotary_dim, self.base, length)

        def slowed(factors, attention_factor):
            return self.tables(positions, inv_freq / np.array(factors), attention_factor)

        long = self.long_factor, self.attention_factor
        short = self.short_factor, self.short_attention_factor
        if not isinstance(length, jax.Array | np.ndarray):
            tables = slowed(*(long if length > self.train_length else short))
        else:
            # Both tables are computed and one is chosen, because their frequencies are constants
            # in float64; a frequency chosen when the program runs would have to be a float32 pair.
            length = jnp.atleast_2d(length)[:, :, None, None]
            tables = _where(length > self.train_length, slowed(*long), slowed(*short))
            tables = tuple(jnp.where(jnp.isnan(length), jnp.nan, table) for table in tables)
        if self.start_tokens:
            starts = self.positions_of_pairs(positions) < self.start_tokens
            tables = _where(starts, self.tables(positions, inv_freq, no_factor), tables)
        return tables


def longrope2(
    *,
    head_dim: int,
    train_length: int,
    factor: float,
    critical_pair: int | None = None,
    tail_factors: Factors | None = None,
    attention_factor: float | None = None,
    base: float = 10000.0,
    axes: Allocation | None = None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> LongRoPE:
    r"""Builds LongRoPE2, where only the slow pairs have factors found by a search.

    https://arxiv.org/abs/2502.20082

    $$
    \lambda_i = \begin{cases} \lambda_c^{\,i/c} & i < c \\ \lambda_i & i \ge c \end{cases}
    $$

    Past the training length L, pair i is slower by ``tail_factors[i - c]`` from the critical pair c
    on. Below it the fastest pair is kept, and the factors correspond to a larger base, as in NTK.
    Up to L this is RoPE, because the paper trains on short windows and switches by length. That
    short windows have no attention factor is our reading of "original RoPE"; no code of that part
    is known.

    Args:
      critical_pair: the first pair with a factor of its own, counted from 0. Default: the first
        pair that does not turn once within L, ``ceil(d / 2 * ln(L / 2 pi) / ln(base))``. The paper
        argues that the real critical pair is smaller and must be searched for: 30 instead of 35 for
        Llama-3-8B. The only public implementation that we know counts one less by default.
      tail_factors: a number for each pair from there on, or one for all of them: not decreasing,
        and at least ``factor``. Default: ``factor``.
      train_length, factor, attention_factor: as in LongRoPE.
    """
    base = checked_base(base)
    count_of("train_length", train_length)
    rope: dict[str, Any] = dict(
        head_dim=head_dim, base=base, axes=axes, rotary_dim=rotary_dim, layout=layout
    )
    pairs = RoPE(**rope).rotary_dim // 2
    if critical_pair is None:
        critical_pair = math.ceil(pairs * math.log(train_length / (2 * math.pi)) / math.log(base))
        critical_pair = min(max(critical_pair, 0), pairs - 1)
    count_of("critical_pair", critical_pair, 0, pairs - 1)
    tail = factor if tail_factors is None else tail_factors
    tail = _of_pairs("tail_factors", tail, pairs - critical_pair)
    for least, next_one in itertools.pairwise((factor, *tail)):
        check_range(least, tail_factors=next_one)
    head = tuple(tail[0] ** (i / critical_pair) for i in range(critical_pair))
    return LongRoPE(
        train_length=train_length,
        factor=factor,
        long_factor=head + tail,
        attention_factor=attention_factor,
        short_attention_factor=1.0,
        **rope,
    )


def _of_pairs(name: str, factors: Factors, pairs: int) -> tuple[float, ...]:
    """Returns a checked factor for each of ``pairs`` pairs, as a tuple, which jit can compare."""
    of_pairs = (factors,) * pairs if isinstance(factors, (int, float)) else tuple(factors)
    if len(of_pairs) != pairs or not all(0 < factor < math.inf for factor in of_pairs):
        raise ValueError(
            f"{name}={factors!r} must be {pairs} finite numbers above 0, one for each of its "
            "channel pairs, the fastest first, or one number for all of them"
        )
    return tuple(float(factor) for factor in of_pairs)


def _where(condition, tables, others):
    return tuple(
        jnp.where(condition, table, other) for table, other in zip(tables, others, strict=True)
    )
