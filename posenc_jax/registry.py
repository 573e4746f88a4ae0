"""Lists every scheme by name, and builds one with ``make``."""

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from posenc_jax.checks import check_choice, check_encoding, check_rngs, count_of
from posenc_jax.encoding import Encoding, check_overrides
from posenc_jax.layered import drawn_together
from posenc_jax.model.layers import Layers
from posenc_jax.model.stacking import check_stackable

# One line per scheme: "module:class or function", imported when it is first asked for.
REGISTRY = {
    "nope": "posenc_jax.encoding:Encoding",
    "sinusoidal": "posenc_jax.encodings.absolute.sinusoidal:Sinusoidal",
    "learned": "posenc_jax.encodings.absolute.learned:Learned",
    "sinusoidal_2d": "posenc_jax.encodings.absolute.sinusoidal_2d:Sinusoidal2D",
    "learned_2d": "posenc_jax.encodings.absolute.learned_2d:Learned2D",
    "seqpe": "posenc_jax.encodings.absolute.seqpe:SeqPE",
    "seqpe_input_add": "posenc_jax.encodings.absolute.seqpe:SeqPEInputAdd",
    "randomized": "posenc_jax.encodings.wrappers.randomized:Randomized",
    "random_float": "posenc_jax.encodings.wrappers.randomized:RandomFloat",
    "rope": "posenc_jax.encodings.rotary.rope:RoPE",
    "rope_mixed": "posenc_jax.encodings.rotary.rope_mixed:RoPEMixed",
    "string": "posenc_jax.encodings.rotary.string:STRING",
    "circulant_string": "posenc_jax.encodings.rotary.circulant_string:CirculantSTRING",
    "golden_gate": "posenc_jax.encodings.rotary.golden_gate:GoldenGate",
    "dinov3": "posenc_jax.encodings.rotary.dinov3:DINOv3",
    "axial_rope": "posenc_jax.encodings.rotary.axial_rope:axial_rope",
    "pi": "posenc_jax.encodings.rotary.frequencies.pi:PositionInterpolation",
    "dynamic_pi": "posenc_jax.encodings.rotary.frequencies.pi:DynamicPI",
    "ntk": "posenc_jax.encodings.rotary.frequencies.ntk:NTK",
    "ntk_critical": "posenc_jax.encodings.rotary.frequencies.ntk:NTKCritical",
    "dynamic_ntk": "posenc_jax.encodings.rotary.frequencies.ntk:DynamicNTK",
    "ntk_by_parts": "posenc_jax.encodings.rotary.frequencies.by_parts:NTKByParts",
    "llama3": "posenc_jax.encodings.rotary.frequencies.by_parts:Llama3",
    "yarn": "posenc_jax.encodings.rotary.frequencies.yarn:YaRN",
    "dynamic_yarn": "posenc_jax.encodings.rotary.frequencies.yarn:DynamicYaRN",
    "mrrope_uni": "posenc_jax.encodings.rotary.frequencies.mrrope:MrRoPEUni",
    "mrrope_pro": "posenc_jax.encodings.rotary.frequencies.mrrope:MrRoPEPro",
    "longrope": "posenc_jax.encodings.rotary.longrope:LongRoPE",
    "longrope2": "posenc_jax.encodings.rotary.longrope:longrope2",
    "hope": "posenc_jax.encodings.rotary.frequencies.hope:HoPE",
    "p_rope": "posenc_jax.encodings.rotary.frequencies.proportional:Proportional",
    "clipped_rope": "posenc_jax.encodings.rotary.frequencies.clipped:Clipped",
    "resonance": "posenc_jax.encodings.rotary.frequencies.resonance:Resonance",
    "mrope": "posenc_jax.encodings.rotary.mrope:mrope",
    "i_mrope": "posenc_jax.encodings.rotary.mrope:i_mrope",
    "mhrope": "posenc_jax.encodings.rotary.mrope:mhrope",
    "videorope": "posenc_jax.encodings.rotary.videorope:videorope",
    "videorope_pp": "posenc_jax.encodings.rotary.videorope:videorope_pp",
    "hope_hybrid": "posenc_jax.encodings.rotary.videorope:hope_hybrid",
    "time_rope": "posenc_jax.encodings.rotary.time_rope:time_rope",
    "prope": "posenc_jax.encodings.rotary.prope:PRoPE",
    "lerope": "posenc_jax.encodings.rotary.lerope:LeRoPE",
    "value_rope": "posenc_jax.encodings.rotary.value_rope:ValueRoPE",
    "grape_m": "posenc_jax.encodings.rotary.grape_m:GrapeM",
    "xpos": "posenc_jax.encodings.rotary.xpos:XPos",
    "fope": "posenc_jax.encodings.rotary.fope:FoPE",
    "pope": "posenc_jax.encodings.rotary.pope:PoPE",
    "rerope": "posenc_jax.encodings.position_maps.rerope:ReRoPE",
    "leaky_rerope": "posenc_jax.encodings.position_maps.rerope:LeakyReRoPE",
    "self_extend": "posenc_jax.encodings.position_maps.self_extend:SelfExtend",
    "jet_long": "posenc_jax.encodings.position_maps.jet_long:JetLong",
    "dual_chunk": "posenc_jax.encodings.position_maps.dual_chunk:DualChunk",
    "alibi": "posenc_jax.encodings.bias.alibi:ALiBi",
    "alibi_2d": "posenc_jax.encodings.bias.alibi_2d:ALiBi2D",
    "swin_v2": "posenc_jax.encodings.bias.swin_v2:SwinV2",
    "t5": "posenc_jax.encodings.bias.t5:T5",
    "kerple_log": "posenc_jax.encodings.bias.kerple:KerpleLog",
    "kerple_power": "posenc_jax.encodings.bias.kerple:KerplePower",
    "sandwich": "posenc_jax.encodings.bias.sandwich:Sandwich",
    "fire": "posenc_jax.encodings.bias.fire:FIRE",
    "shaw": "posenc_jax.encodings.content.shaw:Shaw",
    "transformer_xl": "posenc_jax.encodings.content.transformer_xl:TransformerXL",
    "deberta": "posenc_jax.encodings.content.deberta:DeBERTa",
    "inkling": "posenc_jax.encodings.content.inkling:Inkling",
    "inkling2": "posenc_jax.encodings.content.inkling:Inkling2",
    "grape_a": "posenc_jax.encodings.content.grape_a:GrapeA",
    "grape_ap": "posenc_jax.encodings.content.grape_ap:GrapeAP",
    "dape": "posenc_jax.encodings.content.dape:DAPE",
    "cope": "posenc_jax.encodings.content.cope:CoPE",
    "stick_breaking": "posenc_jax.encodings.content.stick_breaking:StickBreaking",
    "fox": "posenc_jax.encodings.content.fox:FoX",
    "cable": "posenc_jax.encodings.content.cable:CABLE",
    "grape_m_contextual": "posenc_jax.encodings.content.grape_m_contextual:GrapeMContextual",
    "repo": "posenc_jax.encodings.content.repo:RePo",
    "wall": "posenc_jax.encodings.content.wall:Wall",
    "path": "posenc_jax.encodings.content.path:PaTH",
    "selective_rope": "posenc_jax.encodings.content.selective_rope:SelectiveRoPE",
    "logn": "posenc_jax.encodings.wrappers.logit_scale:LogN",
    "ssmax": "posenc_jax.encodings.wrappers.logit_scale:SSMax",
    "log_scale": "posenc_jax.encodings.wrappers.logit_scale:LogScale",
    "ministral_scale": "posenc_jax.encodings.wrappers.logit_scale:MinistralScale",
    "beam_scale": "posenc_jax.encodings.wrappers.logit_scale:BeamScale",
    "llama4_temperature": "posenc_jax.encodings.wrappers.logit_scale:Llama4Temperature",
    "soft_cap": "posenc_jax.encodings.wrappers.soft_cap:SoftCap",
    "kv_shift": "posenc_jax.encodings.wrappers.kv_shift:KVShift",
    "key_offset": "posenc_jax.encodings.rotary.key_offset:KeyOffset",
    "short_conv": "posenc_jax.encodings.wrappers.short_conv:ShortConv",
    "dynamic_short_conv": "posenc_jax.encodings.wrappers.dynamic_short_conv:DynamicShortConv",
    "irope": "posenc_jax.encodings.patterns:irope",
    "rnope_swa": "posenc_jax.encodings.patterns:rnope_swa",
    "dual_base": "posenc_jax.encodings.patterns:dual_base",
    "global_nope": "posenc_jax.encodings.patterns:global_nope",
    "global_yarn": "posenc_jax.encodings.patterns:global_yarn",
    "beam": "posenc_jax.encodings.patterns:beam",
    "flint": "posenc_jax.encodings.patterns:flint",
}
# The names for which ``make`` returns Layers and not an Encoding.
PATTERNS: tuple[str, ...] = tuple(name for name in REGISTRY if ".patterns:" in REGISTRY[name])


