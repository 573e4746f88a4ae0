r"""Puts a soft cap on the logits.

https://arxiv.org/abs/2408.00118 (Gemma 2)

$$ z_{mn} \gets c\, \tanh(z_{mn} / c) $$

z are the logits of another scheme, and c is the cap. Overrides ``score``.
"""

import jax.numpy as jnp

from posenc_jax.checks import check_positive
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.pairs import Pairs


class SoftCap(Wrapper):
    """Keeps the logits of another scheme between ``-cap`` and ``cap``.

    Args:
      over: the scheme beneath; RoPE in Gemma 2.
      cap: the bound of the logits; 50 in Gemma 2.
    """

    def __init__(self, *, over: Encoding | str = "rope", cap: float = 50.0):
        check_positive(cap=cap)
        super().__init__(over)
        self.cap = cap
        self.soft_cap = None if self.inner.overrides("score") else cap

    def score(self, logits_BHTS, pairs: Pairs):
        return self.cap * jnp.tanh(super().score(logits_BHTS, pairs) / self.cap)
