r"""FoPE, Fourier position embedding, mixes the frequencies of RoPE.

https://arxiv.org/abs/2412.17739

$$
\cos_{he}(p) = \sum_f A_{hfe} \cos(p\, \theta_f), \quad
\sin_{he}(p) = \sum_f B_{hfe} \sin(p\, \theta_f)
$$

RoPE rotates each pair at one frequency. FoPE rotates pair e of head h by a mixture of all
frequencies, because the layers around attention mix them in any case; A and B are random, near the
identity. Frequencies that do not turn once within the training length are dropped, and the pairs
that have no mixture do not rotate. Overrides ``prepare`` and ``rotate``.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import check_choice, count_of
from posenc_jax.encodings.lib.angles import cos_sin
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.frequencies.base import geometric, turns_in
from posenc_jax.pairs import Side
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class FoPE(Rotary):
    """Rotates each pair by a random mixture of RoPE's frequencies.

    A mixture of frequencies is no rotation, so logits depend a little on where a sequence starts.
    Each layer and each kv head has its own matrices A and B, and a query uses the matrices of the
    kv head that it attends to.

    A and B are random constants by default, as published: they are arrays of the module and saved
    with it, but their type is ``nnx.Variable`` and not ``nnx.Param``, and no gradient reaches them.
    An optimizer must not apply weight decay to them.

    Args:
      train_length: L; frequencies below ``2 pi / L`` are dropped.
      base: see ``RoPE``; a number, because it decides how many frequencies are kept.
      rotary_dim: see ``RoPE``; at least 4. At most ``rotary_dim / 4`` pairs rotate.
      gain: how far A and B are from the identity, or from every n-th column of it where there are
        more frequencies than pairs; 0.3 as published. Their noise has a standard deviation of
        ``gain sqrt(2 / (pairs (frequencies + heads)))``, as the Xavier initialiser of the released
        code has for a stack of matrices.
      padding: cosine and sine of the pairs that do not rotate. "zero_frequency" is (1, 0), as in
        the paper. "ones" is (1, 1), as in the released code, which rotates queries and keys alike
        by 45 degrees and doubles the part of the logits that comes from these pairs.
      learned: whether A and B are trained.
      rngs: random numbers for A and B.
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_kv_heads: int,
        head_dim: int,
        train_length: int,
        rngs: nnx.Rngs,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        layout: str = "half",
        gain: float = 0.3,
        padding: str = "zero_frequency",
        learned: bool = False,
    ):
        super().__init__(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        check_choice(("zero_frequency", "ones"), padding=padding)
        count_of("rotary_dim", self.rotary_dim, 4)
        count_of("train_length", train_length, 7)  # No frequency turns once in fewer tokens.
        self.train_length = train_length
        self.padding = padding
        self.learned = learned
        count = len(self._frequencies())
        pairs = min(count, self.rotary_dim // 4)
        step = math.ceil(count / pairs)
        identity = (np.arange(count)[:, None] == step * np.arange(pairs)[None]).astype(np.float32)
        std = gain * math.sqrt(2 / (pairs * (count + num_kv_heads)))
        variable = nnx.Param if learned else nnx.Variable

        def near_identity():
            noise = jax.random.normal(rngs.params(), (num_kv_heads, count, pairs))
            return variable(identity[None] + std * noise)

        self.cos_coef = near_identity()
        self.sin_coef = near_identity()

    def _frequencies(self) -> np.ndarray:
        inv_freq = geometric(self.rotary_dim, self.base)
        return inv_freq[turns_in(self.train_length, inv_freq) >= 1]

    def prepare(self, tokens: Tokens, length):
        """Makes float32 cosines and sines, each ``[B, T, frequencies]``."""
        positions_BT1 = one_axis(tokens.positions)[..., None]
        return cos_sin(positions_BT1, self._frequencies())

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        cos, sin = tokens.made
        mixed_cos = self._mixed(cos, self.cos_coef[...], side, 1.0)
        mixed_sin = self._mixed(sin, self.sin_coef[...], side, float(self.padding == "ones"))
        return self.rotate_by(x_BTHC, mixed_cos, mixed_sin)

    def _mixed(self, table_BTF, coef_KFE, side, padding):
        if not self.learned:
            coef_KFE = jax.lax.stop_gradient(coef_KFE)
        coef_HFE = side.of_kv_heads(coef_KFE.astype(jnp.float32))
        # Full precision: an accelerator's default would round cosines to bfloat16.
        mixed = jnp.einsum("btf,hfe->bthe", table_BTF, coef_HFE, precision="highest")
        still = self.rotary_dim // 2 - mixed.shape[-1]
        return jnp.pad(mixed, ((0, 0),) * 3 + ((0, still),), constant_values=padding)
