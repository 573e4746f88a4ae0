"""Offers positional encodings for Transformers, as Flax modules over pure functions.

Array names end in their shape, one letter per axis:

    B  batch            H  query heads          D  model width
    T  query tokens     K  key and value heads  A  position axes
    S  key tokens       C  channels of a head   G  query heads for each kv head
"""

from posenc_jax.attention import Chunks, attend, logits, rotate_keys, zigzag
from posenc_jax.describe import describe
from posenc_jax.encoding import Encoding, HeadShard, Side, Tile
from posenc_jax.flax import linen
from posenc_jax.flax.attention_fn import attention_fn
from posenc_jax.hf import from_hf
from posenc_jax.hf.pattern import layers_from_hf, sinks_from_hf
from posenc_jax.model.cache import Cache
from posenc_jax.model.decode import generate
from posenc_jax.model.layers import Layers
from posenc_jax.model.loss import cross_entropy
from posenc_jax.model.transformer import Transformer
from posenc_jax.registry import REGISTRY, make
from posenc_jax.tokens import Tokens

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
    "cross_entropy",
    "describe",
    "from_hf",
    "generate",
    "layers_from_hf",
    "linen",
    "logits",
    "make",
    "rotate_keys",
    "sinks_from_hf",
    "zigzag",
]
__version__ = "0.3.0"
