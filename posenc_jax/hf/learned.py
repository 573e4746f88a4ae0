"""Builds Mistral Large 4's learned rates and scales, which are in its weights, not in its config.

All layers with rotation share the learned rates (LeRoPE), and each layer, with or without rotation,
has a learned scale of its queries (LogScale).
"""

from typing import Any

from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.rotary.lerope import LeRoPE
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.encodings.wrappers.logit_scale import LogScale
from posenc_jax.hf import models
from posenc_jax.hf.values import HEADS, whole
from posenc_jax.registry import make


def with_parameters(config: dict[str, Any], encoding: Encoding, rngs: nnx.Rngs | None) -> Encoding:
    """Returns the encoding of a layer of Mistral Large 4; that of other models is left as it is.

    Args:
      config: the config of the layer.
      encoding: what the config says: RoPE for the ``qk_rope_head_dim`` channels, or NoPE.
      rngs: as in ``from_hf``.
    """
    model = config.get("model_type")
    if model not in models.LEARNED:
        return encoding
    if rngs is None:
        raise ValueError(
            f"model_type={model!r} needs rngs=nnx.Rngs(0): the rates at which its pairs turn, and "
            "the scale of its queries, are parameters; fill them from the checkpoint"
        )
    over = encoding
    if isinstance(encoding, RoPE):
        if type(encoding) is not RoPE or encoding.axes is not None:
            axes = "" if encoding.axes is None else " of several axes"
            raise ValueError(
                f"the rotary section of {model!r} gives {type(encoding).__name__}{axes}, but rates "
                "are learned over RoPE of one axis alone"
            )
        over = LeRoPE(
            head_dim=whole(config, "qk_nope_head_dim", minimum=0) + encoding.head_dim,
            base=encoding.base,
            frequencies=encoding.frequencies,
            rotary_dim=encoding.rotary_dim,
            layout=encoding.layout,
        )
    return make("log_scale", num_heads=whole(config, *HEADS), over=over, rngs=rngs)


def scale_of_each_layer(scaled: LogScale, num_layers: int, rngs: nnx.Rngs) -> Encoding:
    """Returns ``scaled`` with a scale for each of several layers, over what they share."""
    num_heads = scaled.s.shape[0]
    return make(
        "log_scale", num_heads=num_heads, over=scaled.inner, num_layers=num_layers, rngs=rngs
    )
