"""Defines what the code of models does that no column of the table of families could express.

A step puts a config into the words of ``common.py``, in place. A reach returns the window of
``attend`` for the size in the config. The last functions return encodings.
"""

from collections.abc import Callable
from typing import Any

from posenc_jax.encoding import Encoding
from posenc_jax.hf.common import (
    by_kind,
    by_layer,
    count_of_layers,
    fill_kinds,
    section_of,
    set_section,
)
from posenc_jax.hf.values import (
    CHUNKED,
    FULL,
    HEADS,
    LINEAR,
    SLIDING,
    WIDTH,
    Config,
    entries,
    flag,
    is_number,
    is_text,
    is_whole,
    mapping,
    number,
    whole,
)
from posenc_jax.registry import make

Step = Callable[[dict[str, Any]], None]
Reach = Callable[[Config, int], int | tuple[int, int]]


# Steps of several families


def defaults(**keys: Any) -> Step:
    """Returns the step that fills in what the class has; a null window stays."""
    return lambda config: config.update({**keys, **config})


def only(**keys: Any) -> Step:
    """Returns the step that fills in these keys, and refuses other values of them."""

    def step(config):
        for key, value in keys.items():
            if config.setdefault(key, value) != value:
                raise ValueError(f"{key}={config[key]!r} must be {value!r}: no other is offered")

    return step


def every(interval: int, other: str = SLIDING, *, key: str = "", last: bool = False) -> Step:
    """Returns the step that makes every ``interval``-th layer full attention.

    ``key`` gives another interval, if the class reads one; the others are of kind ``other``, and
    with ``last`` the last layer has full attention too.
    """

    def step(config):
        if not config.get("layer_types"):
            period, end = whole(config, key, default=interval), count_of_layers(config) * last
            fill_kinds(config, lambda n: FULL if (n + 1) % period == 0 or n + 1 == end else other)

    return step


def late_windows(first: int) -> Step:
    """Returns the step that has windows from ``max_window_layers`` on, by default ``first``."""

    def step(config):
        if config.get("sliding_window") is not None and config.get("use_sliding_window", True):
            start = whole(config, "max_window_layers", default=first, minimum=0)
            fill_kinds(config, lambda n: FULL if n < start else SLIDING)

    return step


def rotates_in_windows(config: dict[str, Any]) -> None:
    """Rotates in layers with a window alone."""
    set_section(config, (by_kind(config) or {SLIDING: section_of(config)[1]}) | {FULL: None})


def rotates_in_windows_if_any(config: dict[str, Any]) -> None:
    """Rotates in layers with a window alone; a null window makes all layers alike."""
    if _has_null_window(config):
        config["layer_types"] = [FULL] * count_of_layers(config)
    else:
        rotates_in_windows(config)


def plain_in_windows(config: dict[str, Any]) -> None:
    """Rotates without the scaling of the section in layers with a window."""
    _, section = section_of(config)
    set_section(config, by_kind(config) or {FULL: section, SLIDING: plain(section)})


def plain(section: Config) -> dict[str, Any]:
    """Returns the keys of a section that plain RoPE has."""
    return {key: section[key] for key in ("rope_theta", "partial_rotary_factor") if key in section}


def kinds_alone(config: dict[str, Any]) -> None:
    """Drops the type and the base beside the sections of kinds, which nothing reads."""
    name, section = section_of(config)
    if any(isinstance(keys, dict) for keys in section.values()):
        config[name] = {k: section[k] for k in section if k not in ("rope_type", "rope_theta")}


def bare(width: int) -> Step:
    """Returns the step for parts of models, which may be published without sizes."""
    return lambda config: (
        config.setdefault("head_dim", width) if config.keys().isdisjoint(WIDTH + HEADS) else None
    )


def two_bases(far: float, near: float) -> Step:
    """Returns the step that fills in the bases of a class, where a section lacks one."""

    def step(config):
        sections, is_new = by_kind(config), "rope_parameters" in config
        if is_new and not sections and "rope_local_base_freq" not in config:
            raise ValueError(
                "rope_parameters must have a section for each kind of layer, 'full_attention' and "
                "'sliding_attention', or rope_local_base_freq beside it"
            )
        given = [keys for keys in sections.values() if keys is not None]
        if not is_new or any("rope_theta" not in keys for keys in given):
            defaults(rope_theta=far, rope_local_base_freq=near)(config)

    return step


