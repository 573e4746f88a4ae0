"""Builds RoPE from one section of a config: ``rope_parameters``, ``rope_scaling``, or none."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib import axes
from posenc_jax.encodings.rotary.frequencies import Default, Frequencies
from posenc_jax.encodings.rotary.lerope import LeRoPE
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.encodings.wrappers.logit_scale import MinistralScale
from posenc_jax.hf.config import position_kind
from posenc_jax.hf.row import Row
from posenc_jax.hf.sections import TYPES, Section, keywords, kind_of, train_length
from posenc_jax.hf.table import ROWS, having, row_of
from posenc_jax.hf.values import (
    HEADS,
    ORIGINAL,
    WIDTH,
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


@dataclasses.dataclass(frozen=True)
class Backwards(Frequencies):
    """Rotates every pair as fast as RoPE does, in the opposite direction."""

    def __call__(self, channels, base, length):
        inv_freq, attention_factor = Default()(channels, base, length)
        return inv_freq * -1.0, attention_factor


def rotary(section: Section, layout: str | None) -> Encoding:
    """Returns the encoding of a layer with RoPE, with the scale of its queries if it has one."""
    config, row = section.config, row_of(section.config)
    _check(
        section.where != "config" or not row.scaled,
        f"the rotary section (rope_parameters or rope_scaling) is missing, and the code of "
        f"{config.get('model_type')!r} has one of its own there: give it, also for plain RoPE, "
        '{"rope_type": "default", "rope_theta": ...}',
    )
    kind = kind_of(section, row.ntk_alpha)
    width = head_dim_of(config)
    fractions = _fractions(section)
    rotary_dim = _rotary_dim(section, fractions, width, kind)
    rope: dict[str, Any] = dict(
        head_dim=width,
        base=_base(section),
        layout=layout or _layout(config, row),
        rotary_dim=rotary_dim,
        axes=_axes(section, row, rotary_dim // 2),
    )
    if config.get("dual_chunk_attention_config"):
        return _dual_chunk(section, kind, rope)
    settings = keywords(section, kind)
    if kind == "proportional":
        settings["fraction"] = _share(config, fractions, row)
    if row.backwards:
        settings["frequencies"] = Backwards()
        _check(kind == "default", f"rope_type={kind!r} in {section.where} is not offered here")
    encoding = make(TYPES[kind].scheme, **rope, **settings)
    return _scaled(section, encoding)


def with_parameters(
    config: Mapping[str, Any], encoding: Encoding, rngs: nnx.Rngs | None
) -> Encoding:
    """Returns the encoding of a layer of Mistral Large 4, whose rates and scales are learned.

    All layers with rotation share the learned rates (LeRoPE), and each layer, with or without
    rotation, has a learned scale of its queries (LogScale). ``encoding`` is what the config says:
    RoPE for the ``qk_rope_head_dim`` channels, or NoPE.
    """
    model = config.get("model_type")
    _check(
        rngs is not None,
        f"model_type={model!r} needs rngs=nnx.Rngs(0): the rates of its pairs, and the scale "
        "of its queries, are parameters; fill them from the checkpoint",
    )
    over = encoding
    if "rotate" in encoding.hooks():
        _check(
            type(encoding) is RoPE and encoding.axes is None,
            f"the rotary section of {model!r} gives {type(encoding).__name__}, but rates are "
            "learned over RoPE of one axis alone",
        )
        assert isinstance(encoding, RoPE)
        over = LeRoPE(
            head_dim=whole(config, "qk_nope_head_dim") + encoding.head_dim,
            base=encoding.base,
            frequencies=encoding.frequencies,
            rotary_dim=encoding.rotary_dim,
            layout=encoding.layout,
        )
    return make("log_scale", num_heads=whole(config, *HEADS), over=over, rngs=rngs)


def head_dim_of(config) -> int:
    """Returns how many channels of a head the encoding is for.

    In heads of two parts these are the channels that rotate.
    """
    row = row_of(config)
    if row.latent or "qk_rope_head_dim" in config:
        return whole(config, "qk_rope_head_dim")
    if callable(row.head_dim):
        return row.head_dim(config)
    if row.head_dim is not None or not config.keys().isdisjoint(("head_dim", "kv_channels")):
        return whole(config, "head_dim", "kv_channels", default=row.head_dim)
    if row.bare_head_dim and config.keys().isdisjoint((*WIDTH, *HEADS)):
        return row.bare_head_dim
    width, heads = whole(config, *WIDTH, "head_dim"), whole(config, *HEADS)
    _check(
        width % heads == 0, f"head_dim is missing, and {width} channels are not {heads} equal heads"
    )
    return width // heads


def _check(is_right: bool, message: str) -> None:
    if not is_right:
        raise ValueError(message)


def _base(section) -> float:
    keys, where, config = section
    bases = {f"rope_theta in {where}": keys["rope_theta"]} if "rope_theta" in keys else {}
    bases |= {key: config[key] for key in ("rope_theta", "rotary_emb_base") if key in config}
    if not bases:
        model = config.get("model_type")
        base = 1e4 if model is None and where != "config" else row_of(config).base
        if base is None:
            raise ValueError(
                f"rope_theta is missing, and no default is known for model_type={model!r}: add it"
            )
        return base
    for key, base in bases.items():
        _check(is_number(base) and base > 1, f"{key} must be a number above 1, not {base!r}")
    return float(agreed(bases))


def _layout(config, row: Row) -> str:
    """Returns the layout of the model's code, or the one that a key of its config gives."""
    layout = row.layout
    for key in ("rope_interleave", "rotary_emb_interleaved"):
        if key in config:
            layout = "interleaved" if flag(config, key, default=False) else "half"
    if position_kind(config) != "rope_gptj":
        return layout
    _check(
        layout == "interleaved" or config.get("model_type") not in ROWS,
        "position_embedding_type='rope_gptj' means pairs of neighbours, but the model's code has "
        "halves",
    )
    return "interleaved"


