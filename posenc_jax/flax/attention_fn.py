"""Any encoding inside the attention layers that Flax brings along."""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention import attend
from posenc_jax.encoding import Encoding
from posenc_jax.tokens import Tokens


class AttentionFn(nnx.Module):
    """What :func:`attention_fn` returns: a function that also holds the encoding's parameters."""

    def __init__(self, encoding, tokens, options):
        self.encoding = encoding
        self.tokens = tokens
        self.options = options

    def __call__(
        self,
        query,
        key,
        value,
        bias=None,
        mask=None,
        *,
        dropout_rng=None,
        dropout_rate=0.0,
        broadcast_dropout=True,
        deterministic=False,
        dtype=None,
        precision=None,
        module=None,
        is_causal=False,
        force_fp32_for_softmax=False,
        qk_attn_weights_einsum=None,
        attn_weights_value_einsum=None,
    ):
        # Every argument is named, because Linen drops those that a signature does not have.
        del dropout_rng, broadcast_dropout, force_fp32_for_softmax
        _refuse("mask", mask, "say causal= and segment_ids= to attention_fn, and pass no mask")
        _refuse("bias", bias, "a bias comes from the encoding")
        _refuse("precision", precision, "use jax.default_matmul_precision around the model")
        _refuse("sow_weights", module, "attention weights are never formed as a whole")
        _refuse("qk_attn_weights_einsum", qk_attn_weights_einsum, "pass none")
        _refuse("attn_weights_value_einsum", attn_weights_value_einsum, "pass none")
        if dropout_rate > 0 and not deterministic:
            raise ValueError(
                f"dropout_rate={dropout_rate} of attention weights is not supported: set it to 0 "
                "and drop out the layer's output, or pass deterministic=True"
            )
        if is_causal and not self.options["causal"]:
            raise ValueError("is_causal=True contradicts attention_fn(..., causal=False)")
        if dtype is not None:
            query, key, value = (jnp.asarray(x, dtype) for x in (query, key, value))
        q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
        out_BTHC = attend(self.encoding, q, k, v, self.tokens(self.encoding), **self.options)
        return out_BTHC.reshape(*query.shape[:-1], out_BTHC.shape[-1])


def attention_fn(
    encoding: Encoding,
    positions,
    segment_ids=None,
    *,
    x=None,
    length=None,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
) -> AttentionFn:
    """``attend`` as the ``attention_fn`` of a Flax layer.

    For ``flax.nnx.MultiHeadAttention`` and ``flax.linen.MultiHeadDotProductAttention``, for
    self-attention over whole sequences. In NNX the encoding becomes a part of the layer and trains
    with it; in Linen pass ``encoding.nnx`` of a :class:`posenc_jax.linen.Encoding`, whose
    parameters Linen keeps.

    Args:
      encoding: any scheme; a per-layer one must be this layer's own.
      positions: as in :class:`Tokens`, for the layer's leading axes flattened into one batch.
      segment_ids: int ``[B, T]``; tokens of different segments do not see each other. Padding is a
        segment of its own.
      x: the layer's input ``[B, T, D]``, which data-dependent schemes need.
      length: as in ``Tokens.of``.
      causal: hide later tokens, whatever the layer's own ``is_causal`` is.
      window, scale: as in ``attend``.

    Raises (when the layer calls it):
      ValueError: a mask, a bias, dropout, a precision or ``sow_weights``: attention here has none
        of them, and ignoring one would be wrong.
    """

    # A function and not attributes, so that positions are no leaves of the layer to differentiate.
    def tokens(encoding):
        return layer_tokens(encoding, positions, segment_ids, x, length=length)

    return AttentionFn(
        encoding, tokens, nnx.static(dict(causal=causal, window=window, scale=scale))
    )


def layer_tokens(encoding, positions, segment_ids, x, **options) -> Tokens:
    """Returns what attention needs to know in one layer; ``options`` are those of ``Tokens.of``."""
    tokens = Tokens.of(encoding, positions, segment_ids, **options)
    if "read" not in encoding.hooks():
        return tokens
    if x is None:
        raise ValueError(
            f"{type(encoding).__name__} depends on the layer's input: pass x=, the [B, T, D] array "
            "that queries and keys are projected from"
        )
    return tokens.read(encoding, x.reshape(-1, *x.shape[-2:]))


def _refuse(name, value, instead):
    if value is not None:
        raise ValueError(f"{name} is not supported by posenc_jax.attention_fn: {instead}")
