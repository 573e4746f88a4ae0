"""Writes an encoding as transformers reads it: ``rope_parameters`` and the keys beside them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from posenc_jax.checks import check_choice
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.rotary.frequencies.base import Default, geometric
from posenc_jax.encodings.rotary.frequencies.by_parts import NTKByPartsFrequencies
from posenc_jax.encodings.rotary.frequencies.ntk import (
    DynamicNTKFrequencies,
    NTKCriticalFrequencies,
    NTKFrequencies,
)
from posenc_jax.encodings.rotary.frequencies.pi import PositionInterpolationFrequencies
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies
from posenc_jax.encodings.rotary.longrope import LongRoPE
from posenc_jax.encodings.rotary.rope import rotates_by_rule
from posenc_jax.hf.config import part_of_text
from posenc_jax.hf.pattern import same
from posenc_jax.hf.values import ORIGINAL, whole
from posenc_jax.model.transformer import Transformer
from posenc_jax.pretrained import decoder

# Phi-3 has only "longrope" and "default"; it reads "yarn" as if it were "longrope".
_ONLY_LONGROPE = ("phi3",)


def _section(encoding, config) -> dict[str, Any]:
    """Returns ``rope_parameters`` with which transformers rotates as ``encoding`` does.

    A rule with fixed frequencies that has no type in transformers becomes "longrope", with the same
    factors at every length.
    """
    if reason := _obstacle(encoding, config):
        raise ValueError(
            f"{type(encoding).__name__} cannot be expressed in transformers' rope_parameters: "
            f"{reason}"
        )
    section = {"rope_theta": encoding.base}
    if encoding.rotary_dim != encoding.head_dim:
        section["partial_rotary_factor"] = fraction(encoding.rotary_dim, encoding.head_dim)
    if isinstance(encoding, LongRoPE):
        return section | _longrope(encoding)
    return section | (_named(encoding, config) or _by_factors(encoding, config))


def _obstacle(encoding, config) -> str | None:
    """Returns why transformers cannot express an encoding, or None."""
    if not (rotates_by_rule(encoding) or isinstance(encoding, LongRoPE)):
        return (
            "they have RoPE, PI, NTK, dynamic NTK, NTK-by-parts, YaRN, LongRoPE and Llama 3's rule"
        )
    if encoding.axes is not None:
        return "axes= must be None, for text"
    if encoding.layout != "half":
        return (
            f"layout={encoding.layout!r} must be 'half': models written for transformers pair "
            "channel i with channel i + rotary_dim / 2"
        )
    is_part = encoding.rotary_dim != encoding.head_dim
    if is_part and config.get("model_type") in set(decoder.DECODERS) - {"phi3"}:
        return (
            f"rotary_dim={encoding.rotary_dim} must be {encoding.head_dim}, because the code of "
            f"{config['model_type']!r} rotates whole heads"
        )
    if isinstance(encoding, LongRoPE):
        if encoding.start_tokens:
            return f"start_tokens={encoding.start_tokens} must be 0"
        short, long = encoding.short_attention_factor, encoding.attention_factor
        equal = f"short_attention_factor={short} and attention_factor={long} must be equal"
        return None if short == long else equal
    if _named(encoding, config):
        return None
    if encoding.frequencies.adapts(encoding.rotary_dim, encoding.base):
        return "the only rule that adapts to the length is dynamic NTK, and Phi-3 does not have it"
    inv_freq: Any = encoding.frequencies(encoding.rotary_dim, encoding.base, 1)[0]
    if np.all(inv_freq > 0):
        return None
    return f"pair {int(np.argmin(inv_freq > 0))} stands still, and a factor of longrope is finite"


def fraction(part: int, whole: int) -> float:
    """Returns the fraction of ``whole`` that gives ``part`` when a reader rounds down."""
    fraction = part / whole
    return fraction if int(whole * fraction) == part else math.nextafter(fraction, 1)


def extended(
    config: Mapping[str, Any], model: Transformer, max_length: int | None = None
) -> dict[str, Any]:
    """Returns ``config`` with the encoding that ``model`` now has, as ``config.json`` holds it.

    The result has the spellings of both transformers 4 and 5. Transformers 4 cannot read an OLMo 2
    or a Phi-3 that is extended. If the model has the encodings of ``config``, only the spelling
    changes.

    Args:
      config: what the ``config.json`` of the model held before.
      model: the model, under one encoding in all layers that rotate.
      max_length: length of the longest sequence, ``max_position_embeddings``. Default: the training
        length times the factor of the encoding; dynamic NTK follows the length and has no factor.

    Raises:
      ValueError: transformers cannot express the encodings, or ``config`` is of a model of several
        parts.
    """
    if part := part_of_text(config):
        raise ValueError(
            f"{part} has the text model: pass config[{part!r}], and put the result there"
        )
    layers = decoder.layers(config)
    before = [layers.at(number) for number in range(model.num_layers)]
    now = [model.layer_at(number) for number in range(model.num_layers)]
    _check_layers(before, now)
    rotating = [encoding for encoding, _ in now if _rotates(encoding)]
    longest = {} if max_length is None else {"max_position_embeddings": max_length}
    if all(same(was, encoding) for (was, _), (encoding, _) in zip(before, now, strict=True)):
        section = config.get("rope_parameters") or {}
        spelled = _spelled(section) if "rope_theta" in section else {}
        return dict(config) | spelled | longest
    encoding = rotating[0]
    section = _section(encoding, config)
    length = _longest(encoding, config)
    if section["rope_type"] == "dynamic":  # Its longest length is that of training.
        check_choice((None, length), max_length=max_length)
    originals = {ORIGINAL: section[ORIGINAL]} if ORIGINAL in section else {}
    of_scheme = {"max_position_embeddings": length} | originals
    return dict(config) | _spelled(section) | of_scheme | longest


def _check_layers(before, now):
    """Checks that ``rope_parameters`` of a whole model can express its layers."""
    for number, ((was, old_window), (encoding, window)) in enumerate(zip(before, now, strict=True)):
        still = not _rotates(was) and not _rotates(encoding) and same(was, encoding)
        if old_window != window or not (still or (_rotates(was) and _rotates(encoding))):
            raise ValueError(
                f"layer {number} of the model has {_said(encoding, window)}, and of the config "
                f"{_said(was, old_window)}: only the rotation can be changed for transformers"
            )
    rotating = [encoding for encoding, _ in now if _rotates(encoding)]
    if not all(same(encoding, rotating[0]) for encoding in rotating):
        raise ValueError("all layers with rotation must share one encoding to be written")


def _spelled(section):
    """Returns a section under the names that transformers 4 and 5 have for it.

    Without ``rope_theta`` outside the section transformers 4 would silently use its own base.
    """
    plain = section.get("rope_type", "default") == "default"
    return {
        "rope_parameters": section,
        "rope_scaling": None if plain else section,
        "rope_theta": section["rope_theta"],
    }


def _rotates(encoding):
    return encoding.overrides("rotate")


def _said(encoding, window):
    name = "no encoding" if type(encoding) is Encoding else type(encoding).__name__
    return f"{name}, with {'no window' if window is None else f'a window of {window}'}"


def _longest(encoding, config) -> int:
    if isinstance(encoding, LongRoPE):
        return round(encoding.factor * encoding.train_length)
    length = _train_length(encoding.frequencies, config)
    # The code of transformers starts to adapt past this length.
    adapts = encoding.frequencies.adapts(encoding.rotary_dim, encoding.base)
    return length if adapts else round(_of_rule(encoding.frequencies, "factor", 1) * length)


def _train_length(rule, config) -> int:
    length = _of_rule(rule, "train_length", None)
    return whole(config, "max_position_embeddings") if length is None else length


def _of_rule(rule, name, default):
    """Returns an attribute of a rule, or of the rule that it wraps."""
    inner = getattr(rule, "frequencies", None)
    return getattr(rule, name, getattr(inner, name, default))


def _named(encoding, config) -> dict[str, Any] | None:
    """Returns the type and the keys of the rule, or None if the model's code has no type for it."""
    named = _of_type(encoding)
    is_read = config.get("model_type") not in _ONLY_LONGROPE
    return named if named and (is_read or named["rope_type"] == "default") else None