def _has_null_window(config):
    return config.get("sliding_window", ...) is None


# Steps of single families


def beam(config: dict[str, Any]) -> None:
    """Rotates in layers with a window alone, if no section says more."""
    if not by_kind(config):
        rotates_in_windows(config)


def cohere2(config: dict[str, Any]) -> None:
    """Rotates in layers with a window alone, and refuses a null window."""
    if _has_null_window(config) and {*config["layer_types"]} != {FULL}:
        raise ValueError(
            "sliding_window=null: the model's code rotates nothing without a window, and "
            "transformers does not run without one: give the window that the model has"
        )
    rotates_in_windows(config)


def cohere2_moe(config: dict[str, Any]) -> None:
    """Rotates in dense layers too, where the model has any at its start."""
    mlps = config.get("mlp_layer_types") or ()
    if config.get("prefix_dense_sliding_window_pattern") != 1 or "dense" not in mlps:
        cohere2(config)
        return
    layers = zip(mlps, config["layer_types"], strict=False)
    still = [m != "dense" and kind != SLIDING for m, kind in layers]
    by_layer(config, "mlp_layer_types", [{"rope_type": None} if x else {} for x in still])


def dory(config: dict[str, Any]) -> None:
    """Counts an attention and the MLP after it as one layer, which the config lists as two."""
    if "mlp" in (config.get("layer_types") or ()):
        config["layer_types"] = config["layer_types"][::2]
        config["num_hidden_layers"] = len(config["layer_types"])


def falcon(config: dict[str, Any]) -> None:
    """Drops plain RoPE beside ALiBi, which a config object of transformers has and never reads."""
    _, section = section_of(config)
    if config.get("alibi") and section.get("rope_type", "default") == "default":
        set_section(config, {})


def gptj(config: dict[str, Any]) -> None:
    """Needs to be told how much of a head rotates."""
    whole(config, "rotary_dim", "attn_rotary_emb")


def iquest_q1(config: dict[str, Any]) -> None:
    """Composes its layers of a start, blocks and an end, and lists the layers without rotation."""
    defaults(rope_theta=1e6, swa_rope_theta=1e4, rotary_dim=32, sliding_window=4096)(config)
    block = [FULL, SLIDING, SLIDING, SLIDING]
    first = entries(config, "first_layers_types", is_text, [FULL])
    block = entries(config, "hybrid_layers_types_block", is_text, block)
    last = entries(config, "last_layers_types", is_text, [FULL] * 3)
    count = whole(config, "num_hidden_layers", default=88)
    config["layer_types"] = [FULL] * count_of_layers({"num_hidden_layers": count})
    switches = ("use_hybrid_layers", "use_sliding_window")
    if all([flag(config, key, default=True) for key in switches]) and not _has_null_window(config):
        blocks = whole(config, "num_hybrid_layers_block", default=21, minimum=0)
        if len(first) + blocks * len(block) + len(last) != count:
            raise ValueError(f"num_hybrid_layers_block={blocks} does not give {count} layers")
        config["layer_types"] = first + blocks * block + last
    far, near = config.pop("rope_theta"), config.pop("swa_rope_theta")
    section = {"rope_theta": far} | section_of(config)[1]
    set_section(config, {FULL: section, SLIDING: section | {"rope_theta": near}})
    still = entries(config, "no_rope_layers", is_whole)
    config["no_rope_layers"] = [int(number not in still) for number in range(count)]


def jamba(config: dict[str, Any]) -> None:
    """Attends once in every period, by default in layers 4, 12, 20 and so on."""
    period = whole(config, "attn_layer_period", default=8)
    first = whole(config, "attn_layer_offset", default=4, minimum=0)
    fill_kinds(config, lambda n: FULL if n % period == first else LINEAR)


