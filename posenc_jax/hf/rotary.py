"""Builds RoPE from one section of a config: ``rope_parameters``, ``rope_scaling``, or none."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.rotary import axes
from posenc_jax.encodings.rotary.frequencies import Default, Frequencies
from posenc_jax.hf import models
from posenc_jax.hf.positions import position_kind
from posenc_jax.hf.types import kind_of, own_keywords
from posenc_jax.hf.values import ORIGINAL, agreed, flag, head_dim_of, is_number, whole
from posenc_jax.registry import make

_FRACTIONS = ("partial_rotary_factor", "rotary_pct", "rope_pct", "rotary_emb_fraction")
_WIDTHS = ("rotary_dim", "attn_rotary_emb")


@dataclasses.dataclass(frozen=True)
class Backwards(Frequencies):
    """Turns every pair as fast as RoPE does, in the opposite direction."""

    def __call__(self, channels, base, length):
        inv_freq, attention_factor = Default()(channels, base, length)
        return inv_freq * -1.0, attention_factor


def rotary(
    config: dict[str, Any], where: str, section: dict[str, Any], layout: str | None
) -> Encoding:
    """Returns the encoding of ``section``, which ``where`` names in errors."""
    model = config.get("model_type")
    kind = kind_of(where, section, model)
    rope: dict[str, Any] = dict(
        head_dim=head_dim_of(config),
        base=_base(config, where, section),
        layout=layout or _layout(config),
    )
    is_whole = kind == "proportional"
    fractions = _fractions(config, section)
    width = _rotary_dim(config, fractions, rope["head_dim"], is_whole)
    rope["rotary_dim"] = rope["head_dim"] if is_whole else width
    rope["axes"] = _axes(config, where, section, rope["rotary_dim"] // 2)
    name, own = own_keywords(config, where, section, kind, rope["rotary_dim"] // 2)
    if is_whole:
        own["fraction"] = _share(config, fractions)
    if config.get("dual_chunk_attention_config"):
        return _dual_chunk(config, where, kind, rope)
    if model in models.BACKWARDS:
        if kind != "default":
            raise ValueError(f"rope_type={kind!r} in {where} is not offered for {model!r}")
        own["frequencies"] = Backwards()
    return make(name, **rope, **own)


def _dual_chunk(config, where, kind, rope):
    """Returns the encoding of Qwen2.5-1M; transformers ignores the key and has plain RoPE."""
    section = config["dual_chunk_attention_config"]
    name = "dual_chunk_attention_config"
    if not isinstance(section, Mapping):
        raise ValueError(f"{name}={section!r} must be a dict")
    model = config.get("model_type")
    if model is not None and model not in models.DUAL_CHUNKS:
        raise ValueError(
            f"{name}={section!r}: the code of {model!r} is not known to read it; those known to "
            f"are {', '.join(sorted(models.DUAL_CHUNKS))}. If it does not, remove the key"
        )
    read = {"chunk_size": "chunk_size", "local_size": "local_window", ORIGINAL: "original_length"}
    others = {key: value for key, value in section.items() if key not in read}
    unknown = {key: value for key, value in others.items() if value not in (None, False)}
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)} in {name}: sparse attention is not offered; remove these for "
            "attention to all keys"
        )
    if kind != "default" or rope["axes"] is not None:
        raise ValueError(f"{where} of type {kind!r} is not offered together with {name}")
    own = {read[key]: whole(section, key) for key in read if section.get(key)}
    del rope["axes"]
    # Chunks have the defaults of SGLang and vLLM.
    own = {"chunk_size": 8192, "local_window": 1024} | own
    return make("dual_chunk", train_length=own["chunk_size"], **rope, **own)


def _base(config, where, section):
    bases = {f"rope_theta in {where}": section["rope_theta"]} if "rope_theta" in section else {}
    bases |= {key: config[key] for key in ("rope_theta", "rotary_emb_base") if key in config}
    if not bases:
        model = config.get("model_type")
        if where == "config" and model not in models.BASE_10000:
            raise ValueError(
                "config has none of the keys rope_parameters, rope_scaling, rope_theta, alibi, "
                "relative_attention_num_buckets: its positions are not understood"
            )
        if model is not None and model not in models.BASE_10000:
            raise ValueError(f"rope_theta is missing, and no default is known for {model!r}")
        return 10000.0
    for key, base in bases.items():
        if not is_number(base) or base <= 1:
            raise ValueError(f"{key} must be a number above 1, not {base!r}")
    return float(agreed(bases))


def _layout(config):
    """Returns the layout of the model's code, or the one that a key of its config gives."""
    model = config.get("model_type")
    known = models.LAYOUTS.get(model, "half")
    for key in ("rope_interleave", "rotary_emb_interleaved"):
        if key in config:
            known = "interleaved" if flag(config, key, default=False) else "half"
    if position_kind(config) == "rope_gptj" and known != "interleaved":
        if model in models.LAYOUTS:
            raise ValueError(
                f"position_embedding_type='rope_gptj' means pairs of neighbours, but the code of "
                f"{model!r} has halves"
            )
        return "interleaved"
    return known


