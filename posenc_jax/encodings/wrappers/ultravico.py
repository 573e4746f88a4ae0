r"""UltraViCo weakens attention to far tokens of a longer video.

https://arxiv.org/abs/2511.20123

$$ z_{mn} \gets \alpha\, z_{mn} \quad \text{where } z_{mn} > 0 \text{ and } |m - n| > w / 2 $$

w is the number of tokens in a training video. The rule follows the released kernel, which was read
but not run. The kernel also hides keys beyond the window from the first frame's queries, which is
left out here. Overrides ``score``.
"""

import jax.numpy as jnp

from posenc_jax.checks import check_range, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.pairs import Pairs


class UltraViCo(Wrapper):
    """Multiplies positive logits between far tokens by ``alpha``, under another scheme.

    Put it over the scheme of a trained model when videos are longer than in training. Distances are
    differences of ``index``, the order in which the patches of all frames are laid out, and not of
    positions.

    Args:
      over: the scheme beneath.
      window: number of tokens in a training video; tokens more than half of it apart are far. 32760
        for Wan, 21 latent frames of 1560 tokens.
      alpha: factor of positive logits between far tokens, 0.9 as released.
    """

    def __init__(self, over: Encoding | str, *, window: int, alpha: float = 0.9):
        window = count_of("window", window)
        check_range(0, 1, alpha=alpha)
        super().__init__(over)
        self.window = window
        self.alpha = alpha

    def score(self, logits_BHTS, pairs: Pairs):
        logits_BHTS = super().score(logits_BHTS, pairs)
        q_tokens, k_tokens = pairs.q_tokens, pairs.k_tokens
        is_all = k_tokens.index is None and q_tokens.count == k_tokens.count
        if q_tokens.index is None and not is_all:
            raise ValueError(
                f"{q_tokens.count} queries and {k_tokens.count} keys do not say in which order "
                "they were written, which UltraViCo must know: attend from here.part(start, count)"
            )
        q_order, k_order = q_tokens.order(), k_tokens.order()
        apart = jnp.abs(q_order[:, None, :, None] - k_order[:, None, None, :])
        is_far = (2 * apart > self.window) & (logits_BHTS > 0)
        return jnp.where(is_far, self.alpha * logits_BHTS, logits_BHTS)
