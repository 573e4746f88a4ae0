"""Builds RoPE from one section of a config: ``rope_parameters``, ``rope_scaling``, or none."""

from typing import Any

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib import axes
from posenc_jax.encodings.wrappers.logit_scale import MinistralScale
from posenc_jax.hf.config import position_kind
from posenc_jax.hf.families import FAMILIES, family_of, reading
from posenc_jax.hf.sections import TYPES, Section, keywords, kind_of, train_length
from posenc_jax.hf.values import (
    HEADS,
    ORIGINAL,
    WIDTH,
    Config,
    agreed,
    entries,
    flag,
    is_number,
    is_whole,
    mapping,
    number,
    whole,
)
from posenc_jax.registry import make

_FRACTIONS = ("partial_rotary_factor", "rotary_pct", "rope_pct", "rotary_emb_fraction")
_WIDTHS = ("rotary_dim", "attn_rotary_emb")


def rotary(section: Section, layout: str | None) -> Encoding:
    """Returns the encoding of a layer with RoPE, with the scale of its queries if it has one."""
    config, family = section.config, family_of(section.config)
    _check(
        not family.needs_section or bool(section.keys),
        "the rotary section (rope_parameters or rope_scaling) is missing, and the code of "
        f"{config.get('model_type')!r} has one of its own there: give it, also for plain RoPE, "
        '{"rope_type": "default", "rope_theta": ...}',
    )
    kind = kind_of(section, "alpha" in family.reads)
    width = head_dim_of(config)
    settings = keywords(section, kind)
    rotary_dim = width
    if "qk_rope_head_dim" in config:
        _check_shares(section, width)
    elif kind != "proportional":
        rotary_dim = _rotary_dim(section, width)
    if kind == "proportional":  # Every pair rotates, some at a rate of 0.
        settings["fraction"] = _share(section)
    rope: dict[str, Any] = dict(
        head_dim=width,
        base=_base(section),
        layout=layout or _layout(config),
        rotary_dim=rotary_dim,
        axes=_axes(section, rotary_dim // 2),
    )
    if config.get("dual_chunk_attention_config"):
        return _dual_chunk(section, kind, rope)
    return _scaled(section, make(TYPES[kind].scheme, **rope, **settings))


def head_dim_of(config: Config) -> int:
    """Returns how many channels of a head the encoding is for.

    In heads of two parts these are the channels that rotate.
    """
    family = family_of(config)
    if family.latent or "qk_rope_head_dim" in config:
        return whole(config, "qk_rope_head_dim")
    if family.head_dim is not None or not config.keys().isdisjoint(("head_dim", "kv_channels")):
        return whole(config, "head_dim", "kv_channels", default=family.head_dim)
    width, heads = whole(config, *WIDTH, "head_dim"), whole(config, *HEADS)
    _check(width % heads == 0, f"head_dim is missing, and {width} channels are not {heads} heads")
    return width // heads


def _check(is_right: bool, message: str) -> None:
    if not is_right:
        raise ValueError(message)


def _base(section) -> float:
    keys, where, config = section
    bases = {f"rope_theta in {where}": keys["rope_theta"]} if "rope_theta" in keys else {}
    bases |= {key: config[key] for key in ("rope_theta", "rotary_emb_base") if key in config}
    if not bases and (base := family_of(config).base) is not None:
        return base
    _check(
        bool(bases),
        "rope_theta is missing, and no default is known for "
        f"model_type={config.get('model_type')!r}: add it",
    )
    for key, base in bases.items():
        _check(is_number(base) and base > 1, f"{key} must be a number above 1, not {base!r}")
    return float(agreed(bases))


def _layout(config) -> str:
    """Returns the layout of the model's code, or the one that a key of its config gives."""
    layout = family_of(config).layout
    for key in ("rope_interleave", "rotary_emb_interleaved"):
        if key in config:
            layout = "interleaved" if flag(config, key, default=False) else "half"
    if position_kind(config) != "rope_gptj":
        return layout
    _check(
        layout == "interleaved" or config.get("model_type") not in FAMILIES,
        "position_embedding_type='rope_gptj' means pairs of neighbours, but the model's code has "
        "halves",
    )
    return "interleaved"


def _fractions(section) -> dict[str, float]:
    """Returns the share of a head that rotates, by each key that gives it."""
    sources = [(keys, key) for keys in (section.keys, section.config) for key in _FRACTIONS]
    fractions = {f"{key}={keys[key]!r}": keys[key] for keys, key in sources if key in keys}
    for key, fraction in fractions.items():
        _check(is_number(fraction) and 0 < fraction <= 1, f"{key} must be a number in (0, 1]")
    return fractions


def _share(section) -> float:
    """Returns the share of pairs that rotate, each at the frequency it has in a whole head."""
    fractions, config = _fractions(section), section.config
    widths = [key for key in _WIDTHS if key in config]
    _check(
        bool(fractions) or not widths,
        f"{' and '.join(widths)} is not read with rope_type='proportional': give "
        "partial_rotary_factor",
    )
    return agreed(fractions) if fractions else family_of(config).fraction or 1.0


def _rotary_dim(section, width) -> int:
    """Returns how many channels of a head rotate, on which all keys that say it must agree."""
    config, default = section.config, family_of(section.config).fraction
    widths = {key: int(width * fraction) for key, fraction in _fractions(section).items()}
    given = {key: whole(config, key) for key in _WIDTHS if key in config}
    if not widths and default and not (given and "rotary_dim" in family_of(config).reads):
        widths[f"the default partial_rotary_factor={default}"] = int(width * default)
    widths |= given
    rotating = agreed(widths) if widths else width
    said = " and ".join(widths)
    _check(
        rotating == width or default is not None,
        f"{said} must rotate all head_dim={width} channels, not {rotating}: the code of "
        f"{config.get('model_type')!r} rotates whole heads and does not read it. If this "
        "checkpoint has code of its own that does, use posenc_jax.make('rope', rotary_dim=...)",
    )
    _check(
        not widths or (rotating % 2 == 0 and 2 <= rotating <= width),
        f"{said} must rotate an even number of the head_dim={width} channels, not {rotating}",
    )
    return rotating


def _check_shares(section, rotating):
    """Checks that no fraction contradicts ``qk_rope_head_dim`` in a head of two parts."""
    config = section.config
    heads = {config["head_dim"]} if "head_dim" in config else set()
    if "qk_nope_head_dim" in config:
        heads.add(whole(config, "qk_nope_head_dim") + rotating)
    for key, fraction in _fractions(section).items():
        _check(
            fraction == 1 or any(int(head * fraction) == rotating for head in heads),
            f"{key} contradicts qk_rope_head_dim={rotating}: it must be the share of these "
            "channels in a whole head",
        )


def _axes(section, pairs: int) -> Any:
    """Returns the position axis of each pair, None for text alone."""
    keys, where, config = section
    sections, deal = family_of(config).sections, family_of(config).axes
    is_interleaved = flag(keys, "mrope_interleaved", default=False)
    if "mrope_section" not in keys and sum(sections or ()) != pairs:
        _check(not is_interleaved, f"mrope_interleaved in {where} needs mrope_section")
        return None
    counts = tuple(entries(keys, "mrope_section", is_whole, sections))
    if sum(counts) != pairs or deal is None:
        raise ValueError(
            f"mrope_section={counts} in {where} must be numbers of channel pairs, {pairs} in all, "
            "of a model whose two channels of a pair rotate by one axis"
        )
    return (axes.interleaved if is_interleaved else deal)(counts)


def _dual_chunk(section, kind, rope) -> Encoding:
    """Returns the encoding of Qwen2.5-1M; transformers ignores the key and has plain RoPE."""
    settings = mapping(section.config, "dual_chunk_attention_config")
    read = {"chunk_size": "chunk_size", "local_size": "local_window", ORIGINAL: "original_length"}
    unknown = [key for key, value in settings.items() if key not in read and value]
    _check(
        not unknown,
        f"{', '.join(unknown)} in dual_chunk_attention_config: sparse attention is not offered; "
        "remove these for attention to all keys",
    )
    _check(
        kind == "default" and rope.pop("axes") is None,
        f"{section.where} of type {kind!r} is not offered with dual_chunk_attention_config",
    )
    # Chunks have the defaults of SGLang and vLLM.
    given: dict[str, Any] = {"chunk_size": 8192, "local_window": 1024}
    given |= {read[key]: whole(settings, key) for key in read if settings.get(key)}
    return make("dual_chunk", train_length=given["chunk_size"], **rope, **given)


def _scaled(section, encoding: Encoding) -> Encoding:
    """Returns ``encoding`` with the scale of queries that its section gives, if it gives one."""
    keys, where, config = section
    beta = keys.get("llama_4_scaling_beta")
    if not beta:
        return encoding
    _check(
        "llama_4_scaling_beta" in family_of(config).reads,
        f"llama_4_scaling_beta={beta!r} in {where}: the code of {config.get('model_type')!r} is "
        f"not known to read it, only {', '.join(reading('llama_4_scaling_beta'))}. Remove the key; "
        "if the code does read it, wrap the encoding: posenc_jax.make('ministral_scale', "
        f"over=encoding, train_length=..., attn_scale={beta!r})",
    )
    _check(
        "qk_rope_head_dim" not in config,
        f"llama_4_scaling_beta={beta!r} in {where} multiplies whole queries, but the encoding is "
        "for their qk_rope_head_dim channels: this scale is not offered for heads of two parts",
    )
    scale = number(keys, "llama_4_scaling_beta", where=where)
    return MinistralScale(over=encoding, train_length=train_length(section), attn_scale=scale)