# The sizes of a model; a scheme's constructor takes the sizes that it names.
SIZES = ("num_heads", "num_kv_heads", "head_dim", "model_dim", "num_layers", "train_length")
# What make() offers to every scheme.
_OFFERED = (*SIZES, "rngs")
# What other projects call the arguments of make().
_ELSEWHERE = {
    "theta": "base",
    "rope_theta": "base",
    "dim": "head_dim",
    "hidden_size": "model_dim",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "original_max_position_embeddings": "train_length",
    "max_position_embeddings": "train_length",
}
# The keywords of schemes that have no default, and what errors say of each.
_MEANING = {"factor": " (how many times longer texts shall be than in training, such as 4.0)"}
# With rope scaling, max_position_embeddings is the longer length, for which it would be wrong.
_LENGTHS = " Where a config has rope scaling, that is its original_max_position_embeddings."


def make(
    name: str,
    *,
    num_heads: int | None = None,
    num_kv_heads: int | None = None,
    head_dim: int | None = None,
    model_dim: int | None = None,
    train_length: int | None = None,
    num_layers: int | None = None,
    rngs: nnx.Rngs | None = None,
    **settings,
) -> Any:
    """Builds the encoding called ``name``, an ``Encoding``, or the pattern of layers, ``Layers``.

    Configs know a scheme by its name. In code the classes themselves, such as ``posenc_jax.FoX``,
    show their keywords to editors and type checkers.

    Args:
      name: a key of ``REGISTRY``; the names in ``PATTERNS`` give Layers.
      num_heads: number of query heads in one layer.
      num_kv_heads: number of kv heads in one layer; by default ``num_heads``.
      head_dim: number of channels in one head.
      model_dim: width of the residual stream.
      train_length: number of tokens in one training sequence.
      num_layers: gives a scheme with per-layer parameters independent initial values for each
        layer, as ``Encoding.of_layers`` does, and as ``Transformer`` needs them. Some patterns need
        ``num_layers`` to know which layer is the last.
      rngs: source of the initial values of a scheme with parameters.
      **settings: the scheme's own keywords, which ``posenc_jax.signature(name)`` lists. A scheme
        that wraps another takes ``over``: an encoding already built, the name of one, or a mapping
        of its name and its own keywords, such as ``{"name": "yarn", "factor": 4.0}``.

    Raises:
      ValueError: the name is unknown, the scheme needs an argument that was not given, a value is
        out of range, or the scheme cannot be stacked.
      TypeError: the scheme does not have one of the keywords.
    """
    sizes = _known(
        num_heads=num_heads,
        num_kv_heads=num_heads if num_kv_heads is None else num_kv_heads,
        head_dim=head_dim,
        model_dim=model_dim,
        num_layers=num_layers,
        train_length=train_length,
    )
    if rngs is not None:
        check_rngs(rngs)
    if "num_layers" not in sizes or not _is_per_layer(lookup(name), settings):
        return _built(name, sizes, rngs, settings)

    def layer(rngs):
        return _built(name, sizes, rngs, settings)

    over = settings.get("over")
    encoding = drawn_together(layer, sizes["num_layers"], rngs, over)
    if not isinstance(over, Encoding):
        check_stackable(name, encoding, over)
    return encoding


