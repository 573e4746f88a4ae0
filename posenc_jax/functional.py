"""Offers encodings as pure functions of arrays, for plain JAX, Equinox, Haiku and other hosts.

The parts that most models need are single functions,

.. code-block:: python

    cos, sin = functional.rope_tables(positions_BT, head_dim=64, base=500000.0)
    q_BTHC, k_BSKC = (functional.apply_rope(x, cos, sin) for x in (q_BTHC, k_BSKC))
    bias_BHTS = functional.alibi_bias(positions_BT, positions_BS, num_heads=8)

and every scheme of the registry is pure functions, the parameters apart:

.. code-block:: python

    fox = functional.scheme("fox", num_heads=8, model_dim=512)
    params = fox.init(jax.random.key(0))
    here = fox.encoding(params).at(positions_BT)
    out_BTHC = attend(here, q_BTHC, k_BSKC, v_BSKC, x=x_BTD)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.core import FrozenDict

from posenc_jax.checks import check_one_layer, checked_positions, has_floats, type_of
from posenc_jax.encoding import HOOKS, Encoding, reads_last
from posenc_jax.encodings.bias.alibi import ALiBi
from posenc_jax.encodings.bias.t5 import check_buckets, t5_bucket
from posenc_jax.encodings.rotary.frequencies.base import Frequencies
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.pairs import Pairs, Side
from posenc_jax.registry import check_scheme, make
from posenc_jax.tokens import Tokens

Params = dict[str, Any]


def rope_tables(
    positions: jax.Array,
    head_dim: int,
    *,
    base: float = 10000.0,
    frequencies: Frequencies | None = None,
    length: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns RoPE's cosines and sines, each float32 ``[B, T, head_dim / 2]``.

    They are exact to 5e-7 at every int32 position, as a float32 product of position and frequency
    is not, and include the attention factor of rules that have one, such as YaRN.

    Args:
      positions: int or float32, ``[B, T]``.
      head_dim: how many channels of a head rotate.
      base: base of the frequencies.
      frequencies: a rule of ``posenc_jax.encodings.rotary.frequencies``, such as
        ``YaRNFrequencies(train_length=4096, factor=4.0)``; by default the frequencies of RoPE.
      length: the length that a rule such as DynamicNTK adapts to; by default one more than the
        largest position of the row.
    """
    rope = RoPE(head_dim=head_dim, base=base, frequencies=frequencies)
    tables = rope.at(positions, length=length).tokens.made
    return tuple(table_BT1P[:, :, 0] for table_BT1P in tables)


def apply_rope(
    x_BTHC: jax.Array, cos_BTP: jax.Array, sin_BTP: jax.Array, *, layout: str = "half"
) -> jax.Array:
    """Rotates the first ``2 P`` channels of queries or keys, and returns the others unchanged.

    Args:
      x_BTHC: queries or keys.
      cos_BTP: cosines, from ``rope_tables`` or from your model; B may be 1.
      sin_BTP: sines.
      layout: which channels form a pair. "half" pairs i with i + P (GPT-NeoX, Llama in Hugging
        Face), "interleaved" pairs 2 i with 2 i + 1 (the paper, GPT-J, Llama as released by Meta).
    """
    arrays = x_BTHC, cos_BTP, sin_BTP
    x_shape, shape, sin_shape = map(np.shape, arrays)
    is_of_tokens = len(x_shape) == 4 and shape[:-1] in (x_shape[:2], (1, x_shape[1]))
    is_table = is_of_tokens and shape == sin_shape and 2 * shape[-1] <= x_shape[-1]
    if not is_table or not all(map(has_floats, arrays)):
        x, cos, sin = (f"{type_of(array)}{list(np.shape(array))}" for array in arrays)
        raise ValueError(
            f"cos_BTP, {cos}, and sin_BTP, {sin}, must be [B, T, P] for x_BTHC, {x}, all of "
            "floating-point numbers, as rope_tables gives them; B may be 1, and P at most C / 2: "
            "of tables that have each pair twice, as in Hugging Face, pass cos[..., : C // 2] and "
            "sin[..., : C // 2] with layout='half'"
        )
    rope = RoPE(head_dim=x_shape[-1], rotary_dim=2 * shape[-1], layout=layout)
    return rope.rotate_by(x_BTHC, cos_BTP[:, :, None], sin_BTP[:, :, None])


def alibi_bias(q_positions: jax.Array, k_positions: jax.Array, *, num_heads: int) -> jax.Array:
    """Returns ALiBi's (2108.12409) bias, float32 ``[B, H, T, S]``, at ``[B, T]`` and ``[B, S]``."""
    pairs = _pairs(q_positions, k_positions, num_heads)
    return ALiBi(num_heads=num_heads).score(jnp.zeros(()), pairs)