def _fractions(config, section):
    """Returns the share of a head that turns, by each key that gives it."""
    fractions = {
        f"{key}={place[key]!r}": place[key]
        for place in (section, config)
        for key in _FRACTIONS
        if key in place
    }
    for key, fraction in fractions.items():
        if not is_number(fraction) or not 0 < fraction <= 1:
            raise ValueError(f"{key} must be a number in (0, 1]")
    return fractions


def _share(config, fractions):
    """Returns the share of pairs that turn, each at the frequency it has in a whole head."""
    widths = [key for key in _WIDTHS if key in config]
    if widths and not fractions:
        raise ValueError(
            f"{widths[0]}={config[widths[0]]!r} is not read with rope_type='proportional': its key "
            "is partial_rotary_factor, which is missing"
        )
    return agreed(fractions) if fractions else models.FRACTIONS.get(config.get("model_type"), 1.0)


def _rotary_dim(config, fractions, head_dim, is_whole):
    """Returns how many channels of a head turn."""
    if "qk_rope_head_dim" in config:
        _check_shares(config, fractions, head_dim)
        return head_dim
    widths = {key: int(head_dim * fraction) for key, fraction in fractions.items()}
    model = config.get("model_type")
    if not widths and "rotary_dim" in config and model in models.IGNORE_ROTARY_DIM:
        raise ValueError(
            f"rotary_dim={config['rotary_dim']!r}: the code of {model!r} reads only "
            "partial_rotary_factor, which is missing"
        )
    for key in _WIDTHS:
        if key in config:
            widths[key] = whole(config, key)
    if not widths and model in models.ROTARY_DIM_NEEDED:
        raise ValueError(f"rotary_dim is missing: in {model!r} a part of each head turns; add it")
    if not widths and model in models.FRACTIONS:
        widths["partial_rotary_factor"] = int(head_dim * models.FRACTIONS[model])
    width = agreed(widths) if widths else head_dim
    if not is_whole and widths and (width % 2 or not 2 <= width <= head_dim):
        raise ValueError(
            f"{' and '.join(widths)} must turn an even number of the head_dim={head_dim} channels, "
            f"not {width}"
        )
    return width


def _check_shares(config, fractions, turning):
    """Checks that no fraction contradicts ``qk_rope_head_dim`` in a head of two parts."""
    heads = {config["head_dim"]} if "head_dim" in config else set()
    if "qk_nope_head_dim" in config:
        heads.add(whole(config, "qk_nope_head_dim") + turning)
    for key, fraction in fractions.items():
        if fraction != 1 and not any(int(head * fraction) == turning for head in heads):
            raise ValueError(
                f"{key} contradicts qk_rope_head_dim={turning}: it must be the share of these "
                "channels in a whole head"
            )


def _axes(config, where, section, pairs):
    model = config.get("model_type")
    if model in models.ROW_AND_COLUMN:
        return axes.interleaved((pairs - pairs // 2, pairs // 2))
    counts = section.get("mrope_section", models.SECTIONS.get(model))
    is_interleaved = flag(section, "mrope_interleaved", where, default=False)
    if "mrope_section" not in section and (counts is None or sum(counts) != pairs):
        if is_interleaved:
            raise ValueError(f"mrope_interleaved in {where} needs mrope_section")
        return None
    is_list = isinstance(counts, (list, tuple)) and all(type(n) is int and n >= 0 for n in counts)
    if not is_list or sum(counts) != pairs:
        raise ValueError(
            f"mrope_section={counts!r} in {where} must be a list of numbers of channel pairs, "
            f"{pairs} in all"
        )
    if model in models.SECTIONS_NOT_OFFERED:
        raise ValueError(f"mrope_section={counts!r} in {where}: that of {model!r} is not offered")
    if model in models.TIME_LAST:
        return axes.temporal_last((*counts[2:], *counts[:2]))
    if is_interleaved or model in models.AXES_INTERLEAVED:
        return axes.interleaved(tuple(counts))
    return axes.chunked(tuple(counts))
