"""Writes, for each scheme, code that makes it and attends with it."""

import doctest
import inspect
from typing import Any

from flax import nnx

from experiments.studies.gallery import LAYERS
from posenc_jax import REGISTRY, Layers, make
from posenc_jax.encoding import Encoding
from posenc_jax.registry import PATTERNS, inner_keywords, keywords, lookup, own_keywords

# The sizes of the code's arrays, and by how much schemes extend the context.
SIZES = dict[str, Any](num_heads=4, num_kv_heads=4, head_dim=16, model_dim=64, train_length=256)
SIZES["factor"] = 4.0


def needed(name: str) -> dict[str, str]:
    """Returns the arguments that ``make`` needs for a scheme, as they are written in code."""
    parameters = keywords(lookup(name))
    required = [
        key
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty or parameter.name == "train_length"
    ]
    written = {n: str(SIZES[n]) for n in required if n in SIZES}
    if name in LAYERS:
        written["num_layers"] = str(LAYERS[name])
    if "rngs" in required:
        written["rngs"] = "nnx.Rngs(0)"
    inner = parameters["over"].default if "over" in own_keywords(name) else inspect.Parameter.empty
    if inner is not inspect.Parameter.empty:
        written = needed(inner_keywords(inner)["name"]) | written
    return written


def snippet(name: str) -> str:
    """Returns code with prompts, as in Python's shell, that makes a scheme and attends with it."""
    arguments = "".join(f", {key}={value}" for key, value in needed(name).items())
    built = f'posenc_jax.make("{name}"{arguments})'
    return _of_pattern(name, built) if name in PATTERNS else _of_scheme(name, built)


def _of_scheme(name: str, built: str) -> str:
    encoding = build(name)
    lines = ["import jax"]
    if "nnx" in built:
        lines.append("from flax import nnx")
    lines += [
        "import posenc_jax",
        "from posenc_jax import attend, positions",
        f"encoding = {built}",
        "here = encoding.at(positions.text(16))",
        "x_BTD = jax.random.normal(jax.random.key(0), (1, 16, 64))",
    ]
    if encoding.overrides("embed"):
        lines.append("x_BTD = here.embed(x_BTD)  # once, after the token embedding")
    content = ", x=x_BTD" if encoding.overrides("observe") else ""
    lines += [
        "q = k = v = x_BTD.reshape(1, 16, 4, 16)  # heads of 16 channels",
        f"attend(here, q, k, v{content}).shape",
    ]
    return _prompted(lines, "(1, 16, 4, 16)")


def _of_pattern(name: str, built: str) -> str:
    layers = LAYERS.get(name) or len(Layers.of(build(name)).pattern)
    lines = [
        "import jax.numpy as jnp",
        "from flax import nnx",
        "import posenc_jax",
        "from posenc_jax import positions",
        f"layers = {built}",
        "sizes = dict(vocab_size=64, model_dim=64, num_heads=4)",
        f"model = posenc_jax.Transformer(layers, num_layers={layers}, rngs=nnx.Rngs(0), **sizes)",
        "model(jnp.zeros((1, 16), jnp.int32), positions.text(16)).shape",
    ]
    return _prompted(lines, "(1, 16, 64)")


def _prompted(lines: list[str], result: str) -> str:
    return "\n".join([*(f">>> {line}" for line in lines), result])


def build(name: str) -> Encoding | Layers:
    """Builds a scheme with the arguments of its code."""
    given: dict[str, Any] = {key: eval(value, {"nnx": nnx}) for key, value in needed(name).items()}
    return make(name, **given)


def check(name: str) -> None:
    """Runs the code of a scheme.

    Raises:
      RuntimeError: it fails, or returns something else than it says.
    """
    test = doctest.DocTestParser().get_doctest(snippet(name), {}, REGISTRY[name], None, 0)
    said: list[str] = []
    if doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed:
        raise RuntimeError(f"the code of the page of {name!r} fails:\n{''.join(said)}")
