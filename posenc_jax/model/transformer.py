"""Defines a minimal decoder-only Transformer that takes any encoding.

The model has pre-norm with RMSNorm (1910.07467), grouped-query attention (2305.13245), SwiGLU
(2002.05202), and an output layer tied to the embedding. Keywords of ``Transformer`` select what
published models of this shape do differently.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from posenc_jax.attention import Implementation, check_implementation
from posenc_jax.attention.cpu import by_rows
from posenc_jax.attention.splash import ROWS
from posenc_jax.checks import (
    as_array,
    check_choice,
    check_divides,
    check_ids,
    check_rngs,
    check_sizes,
    count_of,
)
from posenc_jax.encoding import Encoding
from posenc_jax.lookup import rows
from posenc_jax.model.block import Block, Settings, by_token
from posenc_jax.model.cache import Cache
from posenc_jax.model.layers import Layers, Window
from posenc_jax.model.slots import Past
from posenc_jax.model.stacking import Layer, by_layer, by_place, drawn_blocks, is_by_layer
from posenc_jax.positions import text


class Transformer(nnx.Module):
    """Computes logits from token ids, as a decoder-only Transformer.

    Args:
      encoding: one encoding for all layers, or a pattern that the layers repeat (a sequence such as
        ``[rope, rope, rope, nope]``, or ``Layers``, which has windows too). An instance that
        occurs twice shares one set of parameters. A scheme with per-layer parameters must be
        stacked: ``make(..., num_layers=)``.
      vocab_size: number of token ids.
      model_dim: width of the residual stream.
      num_layers: number of blocks.
      num_heads: number of query heads.
      num_kv_heads: number of kv heads, a divisor of ``num_heads``. Default: ``num_heads``.
      head_dim: number of channels in one head. Default: ``model_dim / num_heads``.
      mlp_dim: hidden width of the feed-forward network. Default: 8/3 of ``model_dim``, rounded up
        to a multiple of 64.
      norm_epsilon: what every norm adds to the mean square.
      qk_norm: how queries and keys are normalised before rotation: "head" normalises each head by
        itself (Qwen3), "all" all heads together (OLMo 2), None not at all.
      qkv_bias: whether to add a bias to queries, keys and values (Qwen2).
      sinks: whether queries may attend to nothing: "head" gives each head one more logit, which has
        no key and is learned (gpt-oss), "token" computes it from the input that each query is
        projected from (Inkling 2), None gives none. Or a sequence of these, which the layers
        repeat: ``(None, "head")`` for sinks in every second layer.
      post_norm: whether to normalise the outputs of attention and the feed-forward network instead
        of their inputs (OLMo 2).
      tied: whether the embedding is also the output layer, which otherwise has its own matrix.
      causal: whether queries see no later tokens. False is an encoder, such as a ViT.
      dtype: type of the computation.
      param_dtype: type of all parameters but the encoding's.
      scan: whether to compile the blocks of one repeat of the pattern and loop over the repeats
        (``lax.scan``), for deep models.
      remat: whether to recompute each block in the backward pass, to save memory.
      implementation: how attention is computed, see ``attend``.
      rngs: initial values, N(0, 0.02), with the two projections into the residual stream scaled
        by ``1 / sqrt(2 num_layers)`` as in GPT-2.

    Attributes:
      encodings: the distinct encodings that layers share, at least in part; None instead of a
        per-layer scheme, which the layers hold themselves.
      layers: a :class:`Layer` for each layer, or under ``scan`` for each place of the pattern.
      unembedding: the output layer's own matrix, ``[vocab_size, model_dim]``; None if it is tied.
    """

    block = Block

    def __init__(
        self,
        encoding: Encoding | Sequence[Encoding] | Layers,
        *,
        vocab_size: int,
        model_dim: int,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        mlp_dim: int | None = None,
        norm_epsilon: float = 1e-6,
        qk_norm: str | None = None,
        qkv_bias: bool = False,
        sinks: str | Sequence[str | None] | None = None,
        post_norm: bool = False,
        tied: bool = True,
        causal: bool = True,
        dtype: str = "float32",
        param_dtype: str = "float32",
        scan: bool = False,
        remat: bool = False,
        implementation: str | Implementation | None = None,
        rngs: nnx.Rngs,
    ):
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_sizes(vocab_size=vocab_size, model_dim=model_dim, num_layers=num_layers)
        check_sizes(num_heads=num_heads, num_kv_heads=num_kv_heads)
        check_sizes(head_dim=head_dim, mlp_dim=mlp_dim)
        check_rngs(rngs)
        check_divides(num_kv_heads=num_kv_heads, num_heads=num_heads)
        if head_dim is None:
            check_divides(num_heads=num_heads, model_dim=model_dim)
        check_choice(("head", "all", None), qk_norm=qk_norm)
        kinds_of_sinks = _sinks_of_layers(sinks, num_layers)
        check_implementation(implementation)
        head_dim = model_dim // num_heads if head_dim is None else head_dim
        mlp_dim = usual_mlp_dim(model_dim) if mlp_dim is None else mlp_dim
        settings = Settings(
            model_dim=model_dim,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            mlp_dim=mlp_dim,
            out_std=0.02 * (2 * num_layers) ** -0.5,
            norm_epsilon=norm_epsilon,
            qk_norm=qk_norm,
            qkv_bias=qkv_bias,
            post_norm=post_norm,
            dtype=jnp.dtype(dtype),
            param_dtype=jnp.dtype(param_dtype),
        )

        def block(key, sinks):
            return self.block(settings, sinks, nnx.Rngs(key))

        def table():
            table_VD = 0.02 * jax.random.normal(rngs.params(), (vocab_size, model_dim))
            return nnx.Param(table_VD.astype(param_dtype))

        self.embedding = table()
        # Drawn together, so that a model has the same numbers with and without scan.
        blocks = drawn_blocks(block, jax.random.split(rngs.params(), num_layers), kinds_of_sinks)
        self.final_norm = settings.norm(model_dim, rngs)
        self.unembedding = None if tied else table()
        self.num_layers, self.num_heads, self.num_kv_heads = num_layers, num_heads, num_kv_heads
        self.head_dim, self.causal, self.dtype = head_dim, causal, dtype
        self.scan, self.remat, self.implementation = scan, remat, implementation
        self._arrange(encoding, by_place(blocks, num_layers) if scan else blocks)

    def under(self, encoding: Encoding | Sequence[Encoding] | Layers) -> "Transformer":
        """Returns this model with another encoding or pattern in place of its own."""
        other = jax.tree.map(lambda x: x, self)
        other._arrange(encoding, [layer.block for layer in other.layers])
        return other

    def _arrange(self, encoding, blocks):
        """Puts the blocks, stacks of layers under ``scan``, into layers under an encoding."""
        pattern = Layers.of(encoding)
        pattern.check(self.num_layers)
        places = len(pattern.pattern)
        if self.scan and len(blocks) != places:
            blocks = by_place(by_layer(blocks, self.num_layers), places)
        layers = [
            Layer(pattern, block, range(place, self.num_layers, len(blocks)), self.scan)
            for place, block in enumerate(blocks)
        ]
        shared = [None if is_by_layer(encoding) else encoding for encoding in pattern.distinct]
        self.encodings, self.layers = nnx.List(shared), nnx.List(layers)

    def __call__(self, inputs, positions=None, segment_ids=None, **options):
        """Returns float32 logits ``[B, T, vocab_size]``; see ``hidden`` for the arguments."""
        return self.unembed(self.hidden(inputs, positions, segment_ids, **options))

    def embed(self, inputs):
        """Returns what the first block reads, ``[B, T, model_dim]`` in ``dtype``.

        Here ``inputs`` are int token ids ``[B, T]``; a subclass takes any pytree. An id outside of
        the vocabulary raises ValueError; under ``jax.jit``, where values are not known, it reads
        NaN, never another token's row.
        """
        ids_BT = _ids(inputs, self.embedding.shape[0])
        table_VD = self.embedding[...].astype(self.dtype)
        return rows(table_VD, ids_BT, mode="fill", fill_value=jnp.nan)

    def unembed(self, x_BTD):
        """Returns float32 logits: applies the output layer to the result of ``hidden``."""
        table_VD = self.output_table.astype(self.dtype)
        return by_token(lambda x: by_rows(x, table_VD), x_BTD)

    @property
    def output_table(self) -> jax.Array:
        """Returns the output layer, ``[vocab_size, model_dim]``, as ``cross_entropy`` takes it."""
        return (self.embedding if self.unembedding is None else self.unembedding)[...]

    def aux_loss(self, key):
        """Returns the sum of the encodings' own training objectives."""
        return sum(
            encoding.aux_loss(jax.random.fold_in(key, i))
            for i, encoding in enumerate(self.distinct())
        )

    def hidden(
        self, inputs, positions=None, segment_ids=None, *, index=None, length=None, key=None
    ) -> jax.Array:
        """Returns what the output layer reads, ``[B, T, model_dim]`` in ``dtype``.

        The output layer multiplies by the transpose of ``output_table``; a loss that does so piece
        by piece, such as ``cross_entropy``, never holds all logits.

        Args:
          inputs: what ``embed`` takes, int token ids ``[B, T]``.
          positions: whole numbers or float32 ``[B, T]`` or ``[B, T, A]``; ``B`` may be 1. Where
            there are neither segments nor an index, they are by default ``0 .. T - 1``, as of text.
          segment_ids: int ``[B, T]``: tokens see only their own segment.
          index: int32 ``[B, T]``, the order in which the tokens were written, if they are laid out
            in another order (``zigzag``).
          length: the length that a scheme adapts to, see ``Encoding.at``.
          key: fresh randomness in training, for schemes that move positions.
        """
        x_BTD, places = self.embed(inputs), []
        if positions is None:
            if segment_ids is not None or index is not None:
                raise ValueError(
                    "positions=None is for plain text, but segment_ids or index are given: pass "
                    "positions too, such as posenc_jax.positions.packed(segment_ids)"
                )
            positions = text(x_BTD.shape[1])
        for i, encoding in enumerate(self.distinct()):
            own_key = None if key is None else jax.random.fold_in(key, i)
            here = encoding.at(positions, segment_ids, index=index, length=length, key=own_key)
            x_BTD = here.embed(x_BTD)
            places.append((here, None))
        return self._run(x_BTD, places)[0]

    def extend(
        self, inputs, cache: Cache, positions=None, segment_ids=None
    ) -> tuple[jax.Array, Cache]:
        """Returns ``hidden`` of tokens that follow those in ``cache``, and the cache with them.

        Any number of tokens may come at a time: a whole prompt, a chunk of it, or one token. The
        order of the calls is the order of the tokens, whatever their positions are. A prompt is
        read fastest in the program that makes its cache, because this program knows that there are
        no earlier tokens to attend to.

        Under a scheme that adapts to the length (dynamic NTK, LongRoPE, randomized positions), give
        the cache one ``length``: only then does a model of several layers return what ``hidden``
        returns for the whole sequence. By default such a scheme adapts to the largest position so
        far of a token's own sequence or segment, plus one, and rotates all keys by it. But from the
        second layer on, the keys of earlier tokens were computed from what the first layer returned
        at the length of their own call.

        Args:
          inputs: what ``embed`` takes, int token ids ``[B, T]``.
          cache: from ``Cache.empty`` or the previous call.
          positions: whole numbers or float32 ``[B, T]`` (``B`` may be 1) or ``[B, T, A]``, as the
            cache was made for. By default they count text: 0 for the first token of the cache, and
            one more for each token after it.
          segment_ids: int ``[B, T]``, if the cache was made for them.

        Raises:
          ValueError: the cache is full, or was made for something else, or the model is not
            causal. Under ``jax.jit``, where the count is not known, tokens without room give NaN.
        """
        if not self.causal:
            raise ValueError(
                "a model with causal=False cannot be extended, because tokens in the cache would "
                "have to see later tokens: give hidden() the whole sequence"
            )
        x_BTD, places = self.embed(inputs), []
        (B, T), start = x_BTD.shape[:2], cache.count
        cache.check_made_for(self, B)
        cache = cache.with_positions(positions, segment_ids, T)
        for number, encoding in enumerate(self.distinct()):
            here, every, cache = cache.here(number, encoding, T)
            x_BTD = here.embed(x_BTD)
            places.append((here, every))
        x_BTD, layers = self._run(x_BTD, places, cache, start)
        x_BTD = jnp.where(start + T <= cache.size, x_BTD, jnp.nan)
        return x_BTD, dataclasses.replace(cache, layers=layers)

    def distinct(self) -> list[Encoding]:
        """Returns the encodings that are put at tokens, one for each ``source`` of the layers.

        Where layers have an encoding each, the first layer's stands for all: the hooks that run
        before the layers read no parameters.
        """
        encodings: list[Any] = [
            None if shared is None else shared.of_layer(0) for shared in self.encodings
        ]
        for layer in self.layers:
            if encodings[layer.source] is None:
                first = jax.tree.map(lambda p: p[0], layer.own) if self.scan else layer.own
                encodings[layer.source] = first
        return encodings

    def layer_at(self, number: int) -> tuple[Encoding, Window]:
        """Returns the encoding and the window of layer ``number``.

        Where layers have an encoding each, the result has the first layer's.
        """
        number = count_of("number", number, 0, self.num_layers - 1)
        layer = self.layers[number % len(self.layers)]
        return self.distinct()[layer.source], layer.window

    def _run(self, x_BTD, places, cache: Cache | None = None, start=0):
        """Runs all layers.

        ``places`` has a pair for each distinct encoding: the encoding at the tokens, and
        ``Past.every`` for a cache.
        """
        rule: Any = dict(causal=self.causal, implementation=self.implementation)

        # The cache is written in place: a copy would take longer than one token.
        def run_layers(state, layers, repeat):
            x_BTD, slots = state
            updated = []
            for layer, stored in zip(layers, slots, strict=True):
                here, every = places[layer.source]
                encoding = layer.encoding(self.encodings, repeat)
                here = dataclasses.replace(here, encoding=encoding)
                past = None if cache is None else Past(stored, repeat, start, every)
                run: Any = functools.partial(self.block.__call__, **rule, window=layer.window)
                run = jax.checkpoint(run) if self.remat else run
                x_BTD, stored = run(layer.block, _rows_apart(x_BTD), here, past)
                updated.append(stored)
            return x_BTD, tuple(updated)

        state = x_BTD, (None,) * len(self.layers) if cache is None else cache.layers
        if self.scan:
            repeats = jnp.arange(self.num_layers // len(self.layers))
            state, _ = jax.lax.scan(
                lambda state, step: (run_layers(state, *step), None), state, (self.layers, repeats)
            )
        else:
            state = run_layers(state, self.layers, 0)
        x_BTD, slots = state
        return self.final_norm(_rows_apart(x_BTD)), slots


def _sinks_of_layers(sinks, num_layers: int) -> list[str | None]:
    """Returns the sinks of each layer, given one for all or a sequence that layers repeat."""
    kinds = [sinks] if isinstance(sinks, str) or not hasattr(sinks, "__iter__") else list(sinks)
    check_divides(sinks=len(kinds), num_layers=num_layers)
    for kind in kinds:
        check_choice(("head", "token", None), sinks=kind)
    return kinds * (num_layers // len(kinds))


def usual_mlp_dim(model_dim: int) -> int:
    """Returns 8/3 of a model's width, rounded up to a multiple of 64."""
    return -(-model_dim * 8 // (3 * 64)) * 64


def _rows_apart(x_BTD: jax.Array) -> jax.Array:
    """Keeps the rows of a batch sharded over the mesh axes ``data`` and ``fsdp``.

    Otherwise parameters that are sharded over ``fsdp`` make XLA shard the channels of every row the
    same way, and sum activations over devices where it should gather parameters.
    """
    mesh, free = jax.sharding.get_abstract_mesh(), PartitionSpec.UNCONSTRAINED
    axes = tuple(axis for axis in ROWS if axis in mesh.axis_names and axis not in mesh.manual_axes)
    is_cut = "fsdp" in axes and mesh.shape["fsdp"] > 1
    if not is_cut or x_BTD.shape[0] % math.prod(mesh.shape[axis] for axis in axes):
        return x_BTD
    return jax.lax.with_sharding_constraint(x_BTD, PartitionSpec(axes, free, free))


def _ids(inputs, vocab_size) -> jax.Array:
    """Returns token ids as int32, with ``vocab_size`` instead of invalid ids."""
    ids_BT = as_array("inputs", inputs)
    check_ids("inputs", ids_BT, vocab_size)
    # In 32 bits at least, because vocab_size itself may be too large for their type.
    ids_BT = ids_BT if ids_BT.dtype.itemsize >= 4 else ids_BT.astype(jnp.int32)
    # A negative number would count from the end.
    is_id_BT = (ids_BT >= 0) & (ids_BT < vocab_size)
    return jnp.where(is_id_BT, ids_BT, vocab_size).astype(jnp.int32)
