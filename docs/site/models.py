"""Says which published models have a scheme, by what ``posenc_jax.hf`` reads from their configs."""

import collections
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from flax import nnx

from posenc_jax import REGISTRY, Encoding, layers_from_hf
from posenc_jax.encodings.lib import axes as allocations
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.hf.families import having, reading
from posenc_jax.hf.refused import REFUSED
from posenc_jax.hf.sections import TYPES

# A config of each model type, as its class has it by default.
CONFIGS = Path(__file__).parents[2] / "tests/golden/hf_model_types.json"
# What a rotary section says, and the scheme that it means.
SECTIONS = {name: kind.scheme for name, kind in TYPES.items()}
_CLASSES = {target.partition(":")[2]: name for name, target in reversed(REGISTRY.items())}


@cache
def model_types() -> dict[str, list[str]]:
    """Returns the model types of transformers that have each scheme in some of their layers."""
    types = collections.defaultdict(set)
    for model_type, model in json.loads(CONFIGS.read_text())["models"].items():
        for encoding in _encodings(model["config"]):
            for name in _names(encoding):
                types[name].add(model_type)
    types["alibi"].update(reading("alibi"))
    types["t5"].update(having(scheme="t5"))
    for name in ("lerope", "log_scale"):
        types[name].update(["mistral_large4_text"])
    for model_type, reason in REFUSED.items():
        for name in re.findall(r"make\('(\w+)'", reason):
            types[name].add(model_type)
    return {name: sorted(which) for name, which in types.items()}


def _encodings(config: dict[str, Any]) -> list[Encoding]:
    try:
        return list(layers_from_hf(config, rngs=nnx.Rngs(0)).distinct)
    except ValueError:
        return []  # read by from_hf, a layer at a time


def _names(encoding: Encoding) -> list[str]:
    """Returns the names of an encoding and of those beneath it."""
    if isinstance(encoding, Wrapper):
        return [_CLASSES.get(type(encoding).__name__, ""), *_names(encoding.inner)]
    if isinstance(encoding, RoPE):
        return [_rotary(encoding)]
    return [_CLASSES.get(type(encoding).__name__, "")]


def _rotary(encoding: RoPE) -> str:
    if encoding.axes is not None:
        axes: Any = encoding.axes
        sections = tuple(axes.count(axis) for axis in sorted(set(axes)))
        if axes == allocations.chunked(sections):
            return "mrope"
        # Time, the first axis, has the slowest pairs in VideoRoPE alone.
        return "videorope" if set(axes[-sections[0] :]) == {0} else "i_mrope"
    return _CLASSES.get(type(encoding).__name__, "rope")