def _fractions(section) -> dict[str, float]:
    """Returns the share of a head that rotates, by each key that gives it."""
    fractions = {
        f"{key}={source[key]!r}": source[key]
        for source in (section.keys, section.config)
        for key in _FRACTIONS
        if key in source
    }
    for key, fraction in fractions.items():
        _check(is_number(fraction) and 0 < fraction <= 1, f"{key} must be a number in (0, 1]")
    return fractions


def _share(config, fractions, row: Row) -> float:
    """Returns the share of pairs that rotate, each at the frequency it has in a whole head."""
    widths = [key for key in _WIDTHS if key in config]
    _check(
        bool(fractions) or not widths,
        f"{' and '.join(widths)} is not read with rope_type='proportional': its key is "
        "partial_rotary_factor, which is missing",
    )
    return agreed(fractions) if fractions else row.fraction or 1.0


def _rotary_dim(section, fractions, width, kind) -> int:
    """Returns how many channels of a head rotate; all under p-RoPE, where some have a rate of 0."""
    config, row = section.config, row_of(section.config)
    if "qk_rope_head_dim" in config:
        _check_shares(config, fractions, width)
        return width
    widths = {key: int(width * fraction) for key, fraction in fractions.items()}
    if not widths and row.fraction is not None and row.rotary_dim == "unread":
        widths[f"the default partial_rotary_factor={row.fraction}"] = int(width * row.fraction)
    widths |= {key: whole(config, key) for key in _WIDTHS if key in config}
    _check(
        bool(widths) or row.rotary_dim != "needed",
        "rotary_dim is missing: in this model a part of each head rotates; add it",
    )
    if not widths and row.fraction not in (None, 1):
        widths["partial_rotary_factor"] = int(width * row.fraction)
    rotating = agreed(widths) if widths else width
    if kind == "proportional":
        return width
    _check(
        rotating == width or row.fraction is not None,
        f"{' and '.join(widths)} must rotate all head_dim={width} channels, not {rotating}: the "
        f"code of {config.get('model_type')!r} rotates whole heads and does not read it. If this "
        "checkpoint has code of its own that does, use posenc_jax.make('rope', rotary_dim=...)",
    )
    _check(
        not widths or (rotating % 2 == 0 and 2 <= rotating <= width),
        f"{' and '.join(widths)} must rotate an even number of the head_dim={width} channels, not "
        f"{rotating}",
    )
    return rotating


