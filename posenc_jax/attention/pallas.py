"""Flash attention (2205.14135) in Pallas kernels that run the encoding's hooks on each tile.

One source for two compilers: Triton's on a GPU, Mosaic's on a TPU; on a CPU the kernels are
interpreted, slowly, for tests. ``score`` and ``mix`` are traced once and cut in two
(``program.py``): their work on parameters alone runs ahead, the rest in the kernels, where the
gradients of the parameters are made too, a tile at a time. Memory is linear in the length; on a
TPU the keys and values of one head must fit in VMEM.

Nothing chooses these kernels by itself; only ``implementation="pallas"`` asks for them. No GPU or
TPU was at hand: they are known to be right where they are interpreted, and JAX's half of either
compiler accepts them, but the vendors' halves have not seen them and nobody has measured them.

No kernel runs CoPE and PaTH, which need whole rows, DAPE, which needs all heads in one tile, and
tables of more than 128 rows (DeBERTa's as published). For Triton JAX does not lower Shaw (its
table has an odd number of rows), DeBERTa (``round``), dual chunk attention (three rotations side by
side are no power of 2) and the gradients of ReRoPE, Leaky ReRoPE and Self-Extend (two rotations
side by side are concatenated).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from posenc_jax.attention.dense import FLOOR, TINY
from posenc_jax.attention.program import Program, on_matrices
from posenc_jax.encoding import Tile
from posenc_jax.gather import by_comparison

# Rows and columns of a tile.
_SIZES = {"cpu": 16, "gpu": 64, "tpu": 128}


def pallas(
    encoding, tile, v_BSKC, segment_ids, *, causal: bool, in_order: bool, window: int | None
):
    """Softmax attention over a tile that holds every query and key; see ``attend``.

    Raises:
      ValueError: ``score`` needs whole rows, or all heads in one tile.
    """
    if encoding.whole_rows:
        raise ValueError(
            f'implementation="pallas" cannot run {type(encoding).__name__}, whose score needs '
            'whole rows of logits; use "dense"'
        )
    size = _SIZES[jax.default_backend()]
    hooks = _Hooks(encoding, tile, v_BSKC.shape[-1], size)
    # Triton's arrays have a power of 2 of numbers; zeros change no product.
    q, k, v = tile.q, tile.k, v_BSKC
    if not hooks.read_content:
        q, k = _widened(q), _widened(k)
    if not hooks.read_output:
        v = _widened(v)
    q_segments, k_segments = (None if ids is None else _of_tokens(ids, size) for ids in segment_ids)
    q_leaves, k_leaves = _leaves_of_sides(tile)
    q_side = {
        "q": _of_heads(q, size),
        "index": _of_tokens(tile.q_index, size),
        "segment_ids": q_segments,
        "leaves": _used(q_leaves, hooks.q_used, size),
    }
    k_side = {
        "k": _of_heads(k, size),
        "v": _of_heads(v, size),
        "index": _of_tokens(tile.k_index, size),
        "segment_ids": k_segments,
        "leaves": _used(k_leaves, hooks.k_used, size),
    }
    (B, T, H, _), S = q.shape, k.shape[1]
    kernels = _Kernels(
        *(hooks, jnp.result_type(q, k), v.dtype, size, B, H, T, S),
        causal=causal,
        in_order=in_order,
        window=window,
    )
    out_BHTC = kernels.attention(hooks.ahead(encoding, tile), q_side, k_side)
    return out_BHTC.swapaxes(1, 2)[..., : v_BSKC.shape[-1]].astype(v.dtype)


# Operands


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["array"], meta_fields=["axis", "shape"]
)
@dataclasses.dataclass(frozen=True)
class _Operand:
    """What a kernel reads: ``[B or 1, H, K or 1, ...]`` of at least four axes.

    Attributes:
      axis: the axis of tokens, of which a kernel reads a tile at a time, or None.
      shape: what the hooks see of it, in a tile of one sequence and one head.
    """

    array: jax.Array
    axis: int | None
    shape: tuple[int, ...]

    def padded(self, size):
        if self.axis is None:
            return self
        missing = -self.array.shape[self.axis] % size
        widths = [(0, missing if a == self.axis else 0) for a in range(self.array.ndim)]
        return dataclasses.replace(self, array=jnp.pad(self.array, widths))

    def block(self, size):
        """The shape a kernel reads of a tile."""
        return tuple(size if a == self.axis else n for a, n in enumerate(self.array.shape))[2:]

    def spec(self, num_heads, size=None):
        """Of a tile a program, or without ``size`` of all tokens."""
        batch, heads = self.array.shape[:2]
        block = self.array.shape[2:] if size is None else self.block(size)

        def index(b, h, i):
            tile = [
                i if a == self.axis and size is not None else 0 for a in range(2, self.array.ndim)
            ]
            return b if batch > 1 else 0, h // (num_heads // heads), *tile

        return pl.BlockSpec((None, None, *block), index)

    def read(self, ref, start=None, size=None):
        """Its value in a tile, in float32 if it is of any float type."""
        if start is None:
            value = ref[...]
        else:
            at = [slice(None)] * (self.array.ndim - 2)
            at[self.axis - 2] = pl.ds(pl.multiple_of(start, size), size)
            value = ref[tuple(at)]
        return value.astype(_read_as(value.dtype)).reshape(self.shape)

    def result(self, B, H, count, size):
        """Shape and spec of its gradient in each sequence and head, float32.

        That of what is not of tokens is in parts, one for each program.
        """
        rest = self.array.shape[2:]
        if self.axis is not None:
            rest = [count * size if a == self.axis else n for a, n in enumerate(self.array.shape)][
                2:
            ]
            whole = jax.ShapeDtypeStruct((B, H, *rest), jnp.float32)
            return whole, dataclasses.replace(self, array=whole).spec(H, size)
        parts = jax.ShapeDtypeStruct((B, H, count, *rest), jnp.float32)
        block = None, None, None, *rest
        return parts, pl.BlockSpec(block, lambda b, h, i: (b, h, i, *[0] * len(rest)))

    def gradient(self, whole):
        """Its gradient, made of what a kernel returned for ``result``."""
        batch, heads = self.array.shape[:2]
        whole = whole.sum(2) if self.axis is None else whole
        whole = whole.sum(0, keepdims=True) if batch == 1 else whole
        whole = whole.reshape(len(whole), heads, -1, *whole.shape[2:]).sum(2)
        if self.axis is not None:
            whole = lax.slice_in_dim(whole, 0, self.array.shape[self.axis], axis=self.axis)
        return dataclasses.replace(self, array=whole.astype(self.array.dtype))


def _read_as(dtype):
    return jnp.float32 if _is_float(dtype) else dtype


def _is_float(dtype):
    return jnp.issubdtype(dtype, jnp.floating)


def _map(function, operands, *others):
    return jax.tree.map(function, operands, *others, is_leaf=_is_operand)


def _flatten(operands):
    return jax.tree.flatten(operands, is_leaf=_is_operand)


def _is_operand(x):
    return isinstance(x, _Operand)


def _widened(x_BTHC):
    C = x_BTHC.shape[-1]
    return jnp.pad(x_BTHC, ((0, 0), (0, 0), (0, 0), (0, pl.next_power_of_2(C) - C)))


def _of_heads(x_BTHC, size):
    shape = (1, size, 1, x_BTHC.shape[-1])
    return _Operand(x_BTHC.swapaxes(1, 2), axis=2, shape=shape)


def _of_tokens(x, size, axis=None):
    """Of ``[B or 1, T]`` or ``[A, B or 1, T]``; with ``axis=1``, of ``[B or 1, T, ...]``."""
    if axis == 1 and x.ndim > 2:
        return _Operand(x[:, None], axis=2, shape=(1, size, *x.shape[2:]))
    tokens_last = jnp.moveaxis(jnp.expand_dims(x, tuple(range(3 - x.ndim))), 0, 1)
    return _Operand(tokens_last[:, None], axis=3, shape=(*x.shape[:-2], 1, size))


def _of_parameters(x_HX):
    """Of one array a head."""
    rest = (1,) * (3 - x_HX.ndim) + x_HX.shape[1:]
    return _Operand(x_HX.reshape(1, len(x_HX), *rest), axis=None, shape=x_HX.shape[1:])


# Hooks


def _leaves_of_sides(tile):
    """What hooks may read of queries and of keys: lists of (array, its axis of tokens)."""
    sides = (
        (tile.q_positions, tile.q_index, tile.q_prepared),
        (tile.k_positions, tile.k_index, tile.k_prepared),
    )
    return tuple(
        [(positions, -1), (index, -1), *((x, 1) for x in jax.tree.leaves(prepared))]
        for positions, index, prepared in sides
    )


def _used(leaves, used, size):
    return [
        _of_tokens(x, size, axis) if is_used else None
        for (x, axis), is_used in zip(leaves, used, strict=True)
    ]


class _Hooks:
    """``score`` and ``mix`` on a tile of one sequence and one head.

    Attributes:
      read_content: whether they read queries or keys.
      read_output: whether ``mix`` does anything to the sum of values.
      q_used, k_used: which of ``_leaves_of_sides`` they read.
    """

    def __init__(self, encoding, tile, v_channels, size):
        structure = jax.tree.structure(tile.q_prepared), jax.tree.structure(tile.k_prepared)
        q_leaves, k_leaves = (
            [
                jax.ShapeDtypeStruct(_of_tokens(x, size, axis).shape, _read_as(x.dtype))
                for x, axis in side
            ]
            for side in _leaves_of_sides(tile)
        )
        parameters, build = jax.tree.flatten(encoding)
        known = parameters, jax.ShapeDtypeStruct((1,), jnp.int32), jnp.float32(0)

        def hook(name):
            def run(known, given):
                parameters, heads, scale = known
                first, q, k, (q_positions, q_index, *q_prepared), k_leaves = given
                k_positions, k_index, *k_prepared = k_leaves
                one_head = Tile(
                    *(q, k, q_positions, k_positions, q_index, k_index),
                    q_prepared=jax.tree.unflatten(structure[0], q_prepared),
                    k_prepared=jax.tree.unflatten(structure[1], k_prepared),
                    scale=scale,
                    heads=heads,
                    num_heads=tile.num_heads,
                )
                with by_comparison():
                    return getattr(jax.tree.unflatten(build, parameters), name)(*first, one_head)

            return run

        def floats(*shape):
            return jax.ShapeDtypeStruct(shape, jnp.float32)

        q, k = (floats(1, size, 1, x.shape[-1]) for x in (tile.q, tile.k))
        logits, out = floats(1, 1, size, size), floats(1, size, 1, v_channels)
        sides = q, k, q_leaves, k_leaves
        self._score = Program(hook("score"), known, ((logits,), *sides))
        self._mix = Program(hook("mix"), known, ((out, logits), *sides))
        score, mix = self._score.used, self._mix.used
        self.read_content = any(score[1:3] + mix[2:4])
        self.read_output = not self._mix.returns_first
        used = [a or b for a, b in zip(score[3:], mix[4:], strict=True)]
        self.q_used, self.k_used = used[: len(q_leaves)], used[len(q_leaves) :]

    def ahead(self, encoding, tile):
        """What the hooks make of parameters, for each head."""
        scale = jnp.asarray(tile.scale, jnp.float32)

        def of_head(head):
            known = jax.tree.leaves(encoding), head[None], scale
            return {
                "scale": scale,
                "score": self._score.ahead(known),
                "mix": self._mix.ahead(known),
            }

        return jax.tree.map(_of_parameters, jax.vmap(of_head)(tile.heads))

    def score(self, ahead, logits, q_side, k_side):
        sides = q_side["q"], k_side["k"], *q_side["leaves"], *k_side["leaves"]
        (logits,) = self._score.inside(ahead["score"], (logits, *sides))
        return logits

    def mix(self, ahead, out, weights, q_side, k_side):
        sides = q_side["q"], k_side["k"], *q_side["leaves"], *k_side["leaves"]
        (out,) = self._mix.inside(ahead["mix"], (out, weights, *sides))
        return out


# Kernels


@dataclasses.dataclass(frozen=True)
class _Kernels:
    """Forwards a program for each tile of queries; backwards one for these and one for keys."""

    hooks: _Hooks
    qk_dtype: jnp.dtype
    v_dtype: jnp.dtype
    size: int  # of a tile
    B: int
    H: int
    T: int
    S: int
    causal: bool
    in_order: bool
    window: int | None

    def attention(self, ahead, q_side, k_side):
        """float32 ``[B, H, T, C]``."""
        attention = jax.custom_vjp(lambda *operands: self._forward(*operands)[0])
        attention.defvjp(self._forward, self._backward)
        return attention(ahead, q_side, k_side)

    def _forward(self, ahead, q_side, k_side):
        rows, C = self.size, k_side["v"].array.shape[-1]

        def start():
            return jnp.full((rows, 1), FLOOR), jnp.zeros((rows, 1)), jnp.zeros((rows, C))

        def step(carry, ahead, q_side, k_side, i, j):
            def update(largest, sums, out):
                logits = self._logits(ahead, q_side, k_side, i, j)
                new = jnp.maximum(largest, logits.max(1, keepdims=True))
                weights, shrink = jnp.exp(logits - new), jnp.exp(largest - new)
                sums = shrink * sums + weights.sum(1, keepdims=True)
                mixed = self._mixed(ahead, weights, q_side, k_side)
                return new, sums, shrink * out + mixed

            return on_matrices(update, *carry)

        def finish(carry):
            largest, sums, out = carry
            sums = jnp.maximum(sums, TINY)
            return out / sums, largest + jnp.log(sums)

        q = q_side["q"]
        outputs = [
            dataclasses.replace(q, array=jax.ShapeDtypeStruct((*q.array.shape[:3], n), jnp.float32))
            for n in (C, 1)
        ]
        out, log_sums = self._launch(
            *(start, step, finish, outputs, ahead, q_side, k_side, self.T, self._columns)
        )
        out, log_sums = out[:, :, : self.T], log_sums[:, :, : self.T]
        return out, (ahead, q_side, k_side, out, log_sums)

    def _backward(self, saved, d_out):
        ahead, q_side, k_side, out, log_sums = saved
        of_row = (d_out, (d_out * out).sum(-1, keepdims=True), log_sums)
        of_row = [_Operand(x, axis=2, shape=(self.size, x.shape[-1])) for x in of_row]

        def gradients(carry, moving, rebuild, of_row, i, j):
            """Adds a tile's gradients by the floats of ``moving``."""
            leaves, structure = jax.tree.flatten(moving)
            d_out, delta, log_sums = of_row

            def tile(*floats):
                given = iter(floats)
                merged = [next(given) if _is_float(x.dtype) else x for x in leaves]
                ahead, q_side, k_side = rebuild(jax.tree.unflatten(structure, merged))
                logits = self._logits(ahead, q_side, k_side, i, j)
                weights = jnp.exp(logits - log_sums)
                mixed = self._mixed(ahead, weights, q_side, k_side)
                return mixed, weights.sum(1, keepdims=True)

            def pull(*floats):
                return jax.vjp(tile, *floats)[1]((d_out, -delta))

            floats = [x for x in leaves if _is_float(x.dtype)]
            return [a + b for a, b in zip(carry, on_matrices(pull, *floats), strict=True)]

        def q_step(carry, ahead, here, k_side, i, j):
            q_side, of_row = here
            return gradients(carry, q_side, lambda q: (ahead, q, k_side), of_row, i, j)

        def k_step(carry, ahead, k_side, there, j, i):
            q_side, of_row = there
            moving = ahead, k_side
            return gradients(carry, moving, lambda m: (m[0], q_side, m[1]), of_row, i, j)

        d_q_side = self._launch_gradients(
            *(q_step, q_side, ahead, (q_side, of_row), k_side, self.T, self._columns)
        )
        d_ahead, d_k_side = self._launch_gradients(
            *(k_step, (ahead, k_side), ahead, k_side, (q_side, of_row), self.S, self._rows)
        )
        return d_ahead, d_q_side, d_k_side

    def _launch_gradients(self, step, moving, *launched):
        """Gradients by the floats of ``moving``, which is of ``ahead`` and ``here``."""
        operands, structure = _flatten(moving)
        floats = [x for x in operands if _is_float(x.array.dtype)]

        def start():
            return [jnp.zeros(x.shape) for x in floats]

        wholes = iter(self._launch(start, step, list, floats, *launched))
        gradients = [
            x.gradient(next(wholes)) if _is_float(x.array.dtype) else None for x in operands
        ]
        return jax.tree.unflatten(structure, gradients)

    def _launch(self, start, step, finish, outputs, ahead, here, there, length, reach):
        """Runs ``step`` for each tile of ``here`` over all tiles of ``there`` within ``reach``.

        What ``finish`` returns is for each head and sequence, and but for that like ``outputs``.
        """
        size, H = self.size, self.H
        ahead, here, there = _map(lambda x: x.padded(size), (ahead, here, there))
        operands, structure = _flatten((ahead, here, there))
        count = self._tiles(length)
        specs = (
            _map(lambda x: x.spec(H), ahead),
            _map(lambda x: x.spec(H, size), here),
            _map(lambda x: x.spec(H), there),
        )
        results = [x.result(self.B, H, count, size) for x in outputs]

        def kernel(*refs):
            tile = pl.program_id(2)
            of_ahead, of_here, of_there = jax.tree.unflatten(structure, refs[: len(operands)])
            own = (_map(_Operand.read, x, y) for x, y in ((ahead, of_ahead), (here, of_here)))
            own = tuple(own)

            def body(other, carry):
                read = functools.partial(_Operand.read, start=other * size, size=size)
                return step(carry, *own, _map(read, there, of_there), tile, other)

            final = finish(lax.fori_loop(*reach(tile), body, start()))
            for ref, result in zip(refs[len(operands) :], final, strict=True):
                ref[...] = result.reshape(ref.shape)

        call = pl.pallas_call(
            kernel,
            grid=(self.B, H, count),
            in_specs=jax.tree.leaves(specs),
            out_specs=[spec for _, spec in results],
            out_shape=[shape for shape, _ in results],
            interpret=jax.default_backend() == "cpu",
            compiler_params=triton.CompilerParams() if jax.default_backend() == "gpu" else None,
        )
        return call(*(x.array for x in operands))

    def _logits(self, ahead, q_side, k_side, i, j):
        """float32 ``[rows, columns]``, -inf where a query must not see a key."""
        q, k = (x.reshape(self.size, -1) for x in (q_side["q"], k_side["k"]))
        logits = _product(q, k, 1, self.qk_dtype) * ahead["scale"]
        logits = self.hooks.score(ahead, logits[None, None], q_side, k_side)
        row, column = (
            n * self.size + lax.broadcasted_iota(jnp.int32, (self.size, self.size), axis)
            for axis, n in enumerate((i, j))
        )
        visible = (row < self.T) & (column < self.S)
        q_index, k_index = q_side["index"].reshape(-1, 1), k_side["index"].reshape(1, -1)
        if self.causal:
            visible &= q_index >= k_index
        if self.window is not None:
            visible &= q_index - k_index < self.window
        if q_side["segment_ids"] is not None:
            visible &= q_side["segment_ids"].reshape(-1, 1) == k_side["segment_ids"].reshape(1, -1)
        return jnp.where(visible, logits.reshape(visible.shape), -jnp.inf)

    def _mixed(self, ahead, weights, q_side, k_side):
        v = k_side["v"].reshape(self.size, -1)
        out = _product(weights, v, 0, self.v_dtype)
        out = self.hooks.mix(ahead, out[None, :, None], weights[None, None], q_side, k_side)
        return out.reshape(self.size, -1)

    def _columns(self, i):
        """The tiles of keys that a tile of queries sees: from, and up to."""
        first, last = 0, self._tiles(self.S)
        if self.in_order and self.causal:
            last = i + 1
        if self.in_order and self.window is not None:
            first = jnp.maximum(i * self.size - self.window + 1, 0) // self.size
        return first, last

    def _rows(self, j):
        """The tiles of queries that see a tile of keys: from, and up to."""
        first, last = 0, self._tiles(self.T)
        if self.in_order and self.causal:
            first = j
        if self.in_order and self.window is not None:
            last = jnp.minimum(((j + 1) * self.size + self.window - 2) // self.size + 1, last)
        return first, last

    def _tiles(self, length):
        return -(-length // self.size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x, y, y_axis, dtype):
    """float32 product of float32 matrices over the last axis of x and ``y_axis`` of y.

    In ``dtype``, and so are its gradients, which would else be rounded tile by tile.
    """
    return _dot(x, 1, y, y_axis, dtype)


def _product_backward(y_axis, dtype, operands, d_out):
    x, y = operands
    d_x = _dot(d_out, 1, y, 1 - y_axis, dtype)
    d_y = _dot(d_out, 0, x, 0, dtype) if y_axis == 1 else _dot(x, 0, d_out, 0, dtype)
    return d_x, d_y


_product.defvjp(lambda x, y, *options: (_product(x, y, *options), (x, y)), _product_backward)


def _dot(x, x_axis, y, y_axis, dtype):
    dimensions = ((x_axis,), (y_axis,)), ((), ())
    x, y = x.astype(dtype), y.astype(dtype)
    return lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
