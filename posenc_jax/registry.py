"""Every scheme by name, and ``make``, which builds one."""

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args, overload

import jax
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.layers import Layers

# What differs from layer to layer: ``make`` returns Layers for these names, and else an Encoding.
Pattern = Literal["irope", "rnope_swa", "dual_base"]
PATTERNS: tuple[str, ...] = get_args(Pattern)

# One line a scheme: "module:class or function", imported when it is first asked for.
REGISTRY = {
    "nope": "posenc_jax.encoding:Encoding",
    "sinusoidal": "posenc_jax.encodings.sinusoidal:Sinusoidal",
    "learned": "posenc_jax.encodings.learned:Learned",
    "sinusoidal_2d": "posenc_jax.encodings.sinusoidal_2d:Sinusoidal2D",
    "learned_2d": "posenc_jax.encodings.learned_2d:Learned2D",
    "seqpe": "posenc_jax.encodings.seqpe:SeqPE",
    "randomized": "posenc_jax.encodings.randomized:Randomized",
    "rope": "posenc_jax.encodings.rope:RoPE",
    "axial_rope": "posenc_jax.encodings.axial_rope:axial_rope",
    "pi": "posenc_jax.encodings.rope:pi",
    "dynamic_pi": "posenc_jax.encodings.rope:dynamic_pi",
    "ntk": "posenc_jax.encodings.rope:ntk",
    "ntk_critical": "posenc_jax.encodings.rope:ntk_critical",
    "dynamic_ntk": "posenc_jax.encodings.rope:dynamic_ntk",
    "ntk_by_parts": "posenc_jax.encodings.rope:ntk_by_parts",
    "llama3": "posenc_jax.encodings.rope:llama3",
    "yarn": "posenc_jax.encodings.rope:yarn",
    "dynamic_yarn": "posenc_jax.encodings.rope:dynamic_yarn",
    "longrope": "posenc_jax.encodings.longrope:LongRoPE",
    "longrope2": "posenc_jax.encodings.longrope:longrope2",
    "hope": "posenc_jax.encodings.rope:hope",
    "p_rope": "posenc_jax.encodings.rope:p_rope",
    "clipped_rope": "posenc_jax.encodings.rope:clipped_rope",
    "resonance": "posenc_jax.encodings.rope:resonance",
    "xpos": "posenc_jax.encodings.xpos:XPos",
    "fope": "posenc_jax.encodings.fope:FoPE",
    "pope": "posenc_jax.encodings.pope:PoPE",
    "rerope": "posenc_jax.encodings.rerope:ReRoPE",
    "leaky_rerope": "posenc_jax.encodings.rerope:LeakyReRoPE",
    "self_extend": "posenc_jax.encodings.self_extend:SelfExtend",
    "dual_chunk": "posenc_jax.encodings.dual_chunk:DualChunk",
    "alibi": "posenc_jax.encodings.alibi:ALiBi",
    "alibi_2d": "posenc_jax.encodings.alibi_2d:ALiBi2D",
    "t5": "posenc_jax.encodings.t5:T5",
    "kerple_log": "posenc_jax.encodings.kerple:KerpleLog",
    "kerple_power": "posenc_jax.encodings.kerple:KerplePower",
    "sandwich": "posenc_jax.encodings.sandwich:Sandwich",
    "fire": "posenc_jax.encodings.fire:FIRE",
    "shaw": "posenc_jax.encodings.shaw:Shaw",
    "transformer_xl": "posenc_jax.encodings.transformer_xl:TransformerXL",
    "deberta": "posenc_jax.encodings.deberta:DeBERTa",
    "dape": "posenc_jax.encodings.dape:DAPE",
    "cope": "posenc_jax.encodings.cope:CoPE",
    "fox": "posenc_jax.encodings.fox:FoX",
    "path": "posenc_jax.encodings.path:PaTH",
    "selective_rope": "posenc_jax.encodings.selective_rope:SelectiveRoPE",
    "logn": "posenc_jax.encodings.logit_scale:LogN",
    "ssmax": "posenc_jax.encodings.logit_scale:SSMax",
    "llama4_temperature": "posenc_jax.encodings.logit_scale:Llama4Temperature",
    "irope": "posenc_jax.encodings.patterns:irope",
    "rnope_swa": "posenc_jax.encodings.patterns:rnope_swa",
    "dual_base": "posenc_jax.encodings.patterns:dual_base",
}

# What make() offers to every scheme; each constructor takes those it has a parameter for.
MODEL_ARGUMENTS = ("num_heads", "num_kv_heads", "head_dim", "model_dim", "train_length", "rngs")