def t5_bias(
    table_RH: jax.Array,
    q_positions: jax.Array,
    k_positions: jax.Array,
    *,
    bidirectional: bool = False,
    max_distance: int = 128,
) -> jax.Array:
    """Returns T5's bias, float32 ``[B, H, T, S]``.

    Args:
      table_RH: the trained table, a row for each bucket and a column for each head, as in T5's
        ``relative_attention_bias``.
      q_positions: ``[B, T]``.
      k_positions: ``[B, S]``.
      bidirectional: whether half of the buckets are for keys ahead of the query, as in an encoder.
      max_distance: distance from which on all share the last bucket.
    """
    if not has_floats(table_RH) or np.ndim(table_RH) != 2:
        raise ValueError(
            f"table_RH must be a floating-point array [buckets, H], not {type_of(table_RH)} of "
            f"shape {np.shape(table_RH)}"
        )
    check_buckets("len(table_RH)", len(table_RH), max_distance, bidirectional)
    distance_B1TS = _pairs(q_positions, k_positions, 1).distance()
    bucket_B1TS = t5_bucket(distance_B1TS, len(table_RH), max_distance, bidirectional)
    return jnp.moveaxis(jnp.asarray(table_RH, jnp.float32)[bucket_B1TS[:, 0]], -1, 1)


def score_mod(encoding: Encoding, *, num_heads: int) -> Callable[..., jax.Array]:
    """Returns a scheme as a function of one logit, FlexAttention's ``score_mod`` (2412.05496).

    Args:
      encoding: a scheme that changes a logit by the positions of its query and key, and by nothing
        else: ALiBi, T5, KERPLE, FIRE, Sandwich.
      num_heads: number of query heads in one layer.

    Returns:
      A function ``(logit, head, q_position, k_position) -> logit`` of scalars, for ``jax.vmap`` or
      a kernel of your own.

    Raises:
      ValueError: the scheme needs more than that, such as queries, keys, other logits or the
        length, or it was made for another number of heads.
    """
    check_one_layer(encoding)

    def score(logit, head, q_position, k_position, index):
        positions = (jnp.reshape(position, (1, 1)) for position in (q_position, k_position))
        side = Side(jnp.reshape(head, (1,)), num_heads, is_query=True)
        q_tokens, k_tokens = (encoding.at(place, index=index).tokens for place in positions)
        pairs = Pairs.of_tokens(q_tokens, k_tokens, side)
        return encoding.score(jnp.reshape(logit, (1, 1, 1, 1)), pairs).reshape(())

    others = {*HOOKS} - {"moved", "prepare", "score"}
    # A token by itself has another length and another index than among others.
    index = np.zeros((1, 1), np.int32)
    try:
        reads_more = (
            any(map(encoding.overrides, others))
            or encoding.whole_rows
            or encoding.reads_length()
            or reads_last(score, 0.0, 0, 0, 0, index)
        )
    except (AttributeError, TypeError):  # These pairs have no queries and keys.
        reads_more = True
    if reads_more:
        raise ValueError(
            f"{type(encoding).__name__} needs more than a logit and two positions: use "
            "posenc_jax.attend"
        )
    return functools.partial(score, index=None)


@dataclasses.dataclass(frozen=True)
class Scheme:
    """Holds a scheme of the registry as pure functions, the parameters apart.

    Parameters are nested dictionaries of arrays, for optax and for your own modules. Constants that
    a scheme draws once (FoPE's) are among them, and get a gradient of 0.

    Attributes:
      name: a key of ``posenc_jax.REGISTRY``.
      keywords: keyword arguments of ``posenc_jax.make`` for this scheme.
    """

    name: str
    keywords: FrozenDict

    def init(self, key: jax.Array) -> Params:
        """Returns the initial parameters; an empty dictionary where the scheme has none."""
        return nnx.to_pure_dict(nnx.split(self._made(key))[1])

    def encoding(self, params: Params) -> Encoding:
        """Returns the module with these parameters, for the functions that take an encoding."""
        structure, state = nnx.split(jax.eval_shape(self._made, jax.random.key(0)))
        given, wanted = _shapes(params), _shapes(state)
        if given != wanted:
            path = min(given.items() ^ wanted.items())[0]
            raise ValueError(
                f"params of {self.name} must have {path} of shape {wanted.get(path, 'nothing')}, "
                f"not {given.get(path, 'nothing')}: make them by init(key) of a scheme with the "
                "same keywords"
            )
        nnx.replace_by_pure_dict(state, params)
        return jax.tree.map(
            lambda leaf: leaf if isinstance(leaf, nnx.Param) else jax.lax.stop_gradient(leaf),
            nnx.merge(structure, state),
            is_leaf=_is_variable,
        )

    def _made(self, key):
        return make(self.name, rngs=nnx.Rngs(key), **self.keywords)


def scheme(name: str, **keywords: Any) -> Scheme:
    """Returns the scheme called ``name`` as pure functions; the keywords are as in ``make``."""
    check_scheme(name)
    return Scheme(name, FrozenDict(keywords))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array of a tree, by the names that lead to it."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=_is_variable)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
    return {name(path): np.shape(leaf) for path, leaf in leaves}


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _pairs(q_positions: Any, k_positions: Any, num_heads: int) -> Pairs:
    """Returns pairs of positions alone, for biases that read nothing else."""
    q_tokens, k_tokens = (Tokens(checked_positions(p)) for p in (q_positions, k_positions))
    return Pairs.of_tokens(q_tokens, k_tokens, Side(None, num_heads, is_query=True))
