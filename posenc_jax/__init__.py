"""Offers positional encodings for Transformers, as Flax modules over pure functions.

Array names end in their shape, one letter per axis:

    B  batch            H  query heads          D  model width
    T  query tokens     K  key and value heads  A  position axes
    S  key tokens       C  channels of a head   G  query heads for each kv head
"""

import importlib
from typing import TYPE_CHECKING, Any

from posenc_jax.attention import Chunks, attend, combine, logits, rotate_keys, zigzag
from posenc_jax.encoding import Encoding, HeadShard, Side, Tile
from posenc_jax.registry import REGISTRY, make, signature
from posenc_jax.tokens import Tokens

if TYPE_CHECKING:
    from posenc_jax import functional, positions, pretrained
    from posenc_jax.costs import describe
    from posenc_jax.flax import linen
    from posenc_jax.flax.attention_fn import attention_fn
    from posenc_jax.hf import from_hf
    from posenc_jax.hf.pattern import layers_from_hf, sinks_from_hf
    from posenc_jax.model.cache import Cache
    from posenc_jax.model.decode import generate
    from posenc_jax.model.layers import Layers
    from posenc_jax.model.loss import cross_entropy
    from posenc_jax.model.transformer import Transformer

__all__ = [
    "REGISTRY",
    "Cache",
    "Chunks",
    "Encoding",
    "HeadShard",
    "Layers",
    "Side",
    "Tile",
    "Tokens",
    "Transformer",
    "attend",
    "attention_fn",
    "combine",
    "cross_entropy",
    "describe",
    "from_hf",
    "functional",
    "generate",
    "layers_from_hf",
    "linen",
    "logits",
    "make",
    "positions",
    "pretrained",
    "rotate_keys",
    "signature",
    "sinks_from_hf",
    "zigzag",
]
__version__ = "0.3.0"

# Names that are imported when they are first asked for, and the module of each.
_LATER = {
    "Cache": "posenc_jax.model.cache",
    "Layers": "posenc_jax.model.layers",
    "Transformer": "posenc_jax.model.transformer",
    "attention_fn": "posenc_jax.flax.attention_fn",
    "cross_entropy": "posenc_jax.model.loss",
    "describe": "posenc_jax.costs",
    "from_hf": "posenc_jax.hf",
    "generate": "posenc_jax.model.decode",
    "layers_from_hf": "posenc_jax.hf.pattern",
    "sinks_from_hf": "posenc_jax.hf.pattern",
}
_MODULES = ("flax", "functional", "hf", "model", "positions", "pretrained")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"posenc_jax.{name}")
    if name == "linen":
        return importlib.import_module("posenc_jax.flax.linen")
    if name not in _LATER:
        raise AttributeError(f"module 'posenc_jax' has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