def _check_shares(config, fractions, rotating):
    """Checks that no fraction contradicts ``qk_rope_head_dim`` in a head of two parts."""
    heads = {config["head_dim"]} if "head_dim" in config else set()
    if "qk_nope_head_dim" in config:
        heads.add(whole(config, "qk_nope_head_dim") + rotating)
    for key, fraction in fractions.items():
        _check(
            fraction == 1 or any(int(head * fraction) == rotating for head in heads),
            f"{key} contradicts qk_rope_head_dim={rotating}: it must be the share of these "
            "channels in a whole head",
        )


def _axes(section, row: Row, pairs: int) -> Any:
    keys, where, _ = section
    if row.axes == "rows_and_columns":
        return axes.interleaved((pairs - pairs // 2, pairs // 2))
    is_interleaved = flag(keys, "mrope_interleaved", default=False)
    if "mrope_section" not in keys and sum(row.sections or ()) != pairs:
        _check(not is_interleaved, f"mrope_interleaved in {where} needs mrope_section")
        return None
    counts = tuple(entries(keys, "mrope_section", is_whole, row.sections))
    _check(
        sum(counts) == pairs and row.axes is not None,
        f"mrope_section={counts} in {where} must be numbers of channel pairs, {pairs} in all, of a "
        "model whose two channels of a pair rotate by one axis",
    )
    if row.axes == "time_last":
        return axes.temporal_last((*counts[2:], *counts[:2]))
    if is_interleaved or row.axes == "interleaved":
        return axes.interleaved(counts)
    return axes.chunked(counts)


def _dual_chunk(section, kind, rope) -> Encoding:
    """Returns the encoding of Qwen2.5-1M; transformers ignores the key and has plain RoPE."""
    config, name = section.config, "dual_chunk_attention_config"
    settings = mapping(config, name)
    _check(
        row_of(config).dual_chunks or "model_type" not in config,
        f"{name}={settings!r}: the model's code is not known to read it; the models known to read "
        f"it are {', '.join(having(dual_chunks=True))}. If this one does not, remove the key",
    )
    read = {"chunk_size": "chunk_size", "local_size": "local_window", ORIGINAL: "original_length"}
    unknown = [key for key, value in settings.items() if key not in read and value]
    _check(
        not unknown,
        f"{', '.join(unknown)} in {name}: sparse attention is not offered; remove these for "
        "attention to all keys",
    )
    _check(
        kind == "default" and rope.pop("axes") is None,
        f"{section.where} of type {kind!r} is not offered together with {name}",
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
        row_of(config).scaled_queries,
        f"llama_4_scaling_beta={beta!r} in {where}: the code of {config.get('model_type')!r} is "
        "not known to read it; the models known to read it are "
        f"{', '.join(having(scaled_queries=True))}. If this one does not, remove the key. If it "
        "does, remove the key too, and wrap the encoding: "
        "posenc_jax.make('ministral_scale', over=encoding, train_length=..., "
        f"attn_scale={beta!r})",
    )
    _check(
        "qk_rope_head_dim" not in config,
        f"llama_4_scaling_beta={beta!r} in {where} multiplies whole queries, but the encoding is "
        "for their qk_rope_head_dim channels: this scale is not offered for heads of two parts",
    )
    return MinistralScale(
        over=encoding,
        train_length=train_length(section),
        attn_scale=number(keys, "llama_4_scaling_beta", where=where),
    )
