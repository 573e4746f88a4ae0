"""FoPE, Fourier position embedding.

https://arxiv.org/abs/2412.17739

RoPE turns every pair by one frequency. Here each pair turns by a sum of all of them, which is what
the layers around attention make of a single frequency anyway: pair e of head h has
``cos = sum_f A[h, f, e] cos(p w_f)`` and ``sin = sum_f B[h, f, e] sin(p w_f)``, with random A and B
near the identity. Frequencies that do not turn once within the training length are left out, and
the pairs that remain do not turn. Overrides ``prepare`` and ``rotate``.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.rope import RoPE
from posenc_jax.gather import for_heads
from posenc_jax.rotary.angles import cos_sin
from posenc_jax.rotary.frequencies import geometric, turns_in
from posenc_jax.rotary.positions import one_axis


class FoPE(RoPE):
    """RoPE with mixed frequencies.

    A mixture of frequencies is no rotation, so logits depend a little on where a sequence starts.
    The matrices are each layer's and each kv head's own, and queries use those of their kv head.

    By default they are random constants, as published: they are arrays of the module, saved with
    it, but of type ``nnx.Variable`` rather than ``nnx.Param``, and no gradient reaches them.
    An optimizer must not decay what has no gradient.

    Args:
      num_kv_heads: key and value heads of one layer.
      head_dim: channels of one head.
      train_length: L; frequencies below ``2 pi / L`` are dropped.
      base: see ``RoPE``.
      rotary_dim: see ``RoPE``; at least 4. At most ``rotary_dim / 4`` pairs turn.
      layout: see ``RoPE``.
      gain: how far A and B are from the identity (from every n-th frequency, where there are more
        frequencies than pairs); 0.3 as published. Their noise has the standard deviation
        ``gain sqrt(2 / (pairs (frequencies + heads)))``, which is what the released code's Xavier
        initialiser makes of a stack of matrices.
      padding: what the other pairs get. "zero_frequency" is the paper's (cos, sin) = (1, 0).
        "ones" is the released code's (1, 1), which turns queries and keys alike by 45 degrees and
        doubles these pairs' part of the logits.
      learned: train A and B.
      rngs: the random numbers of A and B.
    """

    per_layer = True
    shift_invariant = False

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
        if padding not in ("zero_frequency", "ones"):
            raise ValueError(f"padding={padding!r} must be 'zero_frequency' or 'ones'")
        if not 0 <= gain < math.inf:
            raise ValueError(f"gain={gain!r} must be a number, 0 or more")
        if self.rotary_dim < 4:
            raise ValueError(f"FoPE needs at least 4 rotary channels, not {self.rotary_dim}")
        self.train_length = train_length
        self.padding = padding
        self.learned = learned
        count = len(self._kept())
        if not count:
            raise ValueError(
                f"train_length={train_length} leaves no frequency: none turns once within it; "
                "FoPE needs 7 tokens or more"
            )
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

    def _kept(self) -> np.ndarray:
        inv_freq = geometric(self.rotary_dim, self.base)
        return inv_freq[turns_in(self.train_length, inv_freq) >= 1]

    def prepare(self, positions, length):
        """float32 cos and sin, each ``[B, T, frequencies]``."""
        return cos_sin(one_axis(positions)[..., None], self._kept())

    def rotate(self, x_BTHC, prepared, *, is_query):
        cos, sin = prepared
        num_heads = x_BTHC.shape[2]
        mixed_cos = self._mix(cos, self.cos_coef[...], num_heads, 1.0)
        mixed_sin = self._mix(sin, self.sin_coef[...], num_heads, float(self.padding == "ones"))
        return super().rotate(x_BTHC, (mixed_cos, mixed_sin), is_query=is_query)

    def _mix(self, table_BTF, coef_KFE, num_heads, padding):
        if not self.learned:
            coef_KFE = jax.lax.stop_gradient(coef_KFE)
        coef_HFE = for_heads(coef_KFE.astype(jnp.float32), num_heads)
        # Full precision: an accelerator's default would round cosines to bfloat16.
        mixed = jnp.einsum(
            "btf,hfe->bthe", table_BTF, coef_HFE, precision=jax.lax.Precision.HIGHEST
        )
        still = self.rotary_dim // 2 - mixed.shape[-1]
        return jnp.pad(mixed, ((0, 0),) * 3 + ((0, still),), constant_values=padding)
