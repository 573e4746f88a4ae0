"""Reads the encoding of a published model from its Hugging Face ``config.json``.

The spellings of transformers 4 and 5 are read: ``rope_scaling`` with ``rope_theta`` beside it, and
``rope_parameters`` with ``rope_theta`` in it, flat or with a section for each kind of layer. A key
that is not understood is an error, because the encoding without it may be wrong.
"""

import os
from collections.abc import Mapping
from typing import Any

from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.hf import bias
from posenc_jax.hf.config import has_no_positions, read
from posenc_jax.hf.families import family_of
from posenc_jax.hf.layers import asked, select
from posenc_jax.hf.rotary import rotary
from posenc_jax.hf.values import Config
from posenc_jax.registry import make


def from_hf(
    config: Mapping[str, Any] | str | os.PathLike[str] | Any,
    *,
    layer_type: str | None = None,
    layer: int | None = None,
    layout: str | None = None,
    rngs: nnx.Rngs | None = None,
    **keys: Any,
) -> Encoding:
    """Returns the encoding in ``config``: RoPE of any type, ALiBi, T5's bias, a table or NoPE.

    Args:
      config: what ``config.json`` holds, or only its ``rope_parameters`` or ``rope_scaling``; then
        the sizes that it needs come as ``keys``. It may also be the path of the file or of its
        folder, or a config object of transformers.
      layer_type: the kind of layer that is meant, where kinds differ: "full_attention" or
        "sliding_attention" of Gemma 3, "encoder" or "decoder" of T5.
      layer: the number of the layer that is meant, counted from 0, for models in which layers of
        one kind differ (SmolLM3, Muse Spark). It can replace ``layer_type`` where ``config`` lists
        the kinds of all layers.
      layout: the channels that form a pair, as in ``RoPE``. Default: as the code of the config's
        ``model_type`` has it; a type that ``posenc_jax.hf.families`` does not list needs it. A
        section without ``model_type`` has "half", as ``make`` does.
      rngs: initial values, for T5, Mistral Large 4 and tables of positions (GPT-2, BERT) only. The
        checkpoint then replaces ``table``, or ``s``, ``b`` and ``inner.alpha`` of Mistral Large 4;
        ``posenc_jax.pretrained.load_encoding`` does it for tables of positions.
      **keys: keys of the config to add or to replace, ``head_dim=64`` for instance; None removes a
        key. Keys of the rotary section (``factor``) must be changed in that section instead. A
        section alone, without ``rope_theta``, has a base of 10000.

    ``mrope_section`` gives the axes of ``mrope``, ``i_mrope`` or ``videorope``, as the model has
    them. A layer without positions is NoPE, with its temperature where the model has one.
    ``layers_from_hf`` returns all layers, with their windows. The caller must add a soft cap
    (``make("soft_cap", over=encoding)``), pass the softmax scale to ``attend`` (T5 has 1.0, and
    DeepSeek's grows with ``mscale``), and split DeepSeek's heads: the encoding is for the
    ``qk_rope_head_dim`` channels. In Mistral Large 4 the encoding is for whole heads, whose last
    channels rotate, because its scale multiplies whole queries. The ALiBi of Falcon lacks the
    rounding to bfloat16 that transformers applies there.

    Raises:
      ValueError: the model is not known or not offered, or a key is missing, unknown, malformed or
        contradicts another; the message names it.
    """
    config = read(config, keys, layout)
    return encoding_of(config, layer_type=layer_type, layer=layer, layout=layout, rngs=rngs)


def encoding_of(
    config: Config,
    *,
    layer_type: str | None = None,
    layer: int | None = None,
    layout: str | None = None,
    rngs: nnx.Rngs | None = None,
) -> Encoding:
    """Returns the encoding of a layer in a config that ``read`` has put into common words."""
    if bias.has_t5(config):
        _check_left_out("T5's bias", layout=layout, layer=layer)
        return bias.t5(config, layer_type, rngs)
    if (encoding := bias.of_all_layers(config, rngs)) is not None:
        _check_left_out(type(encoding).__name__, layout=layout, layer_type=layer_type)
        return encoding
    if has_no_positions(config):
        asked(config, layer_type, layer)
        return make("nope")
    family, section = family_of(config), select(config, layer_type, layer)
    encoding = family.still(config) if section is None else rotary(section, layout)
    return family.around(config, encoding, rngs) if family.around else encoding


def _check_left_out(scheme, **arguments):
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} must be left out: {scheme} has none")
