"""Every scheme by name, and ``make``, which builds one."""

import difflib
import importlib
import inspect
from collections.abc import Callable

import jax
from flax import nnx

from posenc_jax.encoding import Encoding

# One line a scheme: "module:class or function", imported when it is first asked for.
REGISTRY = {
    "nope": "posenc_jax.encoding:Encoding",
    "sinusoidal": "posenc_jax.encodings.sinusoidal:Sinusoidal",
    "learned": "posenc_jax.encodings.learned:Learned",
    "seqpe": "posenc_jax.encodings.seqpe:SeqPE",
    "randomized": "posenc_jax.encodings.randomized:Randomized",
    "rope": "posenc_jax.encodings.rope:RoPE",
    "pi": "posenc_jax.encodings.rope:pi",
    "ntk": "posenc_jax.encodings.rope:ntk",
    "dynamic_ntk": "posenc_jax.encodings.rope:dynamic_ntk",
    "yarn": "posenc_jax.encodings.rope:yarn",
    "hope": "posenc_jax.encodings.rope:hope",
    "p_rope": "posenc_jax.encodings.rope:p_rope",
    "alibi": "posenc_jax.encodings.alibi:ALiBi",
    "t5": "posenc_jax.encodings.t5:T5",
    "kerple_log": "posenc_jax.encodings.kerple:KerpleLog",
    "fire": "posenc_jax.encodings.fire:FIRE",
    "transformer_xl": "posenc_jax.encodings.transformer_xl:TransformerXL",
}

# What make() offers to every scheme; each constructor takes those it has a parameter for.
_MODEL_ARGUMENTS = ("num_heads", "num_kv_heads", "head_dim", "model_dim", "train_length", "rngs")


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
) -> Encoding:
    """Builds the encoding called ``name``.

    Args:
      name: a key of ``REGISTRY``.
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
        for key in _MODEL_ARGUMENTS
        if key in accepted and key not in given and accepted[key].default is inspect.Parameter.empty
    ]
    if missing:
        raise ValueError(f"make({name!r}, ...) needs {', '.join(missing)}")
    if rngs is None or num_layers is None or not getattr(build, "per_layer", False):
        return build(**given, **own)
    del given["rngs"]
    layer_keys = jax.random.split(rngs.params(), num_layers)
    return jax.vmap(lambda key: build(rngs=nnx.Rngs(key), **given, **own))(layer_keys)


def lookup(name: str) -> Callable[..., Encoding]:
    """The class or function registered under ``name``."""
    if name not in REGISTRY:
        raise ValueError(f"unknown encoding {name!r}{_suggest(name, REGISTRY)}")
    module, attribute = REGISTRY[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def own_keywords(name: str) -> tuple[str, ...]:
    """The keywords only this scheme has, those ``make`` passes through."""
    return tuple(key for key in keywords(lookup(name)) if key not in _MODEL_ARGUMENTS)


def keywords(build: Callable) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a scheme's constructor, which are all it has."""
    # The metaclass of nnx.Module hides the constructor's own signature.
    constructor = build.__init__ if isinstance(build, type) else build  # type: ignore[misc]
    signature = inspect.signature(constructor)
    return {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _check_keywords(name, own, accepted):
    allowed = [key for key in accepted if key not in _MODEL_ARGUMENTS]
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