def kimi_linear(config: dict[str, Any]) -> None:
    """Attends in the listed layers, counted from 1, by default in layers 4, 8, 12, from 0."""
    linear = mapping(config, "linear_attn_config")
    default = [n + 1 for n in range(4, count_of_layers(config), 4)]
    attending = entries(linear, "full_attn_layers", is_whole, default)
    fill_kinds(config, lambda n: FULL if n + 1 in attending else LINEAR)


def listed_rope(config: dict[str, Any]) -> None:
    """Lists the layers that rotate, by default all but every fourth."""
    if not config.get("no_rope_layers"):
        interval = whole(config, "no_rope_layer_interval", default=4)
        count = count_of_layers(config, needed=True)
        config["no_rope_layers"] = [int((n + 1) % interval != 0) for n in range(count)]


def llama4(config: dict[str, Any]) -> None:
    """Attends in chunks where it rotates, and to everything where it does not."""
    if count_of_layers(config) or config.get("no_rope_layers"):
        listed_rope(config)
        rotates = dict(enumerate(config["no_rope_layers"]))
        fill_kinds(config, lambda n: CHUNKED if rotates.get(n) else FULL)
    else:
        set_section(config, {CHUNKED: section_of(config)[1], FULL: None})


def mimo(config: dict[str, Any]) -> None:
    """Has windows of ``sliding_window_size`` keys before the query, which is not counted there."""
    if "sliding_window_size" in config:
        config["sliding_window"] = whole(config, "sliding_window_size") + 1
    fill_kinds(config, lambda n: FULL if n == 0 or (n + 1) % 6 == 0 else SLIDING)


