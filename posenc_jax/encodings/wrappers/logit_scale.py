r"""Scales logits with the query's position, so that attention over more keys stays sharp.

$$ q_m \gets f(m)\, q_m $$

Each scheme wraps another scheme and multiplies queries by a factor f after that scheme's rotation.
So products of queries and keys grow, and a bias that the other scheme adds to the logits does not.
m is the position of the query; a negative position counts as 0. Overrides ``rotate``.
"""

import abc
import math

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.pairs import Side
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class LogitScale(Wrapper):
    """Multiplies the queries of another encoding by the ``factor`` of a subclass."""

    @abc.abstractmethod
    def factor(self, count, side: Side) -> jax.Array:
        """Returns the factors of queries, float32 ``[B, T, 1]`` or ``[B, T, H]``.

        ``count`` is ``m + 1``, int or float32 ``[B, T, 1]`` and 1 or more.
        """

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        x_BTHC = super().rotate(x_BTHC, tokens, side)
        if not side.is_query:
            return x_BTHC
        # Padding may have the largest int32 as its position.
        count = jnp.clip(one_axis(tokens.positions), 0, 2**31 - 2)[..., None] + 1
        scaled = x_BTHC.astype(jnp.float32) * self.factor(count, side)[..., None]
        return scaled.astype(x_BTHC.dtype)


class LogN(LogitScale):
    r"""Multiplies queries past the training length L by the logarithm of their position to base L.

    https://arxiv.org/abs/2202.12172

    $$ f(m) = \max\Big(1,\ \frac{\ln(m + 1)}{\ln L}\Big) $$

    Args:
      train_length: L, 2 or more.
      over: the encoding beneath, RoPE where it was published.
    """

    def __init__(self, *, train_length: int, over: Encoding | str = "rope"):
        count_of("train_length", train_length, minimum=2)  # its logarithm divides
        super().__init__(over)
        self.train_length = train_length

    def factor(self, count, side):
        return jnp.maximum(1.0, jnp.log(count.astype(jnp.float32)) / math.log(self.train_length))


class SSMax(LogitScale):
    r"""Multiplies queries by a trained number times the logarithm of the number of visible keys.

    https://arxiv.org/abs/2501.19399

    $$ f_h(m) = s_h \ln(m + 1) $$

    The number of visible keys is taken as ``m + 1``, whatever a window hides. The first token of a
    sequence gets logits of 0, which changes nothing because it sees one key only. If ``over`` is
    given by name, each layer has its own copy of its parameters, also where layers usually share
    them; if it is an encoding already built, all layers share it.

    Args:
      train_length: L, 2 or more. The trained number starts at ``1 / ln L`` in every head and
        layer, so that the last token of a training sequence starts as in softmax.
      over: the encoding beneath, RoPE in the paper.
    """

    per_layer = True

    def __init__(self, *, num_heads: int, train_length: int, over: Encoding | str = "rope"):
        count_of("train_length", train_length, minimum=2)  # its logarithm divides
        super().__init__(over)
        self.s = nnx.Param(jnp.full((num_heads,), 1 / math.log(train_length), jnp.float32))

    def factor(self, count, side):
        return side.of_heads(self.s[...])[None, None] * jnp.log(count.astype(jnp.float32))


class LogScale(LogitScale):
    r"""Multiplies queries by a trained linear function of the logarithm of their position.

    Mistral Large 4 (transformers ``mistral_large4``; no paper)

    $$ f_h(m) = s_h \ln(m + 1) + b_h $$

    It is SSMax with a second number, and starts as a factor of 1: s is 0, b is 1. Mistral Large 4
    has it in every layer, over LeRoPE in three of four and over NoPE in the fourth. There each
    layer has its own s and b, but all share LeRoPE's alpha: ``over`` is a LeRoPE already built.

    Args:
      over: the encoding beneath.
    """

    per_layer = True

    def __init__(self, *, num_heads: int, over: Encoding | str = "rope"):
        super().__init__(over)
        self.s = nnx.Param(jnp.zeros(num_heads))
        self.b = nnx.Param(jnp.ones(num_heads))

    def factor(self, count, side):
        s_H, b_H = (side.of_heads(p[...])[None, None] for p in (self.s, self.b))
        return s_H * jnp.log(count.astype(jnp.float32)) + b_H


class Llama4Temperature(LogitScale):
    r"""Multiplies queries by a factor that grows once every ``floor_scale`` positions.

    Llama 4 (transformers ``llama4``; no paper)

    $$ f(m) = 1 + a \ln\Big(1 + \Big\lfloor \frac{m + 1}{F} \Big\rfloor\Big) $$

    Args:
      over: the encoding beneath: NoPE in Llama 4, whose RoPE layers have no temperature.
      floor_scale: F, 8192 in Llama 4.
      attn_scale: a, 0.1 in Llama 4.
    """

    def __init__(
        self, *, over: Encoding | str = "nope", floor_scale: int = 8192, attn_scale: float = 0.1
    ):
        floor_scale = count_of("floor_scale", floor_scale)
        super().__init__(over)
        self.floor_scale = floor_scale
        self.attn_scale = attn_scale

    def factor(self, count, side):
        steps = (count // self.floor_scale).astype(jnp.float32)
        return 1 + self.attn_scale * jnp.log1p(steps)


class MinistralScale(Llama4Temperature):
    r"""Multiplies queries by a factor that grows once every ``train_length`` positions.

    Ministral 3 and Mistral 4 (transformers ``ministral3``, ``mistral4``; no paper)

    $$ f(m) = 1 + a \ln\Big(1 + \Big\lfloor \frac{m}{F} \Big\rfloor\Big) $$

    Positions count from 0, where Llama 4 counts them from 1.

    Args:
      train_length: F, the training length before the model was extended.
      over: the encoding beneath: RoPE, extended by YaRN, in every layer of the released models.
      attn_scale: a; their configs call it ``llama_4_scaling_beta`` and have 0.1.
    """

    def __init__(
        self, *, train_length: int, over: Encoding | str = "rope", attn_scale: float = 0.1
    ):
        super().__init__(over=over, floor_scale=train_length, attn_scale=attn_scale)

    def factor(self, count, side):
        return super().factor(count - 1, side)


class BeamScale(LogitScale):
    r"""Multiplies queries by a power of a linear function of their position.

    Beam (transformers ``beam``; no paper)

    $$ f(m) = \Big(1 + \frac{m + 1}{F}\Big)^p $$

    Args:
      over: the encoding beneath: NoPE in Beam, whose RoPE layers have a window and no scale.
      scale: F, the number of positions in which the base of the power grows by 1; 2048 in Beam.
      exponent: p; 0.1 in Beam.
    """

    def __init__(
        self, *, over: Encoding | str = "nope", scale: float = 2048.0, exponent: float = 0.1
    ):
        super().__init__(over)
        self.scale = scale
        self.exponent = exponent

    def factor(self, count, side):
        return (1 + count.astype(jnp.float32) / self.scale) ** self.exponent
