"""Loads the encoding of a published model with the table of positions in its checkpoint."""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.absolute.learned import Learned
from posenc_jax.hf import from_hf
from posenc_jax.hf.config import flattened
from posenc_jax.hf.families import family_of
from posenc_jax.pretrained.files import SafetensorsFiles, find


def load_encoding(path: str) -> Learned:
    """Returns the learned positions of a published model, such as GPT-2 or BERT.

    Args:
      path: a folder with ``config.json`` and safetensors, or a name on the Hugging Face hub.

    Raises:
      ValueError: there is no such model, it has no table of positions, or the files do not have
        the one of its config.
    """
    files = SafetensorsFiles(find(path))
    config = files.config()
    family, encoding = family_of(flattened(config, {})), from_hf(config, rngs=nnx.Rngs(0))
    if not isinstance(encoding, Learned):
        raise ValueError(f"{path} has {type(encoding).__name__}, which is not in its weights")
    names = [name for name in files.shapes if f".{name}".endswith(f".{family.table}")]
    rows = slice(family.reserved, family.reserved + len(encoding.table))
    if len(names) != 1 or files.shapes[names[0]] != (rows.stop, encoding.table.shape[1]):
        raise ValueError(
            f"{path} must have one tensor that ends in {family.table}, of {rows.stop} rows and "
            f"{encoding.table.shape[1]} columns; it has {[files.shapes[name] for name in names]}"
        )
    encoding.table[...] = jnp.asarray(files.read(names[0], rows), encoding.table.dtype)
    return encoding