def modernbert(config: dict[str, Any]) -> None:
    """Has words of its own; a window is half of ``local_attention``, and both kinds are scaled."""
    period = whole(config, "global_attn_every_n_layers", default=3)
    fill_kinds(config, lambda n: FULL if n % period == 0 else SLIDING)
    config.setdefault("sliding_window", whole(config, "local_attention", default=128) // 2)
    for name, common in (
        ("global_rope_theta", "rope_theta"),
        ("local_rope_theta", "rope_local_base_freq"),
    ):
        config.pop(common, None)
        if name in config:
            config[common] = config.pop(name)
    two_bases(160000.0, 1e4)(config)
    _, section = section_of(config)
    near = {key: value for key, value in section.items() if key != "rope_theta"}
    set_section(config, by_kind(config) or {FULL: section, SLIDING: near})


def muse(config: dict[str, Any]) -> None:
    """Rotates in all layers but every fourth, counted back from the last."""
    if "layer_rope_theta" not in config:
        last = count_of_layers(config, needed=True) - 1
        config["no_rope_layers"] = [int((last - n) % 4 != 0) for n in range(last + 1)]


def neomme(config: dict[str, Any]) -> None:
    """Rotates by rows and columns in turns, and alternates between short and long windows."""
    (name, section), sections = section_of(config), by_kind(config)
    if section and not sections:
        raise ValueError(f"{name}={section!r} must have a section for each kind of layer")
    for kind, base, part in ((FULL, 1e6, 0.25), (SLIDING, 1e4, 1.0)):
        keys = {"rope_theta": config.get("rope_theta", base), "partial_rotary_factor": part}
        keys |= sections.get(kind) or {}
        pairs = int(whole(config, "head_dim", default=64) * keys["partial_rotary_factor"]) // 2
        sections[kind] = {**keys, "mrope_section": [pairs - pairs // 2, pairs // 2]}
    set_section(config, sections)
    config.setdefault("sliding_window", 256)
    sliding = [n for n, kind in enumerate(config["layer_types"]) if kind == SLIDING]
    if not config["per_layer_config"]:
        config["per_layer_config"] = {n: {"sliding_window": 1024} for n in sliding[1::2]}


def recurrent_gemma(config: dict[str, Any]) -> None:
    """Repeats ``block_types`` over all layers."""
    blocks = entries(config, "block_types", is_text, ["recurrent", "recurrent", "attention"])
    fill_kinds(config, lambda n: blocks[n % len(blocks)])
    config["sliding_window"] = whole(config, "attention_window_size", default=2048)


def smollm3(config: dict[str, Any]) -> None:
    """Has windows, if any, in layers that do not rotate; a listed one counts without a switch."""
    listed_rope(config)
    slides = config.get("sliding_window") and flag(config, "use_sliding_window", default=False)
    still = {n for n, rotates in enumerate(config["no_rope_layers"]) if not rotates}
    fill_kinds(config, lambda n: SLIDING if slides and n in still else FULL)
    config["use_sliding_window"] = True


def step3p5(config: dict[str, Any]) -> None:
    """Has a base and a part of heads for each layer, and scaling in layers without a window."""
    only(yarn_only_types=[FULL])(config)
    plain_in_windows(config)
    # The lists go on for layers that predict further tokens.
    kinds, count = config.get("layer_types") or [], config.get("num_hidden_layers")
    config["layer_types"] = kinds[:count]
    for key, common in (("rope_theta",) * 2, ("partial_rotary_factors", "partial_rotary_factor")):
        if isinstance(config.get(key), list):
            listed = entries(config, key, is_number)
            del config[key]
            by_layer(config, key, [{common: value} for value in listed])


def xllm(config: dict[str, Any]) -> None:
    """Rotates the first pairs of a head, each as fast as in a head that has no others."""
    width, part = whole(config, "head_dim"), whole(config, "rope_head_dim")
    name, section = section_of(config)
    if part == width:
        return
    if section.get("rope_type", "default") != "default":
        raise ValueError(f"{name}={section!r} is not offered with rope_head_dim={part}")
    base = number({**config, **section}, "rope_theta", 1) ** (width / part)
    keys = {"rope_type": "proportional", "partial_rotary_factor": part / width, "rope_theta": base}
    set_section(config, keys)
    config.pop("rope_theta", None)


def zamba(config: dict[str, Any]) -> None:
    """Attends in layer 2, and then once in every period, counted from layer 3 on."""
    period = whole(config, "attn_layer_period", default=6)
    first = whole(config, "attn_layer_offset", default=4, minimum=0)
    attends = {2, *range(3 + first, count_of_layers(config), period)}
    fill_kinds(config, lambda n: "hybrid" if n in attends else "mamba")


def zamba2(config: dict[str, Any]) -> None:
    """Has heads of twice the usual width; the layers are those of the one size without a list."""
    if count_of_layers(config) == 54:
        hybrid = {6, 12, 18, 24, 30, 36, 42, 47, 51}
        fill_kinds(config, lambda n: "hybrid" if n in hybrid else "mamba")
    if flag(config, "use_mem_rope", default=config.setdefault("use_mem_rope", False)):
        config.pop("kv_channels", None)
        width = 2 * whole(config, *WIDTH) // whole(config, *HEADS)
        config["head_dim"] = whole(config, "attention_head_dim", default=width)


# Reaches of windows


def back(config: Config, size: int) -> int:
    """Returns the last ``size`` keys, the query included, of a causal model."""
    sides = config.get("use_bidirectional_attention")
    return not_known(config, size) if sides not in (None, False, "vision") else size


def radius(config: Config, size: int) -> tuple[int, int]:
    """Returns ``size`` keys to both sides of the query."""
    return size, size


def gemma3(config: Config, size: int) -> int | tuple[int, int]:
    """Returns ``size`` keys of a decoder, and half as many to both sides of an encoder."""
    return (size // 2, size // 2) if config.get("use_bidirectional_attention") else size


def t5gemma2(config: Config, size: int) -> tuple[int, int]:
    """Returns ``size`` keys around the query; an even size has one more to the right."""
    return (size + 1) // 2 - 1, size // 2


def not_known(config: Config, size: int) -> Any:
    """Raises ValueError, because the reach of the windows was not verified."""
    raise ValueError(
        f"model_type={config.get('model_type')!r}: how far its windows reach to both sides of a "
        "query is not known"
    )


# Encodings of layers without rotation


def nope(config: Config) -> Encoding:
    return make("nope")


def llama4_temperature(config: Config) -> Encoding:
    # The published configs hold a number where the class has a switch.
    if not config.get("attn_temperature_tuning", True):
        return make("nope")
    return make(
        "llama4_temperature",
        floor_scale=whole(config, "floor_scale", default=8192),
        attn_scale=number(config, "attn_scale", default=0.1),
    )