@overload
def make(name: Pattern, **arguments: Any) -> Layers: ...
@overload
def make(name: str, **arguments: Any) -> Encoding: ...


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
    **own,
) -> Encoding | Layers:
    """Builds the encoding called ``name``, or the pattern of layers.

    Args:
      name: a key of ``REGISTRY``; those in ``PATTERNS`` give Layers.
      num_heads: query heads of one layer.
      num_kv_heads: key and value heads of one layer. Default: as many.
      head_dim: channels of one head.
      model_dim: width of the residual stream.
      train_length: tokens in one training sequence.
      num_layers: with it, a scheme with per-layer parameters gets one independent draw a layer,
        stacked along a leading axis, as ``Transformer`` wants it.
      rngs: where a scheme with parameters takes its initial values from.
      **own: the scheme's own keywords.

    Raises:
      ValueError: the name is unknown, or the scheme needs an argument that was not given, or a
        value is out of range.
      TypeError: a keyword the scheme does not have.
    """
    build = lookup(name)
    accepted = keywords(build)
    sizes = dict(
        num_heads=num_heads,
        num_kv_heads=num_heads if num_kv_heads is None else num_kv_heads,
        head_dim=head_dim,
        model_dim=model_dim,
        train_length=train_length,
    )
    for key, value in sizes.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{key}={value!r} must be a positive int")
    _check_keywords(name, own, accepted)
    given = {k: v for k, v in (sizes | {"rngs": rngs}).items() if v is not None and k in accepted}
    missing = [
        f"{key}="
        for key in MODEL_ARGUMENTS
        if key in accepted and key not in given and accepted[key].default is inspect.Parameter.empty
    ]
    if missing:
        raise ValueError(f"make({name!r}, ...) needs {', '.join(missing)}")
    if rngs is None or num_layers is None or not _is_per_layer(build, own):
        return build(**given, **own)
    del given["rngs"]
    layer_keys = jax.random.split(rngs.params(), num_layers)
    return jax.vmap(lambda key: build(rngs=nnx.Rngs(key), **given, **own))(layer_keys)


def lookup(name: str) -> Callable[..., Any]:
    """The class or function registered under ``name``."""
    if name not in REGISTRY:
        raise ValueError(f"unknown encoding {name!r}{_suggest(name, REGISTRY)}")
    module, attribute = REGISTRY[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def own_keywords(name: str) -> tuple[str, ...]:
    """The keywords only this scheme has, those ``make`` passes through."""
    return tuple(key for key in keywords(lookup(name)) if key not in MODEL_ARGUMENTS)


def keywords(build: Callable) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a scheme's constructor, which are all it has.

    One that takes ``**sizes`` takes all that ``make`` offers, for the scheme it is put over.
    """
    # The metaclass of nnx.Module hides the constructor's own signature.
    constructor = build.__init__ if isinstance(build, type) else build  # type: ignore[misc]
    signature = inspect.signature(constructor)
    named, of_inner = {}, {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            named[name] = parameter
        elif name == "sizes":
            optional = inspect.Parameter("size", inspect.Parameter.KEYWORD_ONLY, default=None)
            of_inner = dict.fromkeys(MODEL_ARGUMENTS, optional)
    return of_inner | named


def _is_per_layer(build, own) -> bool:
    """Whether what is built, or what it is put over by name, has parameters for each layer."""
    per_layer = getattr(build, "per_layer", False)
    if "over" not in keywords(build):
        return per_layer
    over = own.get("over", keywords(build)["over"].default)
    if isinstance(over, Encoding):
        if per_layer and over.per_layer:
            raise ValueError(
                f"over={type(over).__name__}(...) has parameters for each layer: give its name, or "
                "a mapping of its name and keywords, to build both for each layer"
            )
        return per_layer
    name, rest = (over, {}) if isinstance(over, str) else (over["name"], dict(over))
    return per_layer or _is_per_layer(lookup(name), rest)


def _check_keywords(name, own, accepted):
    allowed = [key for key in accepted if key not in MODEL_ARGUMENTS]
    for key in own:
        if key not in allowed:
            raise TypeError(
                f"encoding {name!r} has no keyword {key!r}{_suggest(key, allowed)}"
                if allowed
                else f"encoding {name!r} has no keyword {key!r}; it has none of its own"
            )


def _suggest(word, valid) -> str:
    close = difflib.get_close_matches(word, valid, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ";"
    return f"{hint} valid: {', '.join(sorted(valid))}"