def _of_type(encoding) -> dict[str, Any] | None:
    rule, channels, base = encoding.frequencies, encoding.rotary_dim, encoding.base
    match rule:
        case Default():
            return {"rope_type": "default"}
        case PositionInterpolationFrequencies():
            return {"rope_type": "linear", "factor": float(rule.factor)}
        case NTKFrequencies():
            larger = base * rule.factor ** (channels / (channels - 2))
            return {"rope_type": "default", "rope_theta": larger}
        case NTKCriticalFrequencies():
            turns = math.log(rule.train_length / (2 * math.pi))
            larger = base ** (1 + math.log(rule.factor) / turns)
            return {"rope_type": "default", "rope_theta": larger}
        case DynamicNTKFrequencies():
            return {"rope_type": "dynamic", "factor": float(rule.factor)}
        case YaRNFrequencies(ramp="index"):
            _, attention_factor = rule(channels, base, rule.train_length)
            return {
                "rope_type": "yarn",
                **_stretch(rule),
                "attention_factor": float(attention_factor),
                "beta_fast": float(rule.beta_fast),
                "beta_slow": float(rule.beta_slow),
                "truncate": rule.truncate,
            }
        case NTKByPartsFrequencies(alpha=low, beta=high):
            bounds = {"low_freq_factor": float(low), "high_freq_factor": float(high)}
            return {"rope_type": "llama3", **_stretch(rule), **bounds} if low < high else None
    return None


def _stretch(rule):
    return {"factor": float(rule.factor), ORIGINAL: rule.train_length}


def _longrope(encoding: LongRoPE) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": list(encoding.short_factor),
        "long_factor": list(encoding.long_factor),
        "attention_factor": float(encoding.attention_factor),
        "factor": float(encoding.factor),
        ORIGINAL: encoding.train_length,
    }


def _by_factors(encoding, config) -> dict[str, Any]:
    """Returns fixed frequencies as factors of longrope, the same for short and long sequences."""
    rule, channels = encoding.frequencies, encoding.rotary_dim
    inv_freq, attention_factor = rule(channels, encoding.base, 1)
    factors = (geometric(channels, encoding.base) / inv_freq).tolist()
    return {
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": float(attention_factor),
        "factor": float(_of_rule(rule, "factor", 1)),
        ORIGINAL: _train_length(rule, config),
    }
