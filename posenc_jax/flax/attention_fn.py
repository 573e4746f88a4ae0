"""Runs any encoding inside the attention layers of Flax."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention import Chunks, attend
from posenc_jax.attention.rule import Window
from posenc_jax.checks import check_encoding
from posenc_jax.encoding import Encoding, Here


class AttentionFn(nnx.Module):
    """Attends as Flax's layers call their ``attention_fn``, and holds the encoding."""

    def __init__(
        self,
        encoding: Encoding,
        at: Callable[[Encoding], Here],
        content: Callable[[], jax.Array | None],
        options: nnx.Static[dict[str, Any]],
    ):
        self.encoding = encoding
        self.at = at
        self.content = content
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
        # Linen passes only arguments that a signature names. ``force_fp32_for_softmax`` and
        # ``broadcast_dropout`` have no effect: logits are float32, and each weight drops by itself.
        absent = bias, module, qk_attn_weights_einsum, attn_weights_value_einsum
        if any(argument is not None for argument in absent):
            raise ValueError(
                "attention_fn takes no bias, which comes from the encoding, no sow_weights and no "
                "einsum of weights, which are never formed as a whole: leave them out"
            )
        if is_causal and not self.options["causal"]:
            raise ValueError(
                "is_causal=True contradicts attention_fn(..., causal=False): pass causal=True"
            )
        if dtype is not None:
            query, key, value = (jnp.asarray(x, dtype) for x in (query, key, value))
        q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
        options, products = self.options, contextlib.nullcontext()
        precision = jax.lax.Precision("default" if precision is None else precision)
        if precision != jax.lax.Precision.DEFAULT:
            # Other implementations have gradients that JAX traces outside of this context.
            options = options | dict(implementation="dense")
            products = jax.default_matmul_precision(precision.name.lower())
        with products:
            here = self.at(self.encoding)
            if mask is not None and q.shape[1] == 1 < k.shape[1]:
                out_BTHC = self._decode(q, k, v, here, mask, options)
            else:
                is_dropping = not deterministic and dropout_rate > 0
                dropout = (dropout_rate, dropout_rng) if is_dropping else None
                options = options | dict(mask=_flat(mask, query.shape[:-3]), dropout=dropout)
                out_BTHC = attend(here, q, k, v, x=self.content(), **options)
        return out_BTHC.reshape(*query.shape[:-1], out_BTHC.shape[-1])

    def _decode(self, q, k, v, here, mask, options):
        """Attends from one new token to the slots of Flax's own cache (``decode=True``).

        Only Flax's mask says how far the cache is filled. With any other mask the result is NaN.
        """
        if self.encoding.overrides("observe"):
            raise ValueError(
                f"{type(self.encoding).__name__} observes the inputs of all tokens, which Flax's "
                "cache does not keep: decode with posenc_jax.Transformer, or keep the inputs "
                "yourself and call posenc_jax.attend"
            )
        slots = mask.reshape(-1, mask.shape[-1]).astype(bool)
        start = jnp.maximum(slots[0].sum() - 1, 0)
        is_filled = (slots == (jnp.arange(slots.shape[1]) <= start)[None]).all()
        # The new token is the last one, so a causal mask hides the slots that are not filled.
        options = options | dict(causal=True)
        out_BTHC = attend(here.part(start, 1), q, here.keys(k, v), **options)
        return jnp.where(is_filled, out_BTHC, jnp.nan)


def attention_fn(
    encoding: Encoding,
    positions,
    segment_ids=None,
    *,
    x=None,
    length=None,
    key=None,
    causal: bool = True,
    window: Window | Chunks | None = None,
    scale: float | None = None,
) -> AttentionFn:
    """Returns ``attend`` as the ``attention_fn`` of a Flax layer.

    It is for ``flax.nnx.MultiHeadAttention`` and ``flax.linen.MultiHeadDotProductAttention``, for
    self-attention over whole sequences, and over their own cache with ``decode=True``. In NNX the
    encoding becomes a part of the layer and trains with it; in Linen pass ``encoding.nnx`` of a
    :class:`posenc_jax.linen.Encoding`, whose parameters Linen keeps.

    Args:
      encoding: any scheme that acts in attention; a per-layer one must be this layer's own.
      positions: as in ``encoding.at``, for the layer's leading axes flattened into one batch. With
        ``decode=True`` give the positions of all slots of the cache.
      segment_ids: int ``[B, T]``; tokens of different segments do not see each other. Padding is a
        segment of its own.
      x: the layer's input ``[B, T, D]``, which data-dependent schemes need.
      length: the length that a scheme adapts to, see ``encoding.at``. With ``decode=True`` it
        is by default the length of a full cache.
      key: fresh randomness for schemes that move positions, see ``encoding.at``. A training
        step that needs it makes the function anew, with its own key.
      causal: whether to hide later tokens, even if the layer has ``is_causal=False``; an encoder
        passes False. The layer's ``mask`` hides further tokens. With ``decode=True`` there are no
        later tokens, and empty slots are always hidden.
      window, scale: as in ``attend``.

    Raises:
      ValueError: the encoding adds to the token embeddings, which the layer does not have. Or, when
        the layer calls the result with a bias or ``sow_weights``: attention here has no such
        argument, and must not ignore it.

    A ``precision`` of the layer other than the default is that of all products, also of gradients.
    The ``dense`` implementation then runs, which computes all logits at once, as Flax does.

    Dropout of attention weights is the layer's own: its rate, its random stream and its
    ``deterministic``. Each weight is dropped by itself, also where the layer has
    ``broadcast_dropout=True``, which only spares random numbers.
    """
    check_encoding(encoding)
    if encoding.overrides("embed"):
        raise ValueError(
            f"{type(encoding).__name__} adds to the token embeddings, which attention_fn does not "
            "see: call x = encoding.at(positions).embed(x) once after the token "
            "embedding, and use attention_fn(posenc_jax.Encoding(), positions) in the layers"
        )

    if encoding.overrides("observe") and x is None:
        raise ValueError(
            f"{type(encoding).__name__} observes the layer's input: pass attention_fn(..., x=) "
            "and make the function anew for each input"
        )

    # A function, because positions in attributes would be leaves of the layer to differentiate.
    def at(encoding):
        return encoding.at(positions, segment_ids, length=length, key=key)

    def content():
        return None if x is None else x.reshape(-1, *x.shape[-2:])

    options = dict(causal=causal, window=window, scale=scale)
    return AttentionFn(encoding, at, content, nnx.static(options))


def _flat(mask, batch):
    """Returns a layer's mask, ``[..., H, T, S]`` of any type, as bool with one batch axis."""
    if mask is None:
        return None
    if len(batch) > 1 and mask.ndim > 3:
        mask = jnp.broadcast_to(mask, (*batch, *mask.shape[-3:]))
    return mask.astype(bool).reshape(-1, *mask.shape[-3:])
