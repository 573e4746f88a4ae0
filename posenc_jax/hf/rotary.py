"""RoPE from one section of a config: ``rope_parameters``, ``rope_scaling``, or none."""

import difflib

from posenc_jax.hf.values import LENGTH, agreed, flag, head_dim_of, is_number, number, whole
from posenc_jax.registry import make
from posenc_jax.rotary import axes

# What each type of section has beside _EVERY_TYPE: needed, and allowed.
_TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "yarn": (
        (),
        (
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ),
    ),
    "longrope": (
        ("short_factor", "long_factor"),
        (
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "short_mscale",
            "long_mscale",
        ),
    ),
    "llama3": (
        ("factor", "low_freq_factor", "high_freq_factor"),
        ("original_max_position_embeddings",),
    ),
    "proportional": ((), ("factor",)),
}
_EVERY_TYPE = (
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "mrope_section",
    "mrope_interleaved",
    "finetuned",
)
_OLD_NAMES = {"su": "longrope", "mrope": "default"}

# Models whose channel pairs are neighbours in transformers' code, where rope_interleave is not set.
_INTERLEAVED = {"gptj", "codegen", "roformer", "cohere", "cohere2", "cohere2_moe", "helium"}
_INTERLEAVED |= {"glm", "glm4", "glm4v_text", "glm_ocr_text", "glm4_moe_lite", "glm_moe_dsa"}
_INTERLEAVED |= {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe_text", "llama4_text"}
_INTERLEAVED |= {"deepseek_v2", "deepseek_v3", "deepseek_v32", "longcat_flash", "youtu"}
_INTERLEAVED |= {"bailing_hybrid", "moonshine"}

# Models whose code interleaves the axes of positions, whether mrope_interleaved is set or not.
_AXES_INTERLEAVED = {
    f"{model}{part}"
    for model in ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen3_omni_moe")
    for part in ("", "_text")
}
# Sections of row, column and time, laid out as in VideoRoPE.
_TIME_LAST = {"ernie4_5_vl_moe", "ernie4_5_vl_moe_text"}
# Two channels that are a pair there turn by different axes, which is no rotation.
_NOT_OFFERED = {"hunyuan_vl", "hunyuan_vl_text"}

# Models whose published configs may lack a base, and then mean 10000.
_OLD_MODELS = {"llama", "mistral", "falcon", "gptj", "codegen", "gpt_neox", "phi", "roformer"}


def rotary(config, where, section, layout):
    """The encoding of ``section``; ``where`` names it in errors, ``config`` is all around it."""
    kind = _kind(where, section)
    needed, allowed = _TYPES[kind]
    for key in section:
        valid = (*needed, *allowed, *_EVERY_TYPE)
        if key not in valid:
            close = difflib.get_close_matches(key, valid, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it may have {', '.join(valid)}"
            raise ValueError(f"{where} of type {kind!r} has an unknown key {key!r}; {hint}")
    for key in needed:
        if key not in section:
            raise ValueError(f"{where} of type {kind!r} lacks {key!r}")

    rope = dict(head_dim=head_dim_of(config), base=_base(config, where, section))
    fraction, rope["rotary_dim"] = _rotary_part(config, section, rope["head_dim"], kind)
    rope["axes"] = _axes(config, where, section, rope["rotary_dim"] // 2)
    by_model = config.get("model_type") in _INTERLEAVED
    is_interleaved = flag(config, "rope_interleave", default=by_model)
    rope["layout"] = layout or ("interleaved" if is_interleaved else "half")

    if kind == "default":
        return make("rope", **rope)
    if kind == "linear":
        return make("pi", factor=number(where, section, "factor", 1), **rope)
    if kind == "proportional":
        factor = number(where, section, "factor", 1, default=1.0)
        return make("p_rope", fraction=fraction, factor=factor, **rope)
    if kind == "dynamic":
        length = whole(config, *LENGTH)
        factor = number(where, section, "factor", 1)
        return make("dynamic_ntk", train_length=length, factor=factor, **rope)
    rope["train_length"] = _train_length(config, where, section, kind)
    if kind == "llama3":
        for key in needed:
            rope[key] = number(where, section, key, 1 if key == "factor" else 0)
        return make("llama3", **rope)
    rope["factor"] = _stretch(config, where, section, kind, rope["train_length"])
    if kind == "longrope":
        return make("longrope", **_longrope(where, section, rope["rotary_dim"] // 2), **rope)
    for key in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim"):
        if key in section:
            rope[key] = number(where, section, key, 0)
    if "attention_factor" in section:
        rope["attention_factor"] = _attention_factor(where, section, "attention_factor")
    return make("yarn", truncate=flag(section, "truncate", where, default=True), **rope)


def _kind(where, section):
    for key in ("rope_type", "type"):
        if not isinstance(section.get(key, ""), str):
            raise ValueError(f"{key}={section[key]!r} in {where} must be a string")
    names = {section[key] for key in ("rope_type", "type") if key in section}
    kinds = {_OLD_NAMES.get(name, name) for name in names} or {"default"}
    if len(kinds) > 1:
        raise ValueError(
            f"rope_type={section['rope_type']!r} contradicts type={section['type']!r} in {where}"
        )
    (kind,) = kinds
    if kind not in _TYPES:
        raise ValueError(
            f"rope_type={kind!r} in {where} must be one of {', '.join((*_TYPES, *_OLD_NAMES))}"
        )
    if "mrope" in names and "mrope_section" not in section:
        raise ValueError(f"{where} of type 'mrope' lacks 'mrope_section'")
    return kind


def _base(config, where, section):
    bases = {f"rope_theta in {where}": section["rope_theta"]} if "rope_theta" in section else {}
    bases |= {key: config[key] for key in ("rope_theta", "rotary_emb_base") if key in config}
    if not bases:
        model = config.get("model_type")
        if where == "config" and model not in _OLD_MODELS:
            raise ValueError(
                "config has none of the keys rope_parameters, rope_scaling, rope_theta, alibi, "
                "relative_attention_num_buckets: its positions are not understood"
            )
        if model is not None and model not in _OLD_MODELS:
            raise ValueError(f"rope_theta is missing, and no default is known for {model!r}")
        return 10000.0
    for key, base in bases.items():
        if not is_number(base) or base <= 1:
            raise ValueError(f"{key} must be a number above 1, not {base!r}")
    return float(agreed(bases))


def _rotary_part(config, section, head_dim, kind):
    """The rotated fraction of a head, and how many channels take part in rotation."""
    fractions = {
        f"{key}={place[key]!r}": place[key]
        for place in (section, config)
        for key in ("partial_rotary_factor", "rotary_pct", "rope_pct")
        if key in place
    }
    for key, fraction in fractions.items():
        if not is_number(fraction) or not 0 < fraction <= 1:
            raise ValueError(f"{key} must be a number in (0, 1]")
    widths = {key: int(head_dim * fraction) for key, fraction in fractions.items()}
    if "rotary_dim" in config:
        widths["rotary_dim"] = whole(config, "rotary_dim")
    fraction = next(iter(fractions.values()), 1.0)
    width = agreed(widths) if widths else head_dim
    if kind == "proportional":
        return fraction, head_dim
    if widths and (width % 2 or not 2 <= width <= head_dim):
        raise ValueError(
            f"{' and '.join(widths)} must turn an even number of the head_dim={head_dim} channels, "
            f"not {width}"
        )
    return fraction, width


def _axes(config, where, section, pairs):
    if "mrope_section" not in section:
        if section.get("mrope_interleaved"):
            raise ValueError(f"mrope_interleaved in {where} needs mrope_section")
        return None
    counts = section["mrope_section"]
    is_list = isinstance(counts, (list, tuple)) and all(type(n) is int and n >= 0 for n in counts)
    if not is_list or sum(counts) != pairs:
        raise ValueError(
            f"mrope_section={counts!r} in {where} must be a list of numbers of channel pairs, "
            f"{pairs} in all"
        )
    model = config.get("model_type")
    if model in _NOT_OFFERED:
        raise ValueError(f"mrope_section={counts!r} in {where}: that of {model!r} is not offered")
    if model in _TIME_LAST:
        return axes.temporal_last((*counts[2:], *counts[:2]))
    by_model = model in _AXES_INTERLEAVED
    is_interleaved = flag(section, "mrope_interleaved", where, default=by_model)
    return (axes.interleaved if is_interleaved else axes.chunked)(tuple(counts))


def _train_length(config, where, section, kind):
    key = "original_max_position_embeddings"
    lengths = {
        f"{key} in {name}": whole(place, key)
        for name, place in ((where, section), ("config", config))
        if key in place
    }
    if not lengths and kind != "yarn":
        raise ValueError(f"{where} of type {kind!r} lacks {key!r}")
    length = agreed(lengths) if lengths else whole(config, *LENGTH, instead=key)
    longest = whole(config, *LENGTH, default=length)
    if longest < length:
        raise ValueError(
            f"max_position_embeddings={longest} must not be below {key}={length}: it is what that "
            "was extended to"
        )
    return length


def _stretch(config, where, section, kind, train_length):
    if "factor" not in section:
        return whole(config, *LENGTH, instead="factor") / train_length
    factor = number(where, section, "factor", 1)
    ratio = whole(config, *LENGTH, default=train_length) / train_length
    # transformers 4 reads the ratio and 5 the factor; of YaRN both read the factor.
    if kind == "longrope" and ratio not in (1, factor):
        raise ValueError(
            f"factor={factor} in {where} contradicts max_position_embeddings / "
            f"original_max_position_embeddings = {ratio}: drop one"
        )
    return factor


def _longrope(where, section, pairs):
    keywords = {}
    for key in ("short_factor", "long_factor"):
        factors = section[key]
        is_list = isinstance(factors, (list, tuple)) and all(map(is_number, factors))
        if not is_list or len(factors) != pairs or min(factors) <= 0:
            raise ValueError(
                f"{key} in {where} must be a list of {pairs} positive numbers, one for each "
                f"channel pair, not {factors!r}"
            )
        keywords[key] = tuple(map(float, factors))
    names = {"attention_factor": "attention_factor", "long_mscale": "attention_factor"}
    for key, name in (names | {"short_mscale": "short_attention_factor"}).items():
        if key in section:
            if name in keywords:
                raise ValueError(f"{key} contradicts attention_factor in {where}: drop one")
            keywords[name] = _attention_factor(where, section, key)
    return keywords


def _attention_factor(where, section, key):
    factor = number(where, section, key, 0)
    if factor == 0:
        raise ValueError(f"{key}=0 in {where} makes every logit 0: drop it")
    return factor