def _known(**sizes: int | None) -> dict[str, int]:
    """Returns the sizes that are not None."""
    return {name: count_of(name, size) for name, size in sizes.items() if size is not None}


def _built(name: str, sizes: dict[str, int], rngs, settings) -> Encoding | Layers:
    """Builds one layer's encoding, after the encoding that it wraps."""
    build: Any = lookup(name)
    accepted = keywords(build)
    settings = _checked_keywords(name, settings, accepted)
    if "over" in accepted:
        over = settings.get("over", accepted["over"].default)
        settings["over"] = _beneath(over, build.sizes_beneath(sizes, **settings), rngs)
    given: dict[str, Any] = {key: sizes[key] for key in sizes if key in accepted}
    if rngs is not None and "rngs" in accepted:
        given["rngs"] = rngs
    arguments = given | settings
    missing = [
        f"{key}={_MEANING.get(key, '')}"
        for key in (*_OFFERED, *_MEANING)
        if key in accepted
        and key not in arguments
        and accepted[key].default is inspect.Parameter.empty
    ]
    if missing:
        raise ValueError(f"make({name!r}, ...) needs {', '.join(missing)}")
    encoding = build(**arguments)
    if not isinstance(encoding, Layers):
        check_encoding(encoding)
        check_overrides(encoding)
    return encoding


def _beneath(over: Encoding | str | Mapping, sizes: dict[str, int], rngs) -> Encoding:
    """Returns ``over``, or builds the encoding that it names."""
    if isinstance(over, Encoding):
        return over
    inner = inner_keywords(over)
    given = _known(**{key: inner.pop(key) for key in SIZES if key in inner})
    built: Any = _built(inner.pop("name"), sizes | given, rngs, inner)
    return built


