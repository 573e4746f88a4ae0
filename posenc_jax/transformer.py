"""A minimal decoder-only Transformer that takes any encoding.

Pre-norm with RMSNorm (1910.07467), grouped-query attention (2305.13245), SwiGLU (2002.05202), and
an output layer tied to the embedding.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention import attend, check_implementation
from posenc_jax.cache import Cache, Kept
from posenc_jax.encoding import Encoding, Tokens, check_positions
from posenc_jax.gather import rows
from posenc_jax.layers import Layers


class Attention(nnx.Module):
    """Projections around ``attend``."""

    def __init__(self, model_dim, num_heads, num_kv_heads, head_dim, out_std, *, dtype, rngs):
        self.head_dim = head_dim
        self.q = _linear(model_dim, num_heads * head_dim, dtype=dtype, rngs=rngs)
        self.k = _linear(model_dim, num_kv_heads * head_dim, dtype=dtype, rngs=rngs)
        self.v = _linear(model_dim, num_kv_heads * head_dim, dtype=dtype, rngs=rngs)
        self.out = _linear(num_heads * head_dim, model_dim, out_std, dtype=dtype, rngs=rngs)

    def __call__(self, x_BTD, encoding, tokens: Tokens, past=None, **rule):
        """The layer's output, and what is kept of its input; see ``Block``.

        ``rule``: keywords of ``attend``.
        """
        B, T, _ = x_BTD.shape
        q, k, v = (
            _by_token(project, x_BTD).reshape(B, T, -1, self.head_dim)
            for project in (self.q, self.k, self.v)
        )
        seen = kept = Kept(k, v, x_BTD)
        if past is not None:
            slots, turn, start = past
            kept = slots.with_new(jax.tree.map(lambda x: x[None], kept), turn, start)
            seen = kept.of_turn(turn)
        tokens = tokens.read(encoding, seen.x)
        queries = tokens if past is None else tokens.part(start, T)
        attended = attend(encoding, q, seen.k, seen.v, queries, tokens, **rule)
        return _by_token(self.out, attended.reshape(B, T, -1)), kept


class SwiGLU(nnx.Module):
    """``down(silu(gate x) * up x)``."""

    def __init__(self, model_dim, mlp_dim, out_std, *, dtype, rngs):
        self.gate = _linear(model_dim, mlp_dim, dtype=dtype, rngs=rngs)
        self.up = _linear(model_dim, mlp_dim, dtype=dtype, rngs=rngs)
        self.down = _linear(mlp_dim, model_dim, out_std, dtype=dtype, rngs=rngs)

    def __call__(self, x_BTD):
        hidden = jax.nn.silu(_by_token(self.gate, x_BTD)) * _by_token(self.up, x_BTD)
        return _by_token(self.down, hidden)


class Block(nnx.Module):
    """One layer: attention, then the feed-forward network, each on a normalised residual.

    ``past`` is what its layers have kept of earlier tokens, which of them this one is, and the slot
    that ``x`` starts at; the ``tokens`` are then those of all slots. Returns the residual, and what
    is kept with ``x`` in it.
    """

    def __init__(
        self, model_dim, num_heads, num_kv_heads, head_dim, mlp_dim, out_std, *, dtype, rngs
    ):
        self.attention_norm = nnx.RMSNorm(model_dim, dtype=dtype, rngs=rngs)
        self.attention = Attention(
            model_dim, num_heads, num_kv_heads, head_dim, out_std, dtype=dtype, rngs=rngs
        )
        self.mlp_norm = nnx.RMSNorm(model_dim, dtype=dtype, rngs=rngs)
        self.mlp = SwiGLU(model_dim, mlp_dim, out_std, dtype=dtype, rngs=rngs)

    def normalise(self, x_BTD, tokens):
        """What attention reads; a norm that knows where tokens are overrides it."""
        del tokens
        return self.attention_norm(x_BTD)

    def __call__(self, x_BTD, encoding, tokens, past=None, **rule):
        normalised = self.normalise(x_BTD, tokens)
        attended, kept = self.attention(normalised, encoding, tokens, past, **rule)
        x_BTD = x_BTD + attended
        return x_BTD + self.mlp(self.mlp_norm(x_BTD)), kept


class Transformer(nnx.Module):
    """Token ids and positions in, logits out.

    A model of something else than token ids overrides ``embed``, one of other blocks ``block``.

    Args:
      encoding: one encoding for all layers, or a pattern of them that the layers repeat
        (``[rope, rope, rope, nope]``, or ``Layers``, which has windows too). An instance that
        occurs twice is one set of parameters. A scheme with per-layer parameters must be stacked:
        ``make(..., num_layers=)``.
      vocab_size: number of token ids.
      model_dim: width of the residual stream.
      num_layers: number of blocks.
      num_heads: query heads.
      num_kv_heads: key and value heads, a divisor of ``num_heads``. Default: as many.
      head_dim: channels of a head. Default: ``model_dim / num_heads``.
      mlp_dim: hidden width of the feed-forward network. Default: 8/3 of ``model_dim``, rounded up
        to a multiple of 64.
      causal: hide tokens from those before them. False is an encoder, such as a ViT.
      dtype: what is computed in; parameters stay float32.
      scan: compile one block and loop over it (``lax.scan``), for depth.
      remat: recompute each block in the backward pass, for memory.
      implementation: of attention, see ``attend``.
      rngs: initial values, N(0, 0.02), with the two projections into the residual stream scaled
        by ``1 / sqrt(2 num_layers)`` as in GPT-2.
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
        causal: bool = True,
        dtype: str = "float32",
        scan: bool = False,
        remat: bool = False,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads % num_kv_heads:
            raise ValueError(f"num_kv_heads={num_kv_heads} must divide num_heads={num_heads}")
        if head_dim is None and model_dim % num_heads:
            raise ValueError(
                f"num_heads={num_heads} must divide model_dim={model_dim}, or head_dim be given"
            )
        check_implementation(implementation)
        head_dim = model_dim // num_heads if head_dim is None else head_dim
        mlp_dim = -(-model_dim * 8 // (3 * 64)) * 64 if mlp_dim is None else mlp_dim
        out_std = 0.02 * (2 * num_layers) ** -0.5

        def block(key):
            rngs = nnx.Rngs(key)
            widths = model_dim, num_heads, num_kv_heads, head_dim, mlp_dim
            return self.block(*widths, out_std, dtype=jnp.dtype(dtype), rngs=rngs)

        self.embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (vocab_size, model_dim)))
        self.blocks = jax.vmap(block)(jax.random.split(rngs.params(), num_layers))
        self.final_norm = nnx.RMSNorm(model_dim, dtype=jnp.dtype(dtype), rngs=rngs)
        self.num_layers = num_layers
        self.causal = causal
        self.dtype = dtype
        self.scan = scan
        self.remat = remat
        self.implementation = implementation
        self.layers = Layers.of(encoding)
        self.layers.check(num_layers)

    def __call__(self, inputs, positions, segment_ids=None, **options):
        """float32 logits ``[B, T, vocab_size]``; see ``hidden`` for the arguments."""
        return self.unembed(self.hidden(inputs, positions, segment_ids, **options))

    def embed(self, inputs):
        """What the first block reads, ``[B, T, model_dim]`` in ``dtype``.

        Here ``inputs`` are int token ids ``[B, T]``; a subclass takes any pytree.
        """
        return rows(self.embedding[...].astype(self.dtype), inputs)

    def unembed(self, x_BTD):
        """The output layer: float32 logits of what ``hidden`` or ``extend`` gives."""
        table_DV = self.embedding[...].astype(self.dtype).T
        project = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
        return _by_token(lambda x: project(x, table_DV), x_BTD)

    def hidden(
        self,
        inputs,
        positions,
        segment_ids=None,
        *,
        length=None,
        encoding=None,
        key=None,
        index=None,
    ):
        """What the output layer reads, ``[B, T, model_dim]`` in ``dtype``.

        The output layer is the embedding's transpose; a loss that multiplies by it piece by piece
        never holds all logits.

        Args:
          inputs: what ``embed`` takes, int token ids ``[B, T]``.
          positions: int or float32 ``[B, T]`` (``B`` may be 1) or ``[A, B, T]``.
          segment_ids: int ``[B, T]``: tokens see only their own segment.
          length: see ``Tokens.of``.
          encoding: evaluate under this encoding, or pattern, in the place of the trained one.
          key: fresh randomness in training, for schemes that move positions; see
            ``Encoding.place``.
          index: int32 ``[B, T]``, the order the tokens came in, where they are laid out in another
            one (``zigzag``).
        """
        x_BTD = self.embed(inputs)
        return self._run(x_BTD, positions, segment_ids, length, encoding, key, index)[0]

    def extend(
        self,
        inputs,
        positions,
        cache: Cache,
        segment_ids=None,
        *,
        length=None,
        encoding=None,
    ):
        """``hidden`` of tokens that follow those in ``cache``, and the cache with them in it.

        Any number of tokens at a time: a whole prompt, a chunk of it, one. Which came first is the
        order of the calls; positions say where tokens are, as ever.

        A scheme that adapts to the length (dynamic NTK, LongRoPE, randomized positions) sees that
        of this call, and turns all keys with it. Keys of the second layer on were made of what the
        first layer gave at the length of their own call, so that a model of several layers equals
        ``hidden`` of the whole sequence where every call has the same ``length``.

        Args:
          inputs: what ``embed`` takes, int token ids ``[B, T]``.
          positions: int or float32 ``[B, T]`` (``B`` may be 1) or ``[A, B, T]``, as the cache was
            made for.
          cache: from ``Cache.empty`` or the previous call.
          segment_ids: int ``[B, T]``, if the cache was made for them.
          length: as in ``Tokens.of``, an int or an array that broadcasts against ``[B, S]``.
            Default: the largest position of a token's own sequence or segment so far, plus one.
          encoding: as in ``hidden``; the cache must be made for it too.

        Raises:
          ValueError: the cache is full, or was made for something else, or the model is not
            causal. Under ``jax.jit``, where the count is not known, tokens without room give NaN.
        """
        if not self.causal:
            raise ValueError(
                "a model with causal=False cannot be extended: tokens in the cache would have to "
                "see those that follow; give hidden() the whole sequence"
            )
        x_BTD = self.embed(inputs)
        T = x_BTD.shape[1]
        cache = cache.with_places(check_positions(positions), segment_ids, T)
        x_BTD, layers = self._run(
            x_BTD,
            cache.positions,
            cache.segment_ids,
            length,
            encoding,
            key=None,
            index=None,
            cache=cache,
        )
        x_BTD = jnp.where(cache.count + T <= cache.size, x_BTD, jnp.nan)
        return x_BTD, dataclasses.replace(cache, layers=layers, count=cache.count + T)

    def _run(self, x_BTD, positions, segment_ids, length, encoding, key, index, cache=None):
        """``hidden``, and the cache's layers; positions are those of its slots, if there is one."""
        layers = self.layers
        if encoding is not None:
            layers = Layers.of(encoding)
            layers.check(self.num_layers)
        if cache is not None:
            cache.check_layers(layers, self.embedding.shape[1])

        T = x_BTD.shape[1]
        sides = []
        for i, each in enumerate(layers.distinct):
            own_key = None if key is None else jax.random.fold_in(key, i)
            placed = each.place(positions, own_key, length)
            side = Tokens.of(each, placed, segment_ids, length)
            sides.append(dataclasses.replace(side, index=index))
            new = sides[i] if cache is None else sides[i].part(cache.count, T)
            x_BTD = each.embed(x_BTD, new.positions)

        # A group is one turn of the pattern: its blocks, and its share of the per-layer encodings.
        turn = len(layers.pattern)
        groups = self.num_layers // turn
        per_layer = [each if each.per_layer else None for each in layers.distinct]
        stacked = jax.tree.map(
            lambda p: p.reshape(groups, -1, *p.shape[1:]), (self.blocks, per_layer)
        )

        # Written where they are: a copy of the cache would take longer than one token.
        def run_group(state, group):
            x_BTD, slots = state
            (blocks, own), number = group
            uses, kept = [0] * len(sides), []
            blocks = _unstack(blocks, turn)
            places = zip(blocks, slots, layers.pattern, layers.windows, strict=True)
            for block, own_slots, which, window in places:
                scheme = layers.distinct[which]
                if scheme.per_layer:
                    scheme = jax.tree.map(lambda p, use=uses[which]: p[use], own[which])
                uses[which] += 1
                past = None if cache is None else (own_slots, number, cache.count)
                x_BTD, own_kept = run_block[window](block, x_BTD, scheme, sides[which], past)
                kept.append(None if cache is None else own_kept)
            return (x_BTD, tuple(kept)), None

        run_block = {window: self._run_block(window) for window in layers.windows}
        state = x_BTD, (None,) * turn if cache is None else cache.layers
        if self.scan:
            state, _ = jax.lax.scan(run_group, state, (stacked, jnp.arange(groups)))
        else:
            for number, group in enumerate(_unstack(stacked, groups)):
                state, _ = run_group(state, (group, number))
        x_BTD, slots = state
        return self.final_norm(x_BTD), slots

    def _run_block(self, window):
        rule = dict(causal=self.causal, window=window, implementation=self.implementation)
        run = functools.partial(self.block.__call__, **rule)
        return jax.checkpoint(run) if self.remat else run


def _linear(d_in, d_out, std=0.02, *, dtype, rngs):
    init = nnx.initializers.normal(std)
    return nnx.Linear(d_in, d_out, use_bias=False, kernel_init=init, dtype=dtype, rngs=rngs)


def _by_token(layer, x_BTD):
    """``layer`` over tokens laid end to end.

    The gradient of a matrix is a product over tokens; XLA:CPU runs it three to five times faster
    in two dimensions than in three. Elsewhere tokens keep their axes, each of which may be sharded.
    """
    if jax.default_backend() != "cpu":
        return layer(x_BTD)
    B, T, D = x_BTD.shape
    return layer(x_BTD.reshape(B * T, D)).reshape(B, T, -1)


def _unstack(tree, count: int) -> list:
    """``tree`` cut along its leading axis; its gradient is one concatenation."""
    leaves, structure = jax.tree.flatten(tree)
    cut = [[p.squeeze(0) for p in jax.lax.split(leaf, [1] * count)] for leaf in leaves]
    return [jax.tree.unflatten(structure, [pieces[i] for pieces in cut]) for i in range(count)]
