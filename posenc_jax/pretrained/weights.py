"""Says where each parameter of ``Transformer`` lies in a published checkpoint, to read or write it.

Checkpoints store a matrix as ``[out, in]``, and we store it as ``[in, out]``. Some store several of
our parameters as rows of one tensor (Phi-3), and GGUF files store the two channels of a rotary pair
next to each other.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from posenc_jax.model.transformer import Transformer

_LAYER = "model.layers.{n}."
_ATTENTION, _MLP = f"{_LAYER}self_attn.", f"{_LAYER}mlp."

# The tensor of each parameter; {n} is the number of the layer. Parameters of one tensor are its
# rows, in this order.
_LLAMA = {
    "embedding": "model.embed_tokens.weight",
    "final_norm/scale": "model.norm.weight",
    "unembedding": "lm_head.weight",
    "attention_norm/scale": f"{_LAYER}input_layernorm.weight",
    "attention/q/kernel": f"{_ATTENTION}q_proj.weight",
    "attention/k/kernel": f"{_ATTENTION}k_proj.weight",
    "attention/v/kernel": f"{_ATTENTION}v_proj.weight",
    "attention/q/bias": f"{_ATTENTION}q_proj.bias",
    "attention/k/bias": f"{_ATTENTION}k_proj.bias",
    "attention/v/bias": f"{_ATTENTION}v_proj.bias",
    "attention/q_norm/scale": f"{_ATTENTION}q_norm.weight",
    "attention/k_norm/scale": f"{_ATTENTION}k_norm.weight",
    "attention/out/kernel": f"{_ATTENTION}o_proj.weight",
    "mlp_norm/scale": f"{_LAYER}post_attention_layernorm.weight",
    "mlp/gate/kernel": f"{_MLP}gate_proj.weight",
    "mlp/up/kernel": f"{_MLP}up_proj.weight",
    "mlp/down/kernel": f"{_MLP}down_proj.weight",
}
_OTHERS = {
    "olmo2": {
        "attention_norm/scale": f"{_LAYER}post_attention_layernorm.weight",
        "mlp_norm/scale": f"{_LAYER}post_feedforward_layernorm.weight",
    },
    "phi3": {
        **{f"attention/{part}/kernel": f"{_ATTENTION}qkv_proj.weight" for part in "qkv"},
        **{f"mlp/{part}/kernel": f"{_MLP}gate_up_proj.weight" for part in ("gate", "up")},
    },
}
_GGUF = {
    "embedding": "token_embd.weight",
    "final_norm/scale": "output_norm.weight",
    "unembedding": "output.weight",
    "attention_norm/scale": "blk.{n}.attn_norm.weight",
    "attention/q/kernel": "blk.{n}.attn_q.weight",
    "attention/k/kernel": "blk.{n}.attn_k.weight",
    "attention/v/kernel": "blk.{n}.attn_v.weight",
    "attention/out/kernel": "blk.{n}.attn_output.weight",
    "mlp_norm/scale": "blk.{n}.ffn_norm.weight",
    "mlp/gate/kernel": "blk.{n}.ffn_gate.weight",
    "mlp/up/kernel": "blk.{n}.ffn_up.weight",
    "mlp/down/kernel": "blk.{n}.ffn_down.weight",
}

# Kernels of queries and keys: GGUF files have the channels that RoPE pairs in another order.
_ROTATED = ("attention/q/kernel", "attention/k/kernel")

# Tensors of old checkpoints that nothing reads.
UNREAD = re.compile(r"\.rotary_emb\.inv_freq$")

# The alignment, in bytes, at which JAX can use a NumPy array without a copy.
_ALIGNMENT = 64

# Takes a tensor's name, and the rows and columns that are wanted of it.
Read = Callable[..., np.ndarray]


@dataclasses.dataclass(frozen=True)
class Origin:
    """Says where one parameter of ``Transformer`` lies in a checkpoint."""

    shape: tuple[int, ...]  # shape of the parameter
    # The tensor that has the parameter, or one tensor for each layer if it is stacked.
    names: tuple[str, ...]
    first: int  # the row of the tensor where the parameter begins
    is_stacked: bool  # whether the parameter has a leading axis of layers
    is_transposed: bool  # whether the parameter's last axis is the tensor's first
    # Number of channels of a head, if rotary pairs are neighbouring channels in the tensor and
    # halves in the parameter; else None.
    pairs: int | None

    def part(self, read: Read, index: Sequence[slice], dtype: Any) -> np.ndarray:
        """Returns the part of the parameter at ``index``, and reads no more than that.

        Args:
          read: ``read(name, rows, columns)`` gives a part of a tensor; rows are a slice, or numbers
            where pairs are in another order. A vector has no columns.
          index: a slice for each axis of the parameter.
          dtype: the type of the result.
        """
        spans = [slice(*along.indices(size)) for along, size in zip(index, self.shape, strict=True)]
        # One layer at a time, so that no more than one is in memory twice.
        part = _empty([span.stop - span.start for span in spans], np.dtype(dtype))
        if not self.is_stacked:
            part[...] = self._of_one(read, self.names[0], spans)
            return part
        for target, name in zip(part, self.names[spans[0]], strict=True):
            target[...] = self._of_one(read, name, spans[1:])
        return part

    def rows(self) -> int:
        """Returns how many rows of the tensor belong to the parameter."""
        shape = self.shape[1:] if self.is_stacked else self.shape
        return shape[-1] if self.is_transposed else shape[0]

    def write(self, parameter: np.ndarray, tensors: Mapping[str, np.ndarray]) -> None:
        """Writes the parameter to its place in its tensors, as far as ``tensors`` has them."""
        stack = parameter if self.is_stacked else parameter[None]
        rows = self._rows(slice(0, self.rows()))
        for name, layer in zip(self.names, stack, strict=True):
            if name in tensors:
                tensors[name][rows] = layer.T if self.is_transposed else layer

    def _of_one(self, read, name, spans):
        rows, *columns = reversed(spans) if self.is_transposed else spans
        part = read(name, self._rows(rows), *columns)
        return part.T if self.is_transposed else part

    def _rows(self, rows: slice) -> slice | np.ndarray:
        """Returns the tensor's rows that hold these rows of the parameter."""
        if self.pairs is None:
            return slice(self.first + rows.start, self.first + rows.stop)
        ours = np.arange(rows.start, rows.stop)
        head, channel = np.divmod(ours, self.pairs)
        half, pair = np.divmod(channel, self.pairs // 2)
        return self.first + head * self.pairs + 2 * pair + half


def of_config(model: Transformer, config: Mapping[str, Any]) -> dict[str, Origin]:
    """Returns where the parameters of ``model`` are in a checkpoint of transformers, by path.

    The model is the one that ``config`` describes, and may be abstract (``jax.eval_shape``).
    """
    return _origins(model, _LLAMA | _OTHERS.get(config["model_type"], {}), paired=False)


def of_gguf(model: Transformer) -> dict[str, Origin]:
    """Returns where the parameters of ``model`` are in a GGUF file of Llama, by path."""
    return _origins(model, _GGUF, paired=True)


def tensors(origins: Mapping[str, Origin]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of the checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for origin in origins.values():
        shape = origin.shape[1:] if origin.is_stacked else origin.shape
        columns = shape[:1] if origin.is_transposed else shape[1:]
        for name in origin.names:
            before = shapes.get(name, (0,))[0]
            shapes[name] = (before + origin.rows(), *columns)
    return shapes


def check(shapes: Mapping[str, Sequence[int]], origins: Mapping[str, Origin]) -> None:
    """Checks that no tensor is missing, left over or of another shape; the error names them all."""
    expected = tensors(origins)
    shapes = {name: tuple(shape) for name, shape in shapes.items() if not UNREAD.search(name)}
    faults = [f"{name} {expected[name]} is missing" for name in expected if name not in shapes]
    faults += [f"{name} {shapes[name]} is left over" for name in shapes if name not in expected]
    faults += [
        f"{name} is {shapes[name]} and must be {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    if faults:
        raise ValueError(
            f"the weights do not fit the config, in {len(faults)} tensors: {'; '.join(faults)}"
        )


def parameters(model: Transformer) -> dict[str, Any]:
    """Returns the parameters of ``model`` by path, such as ``layers/0/block/mlp/up/kernel``."""
    flat, _ = jax.tree_util.tree_flatten_with_path(model)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {name(path).removesuffix("/value"): leaf for path, leaf in flat}


def _empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Returns an empty array aligned so that JAX can use it on a CPU without a copy."""
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def _origins(model, table, paired):
    places = len(model.layers)
    first: dict[str, int] = {}
    origins = {}
    ours = parameters(model)
    for path in sorted(ours, key=lambda path: _order(path, table)):
        place, rest = _split(path)
        template = table[rest]
        repeats = ours[path].shape[0] if model.scan and place is not None else 1
        names = tuple(
            template.format(n=place if place is None else repeat * places + place)
            for repeat in range(repeats)
        )
        origin = Origin(
            shape=tuple(ours[path].shape),
            names=names,
            first=first.get(names[0], 0),
            is_stacked=model.scan and place is not None,
            is_transposed=path.endswith("/kernel"),
            pairs=model.head_dim if paired and rest in _ROTATED else None,
        )
        first[names[0]] = origin.first + origin.rows()
        origins[path] = origin
    return origins


def _split(path):
    """Returns the place of the layer and the rest of the path, or None and the path."""
    match = re.fullmatch(r"layers/(\d+)/block/(.+)", path)
    return (None, path) if match is None else (int(match[1]), match[2])


def _order(path, table):
    place, rest = _split(path)
    if rest not in table:
        raise ValueError(
            f"{path} is a parameter that this kind of checkpoint cannot hold: encodings with "
            "parameters, and models of another architecture, are not offered"
        )
    return place or 0, list(table).index(rest)