def lookup(name: str) -> Callable[..., Any]:
    """Returns the class or function that is registered under ``name``."""
    if not isinstance(name, str) or name not in REGISTRY:
        raise ValueError(f"unknown encoding name={name!r}{suggest(str(name), REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_scheme(name: str) -> None:
    """Checks that ``name`` is a scheme, which one layer can have, and no pattern of layers."""
    lookup(name)
    if name in PATTERNS:
        raise ValueError(
            f"name={name!r} is a pattern of layers, and one layer takes one scheme: give each "
            f"layer its own, which posenc_jax.make({name!r}, ...).at(i) shows for layer i"
        )


def signature(name: str) -> inspect.Signature:
    """Returns the signature of ``make(name, ...)``: sizes first, then the scheme's keywords."""
    accepted = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in keywords(lookup(name)).values()
    ]
    return inspect.Signature(sorted(accepted, key=lambda parameter: parameter.name not in _OFFERED))


def own_keywords(name: str) -> tuple[str, ...]:
    """Returns the keywords that only this scheme has, which ``make`` passes on to it."""
    return tuple(key for key in keywords(lookup(name)) if key not in _OFFERED)


def keywords(build: Callable) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a scheme's constructor, which ``make`` passes by their names."""
    # The metaclass of nnx.Module hides the constructor's own signature.
    constructor: Any = build.__init__ if isinstance(build, type) else build  # type: ignore[misc]
    written = inspect.signature(constructor).parameters.values()
    many = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    own = {x.name: x for x in written if x.name != "self" and x.kind not in many}
    inherited: dict[str, inspect.Parameter] = {}
    for parameter in written:
        if typing.get_origin(parameter.annotation) is typing.Unpack:
            (passed_on,) = typing.get_args(parameter.annotation)
            of_base = keywords(build.__base__)  # type: ignore[attr-defined]
            inherited = {key: of_base[key] for key in passed_on.__annotations__}
    return inherited | own


def _is_per_layer(build, settings) -> bool:
    """Returns whether a scheme, or one that it wraps by name, has parameters for each layer."""
    per_layer = getattr(build, "per_layer", False)
    if "over" not in keywords(build):
        return per_layer
    over = settings.get("over", keywords(build)["over"].default)
    if isinstance(over, Encoding):
        return per_layer
    inner = inner_keywords(over)
    return per_layer or _is_per_layer(lookup(inner["name"]), inner)


def inner_keywords(over: str | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the name and the keywords of the scheme that a wrapper is to be put over."""
    if isinstance(over, str):
        return {"name": over}
    # A ConfigDict is a mapping, but not an instance of Mapping.
    if not hasattr(over, "keys") or "name" not in over:
        raise ValueError(
            f"over={over!r} must be an encoding, the name of one, or a mapping of its name and "
            'keywords, {"name": ..., ...}'
        )
    return dict(over)


def _checked_keywords(name, settings, accepted):
    """Returns the scheme's own keywords, known numbers of NumPy and JAX as Python's."""
    # A NumPy number is no int or float, and with one of 32 bits a rule would compute in 32 bits.
    # An array would become a leaf of the module, which training changes.
    settings = {key: x.item() if _is_number(x) else x for key, x in settings.items()}
    allowed = [key for key in accepted if key not in _OFFERED]
    for key in settings:
        meant = _ELSEWHERE.get(key)
        if key == "dim" and "head_dim" not in accepted:
            meant = "model_dim"
        if meant in (*allowed, *_OFFERED):
            note = _LENGTHS if meant == "train_length" else ""
            raise TypeError(
                f"encoding {name!r} has no keyword {key!r}, did you mean {meant!r}?{note}"
            )
        if key not in allowed:
            valid = {*accepted, *_OFFERED}
            raise TypeError(f"encoding {name!r} has no keyword {key!r}{suggest(key, valid)}")
        if accepted[key].annotation in (bool, "bool"):  # "false" would count as True
            check_choice((True, False), **{key: settings[key]})
    return settings


def _is_number(x: Any) -> bool:
    """Returns whether ``x`` is a known number or bool of NumPy or JAX."""
    is_known = not isinstance(x, jax.core.Tracer)
    return is_known and isinstance(x, np.generic | np.ndarray | jax.Array) and x.ndim == 0


def suggest(word: str, valid: Iterable[str]) -> str:
    """Returns the end of an error about ``word``: the nearest valid word, and all of them."""
    close = difflib.get_close_matches(word.lower(), valid, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ";"
    return f"{hint} valid: {', '.join(sorted(valid))}"
