"""Makes small encodings, models and inputs that the tests share."""

import dataclasses
import functools
import importlib.metadata
import inspect
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schemes
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import posenc_jax
from posenc_jax.encoding import HOOKS
from posenc_jax.registry import PATTERNS

SCHEMES = [name for name in posenc_jax.REGISTRY if name not in PATTERNS]
HEADS, HEAD_DIM, WIDTH, TRAIN_LENGTH, VOCAB, LAYERS = 4, 8, 32, 32, 64, 2
# Programs of users are compiled with these, those of the tests with no effort (conftest.py).
USUAL_FLAGS = {"xla_backend_optimization_level": 3, "xla_cpu_parallel_codegen_split_count": 32}
if importlib.metadata.version("jaxlib").startswith("0.10."):
    USUAL_FLAGS["xla_cpu_use_fusion_emitters"] = True
ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
INDEX = json.loads((GOLDEN / "index.json").read_text())


def build(name: str, *, seed: int = 0, trained: bool = True, **keywords):
    """Makes a scheme at small dimensions, with its parameters moved as if by training.

    Several start at zero, where a mistake in how they are used would not show.
    """
    encoding = posenc_jax.make(name, rngs=nnx.Rngs(seed), **arguments(name) | keywords)
    return moved(encoding, seed) if trained else encoding


def arguments(name: str) -> dict[str, Any]:
    """Returns the keywords of a scheme at small dimensions."""
    sizes = dict[str, Any](num_heads=HEADS, head_dim=HEAD_DIM, model_dim=WIDTH)
    sizes["train_length"] = TRAIN_LENGTH
    factor = posenc_jax.signature(name).parameters.get("factor")
    if factor is not None and factor.default is inspect.Parameter.empty:
        sizes["factor"] = 4.0
    return sizes | schemes.ALL[name].overrides


def compilations(run) -> int:
    """Returns how many programs are compiled while ``run()`` runs."""
    compiled = []

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready(run())
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(compiled)


def text_state(key, spec, recipe):
    """Returns the state that training on text starts from."""
    from experiments.training.step import initial_state
    from experiments.training.text import Text

    return initial_state(key, Text(recipe, None, spec).init, recipe)


def one_of_each_program() -> list[str]:
    """Returns the first scheme of every set of hooks' functions, and of what else makes a program.

    PI, NTK, p-RoPE and HoPE are RoPE with other constants: where a test compiles a whole model, one
    of them stands for all.
    """

    def program(name, encoding):
        functions = tuple(getattr(type(encoding), hook) for hook in HOOKS)
        mixes = schemes.ALL[name].mixes_heads
        return functions, hooks(encoding), has_parameters(encoding), reads_length(name), mixes

    return _first_of_each(program)


def hooks(encoding) -> frozenset[str]:
    """Returns the names of the hooks that an encoding overrides."""
    return frozenset(filter(encoding.overrides, HOOKS))


@functools.cache
def reads_length(name: str) -> bool:
    """Says whether what becomes of a token depends on the length of the sequence."""

    return outline(name).reads_length()


def one_of_each_kind() -> list[str]:
    """Returns the first scheme of every set of hooks, with and without parameters.

    Where a test is about the layer or model around the encoding, one of them stands for all.
    """

    def kind(name, encoding):
        return (
            hooks(encoding),
            encoding.per_layer,
            has_parameters(encoding),
            encoding.whole_rows,
        )

    return _first_of_each(kind)


def one_of_each_tile() -> list[str]:
    """Returns the first scheme of every set of functions that run on a tile of logits or values.

    Whatever else a scheme does comes before them, and is the same for every implementation of
    attention: one that rotates stands for all that rotate.
    """

    def tile(name, encoding):
        names = "rotate_values", "rotate_back", "score", "mix"
        functions = (encoding.overrides(n) and getattr(type(encoding), n) for n in names)
        before = encoding.overrides("observe")
        return *functions, before, encoding.whole_rows, schemes.ALL[name].mixes_heads

    return _first_of_each(tile)


def _first_of_each(key) -> list[str]:
    first: dict[tuple, str] = {}
    for name in SCHEMES:
        first.setdefault(key(name, outline(name)), name)
    return list(first.values())


@functools.cache
def outline(name: str):
    """Returns the scheme with shapes in the place of its parameters, which takes no time to make.

    It says what a test must know before it runs: hooks, per_layer, whole_rows, parameters.
    """
    return jax.eval_shape(lambda: build(name, trained=False))


def has_parameters(encoding) -> bool:
    """Says whether the encoding has numbers to train."""
    return bool(jax.tree.leaves(encoding))


def moved(module, seed: int, by: float = 0.3):
    """Returns ``module`` with Gaussian noise of width ``by`` added to every parameter."""
    rng = np.random.default_rng(seed)

    def move(p):
        return jnp.asarray(np.asarray(p) + by * rng.standard_normal(p.shape), p.dtype)

    return jax.tree.map(move, module)


def assert_every_parameter_is_seen(name: str, gradients) -> None:
    """Checks that outputs depend on every parameter of a scheme, except on invisible ones."""
    for path, gradient in parameter_paths(gradients):
        invisible = any(path[-len(end) :] == end for end in schemes.ALL[name].invisible)
        assert (np.abs(gradient).max() > 1e-3) != invisible, path


def mesh_of(kind=AxisType.Auto, **shape) -> jax.sharding.Mesh:
    """Returns a mesh over the first devices, whose axes are all of one kind."""
    devices = jax.devices()[: int(np.prod(list(shape.values())))]
    kinds = (kind,) * len(shape)
    return jax.make_mesh(tuple(shape.values()), tuple(shape), axis_types=kinds, devices=devices)


def placed(tree, mesh, *spec):
    """Puts arrays on a mesh, their axes over those of the mesh that ``spec`` names."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*spec)))


def close(actual, expected, rtol=1e-5, atol=1e-5):
    """Checks that two arrays agree to float32 rounding."""
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def close_trees(actual, expected, rtol=2e-4, atol=1e-4):
    """Compares leaf by leaf, to ``atol`` of the largest number in the leaf."""
    for (path, a), (_, b) in zip(*map(parameter_paths, (actual, expected)), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        scale = max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol * scale, err_msg=".".join(path))


def far(actual, expected) -> bool:
    """Says whether two arrays, or trees of arrays, differ by more than rounding."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    return any(float(np.abs(np.asarray(a) - np.asarray(b)).max()) > 1e-3 for a, b in pairs)


def largest(tree) -> float:
    """Returns the largest number of all, or 1 if they are smaller."""
    return max(1.0, *(float(np.abs(np.asarray(x)).max()) for x in jax.tree.leaves(tree)))


def build_model(encoding, *, seed: int = 0, trained: bool = True, **keywords):
    """Makes a Transformer of two layers over ``encoding``, a scheme's name or a built one."""
    if isinstance(encoding, str):
        encoding = build(encoding, num_layers=LAYERS)
    return _plain_model(seed, trained, **keywords).under(encoding)


@functools.cache
def _plain_model(seed, trained, **keywords):
    """Makes the model, whose parameters are the same under every encoding, under none."""
    arguments = dict(vocab_size=VOCAB, model_dim=WIDTH, num_layers=LAYERS, num_heads=HEADS)
    arguments |= dict(mlp_dim=WIDTH) | keywords
    model = posenc_jax.Transformer(posenc_jax.Encoding(), rngs=nnx.Rngs(seed), **arguments)
    if trained:
        # Wide enough for attention to be far from uniform, so that positions matter.
        model.embedding[...] = 25 * model.embedding[...]
        matrix = 3 if model.scan else 2
        for layer in model.layers:
            layer.block = jax.tree.map(lambda p: 8 * p if p.ndim == matrix else p, layer.block)
    return model


def normal(seed: int, *shape) -> np.ndarray:
    """Returns float32 standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def images_of_four(folder: pathlib.Path, count: int, side: int) -> str:
    """Makes images of noise with one brighter quarter: which, and how bright, is the class."""
    images = np.random.default_rng(0).integers(0, 60, (count, side, side)).astype(np.uint8)
    labels, half = np.arange(count) % 4, side // 2
    for image, label in zip(images, labels, strict=True):
        top, left = half * (label // 2), half * (label % 2)
        image[top : top + half, left : left + half] += np.uint8(60 * label)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return f"npz:{folder}/images.npz"


def projections(num_heads: int = HEADS, head_dim: int = HEAD_DIM) -> list[np.ndarray]:
    """Returns random matrices from the residual to queries, keys and values, ``[D, H, C]``."""
    return [normal(seed, WIDTH, num_heads, head_dim) * WIDTH**-0.5 for seed in (101, 102, 103)]


@jax.jit
def attention(encoding, x_BTD, positions, segment_ids=None, length=None, weights=None):
    """Runs one attention layer under ``encoding``, ``[B, T, H, C]``: embed, project, attend."""
    here = encoding.at(positions, segment_ids, length=length)
    return layer(here, jnp.asarray(x_BTD), weights)[0]


def layer(here, x_BTD, weights=None):
    """Returns attention ``[B, T, H, C]``, the embedded tokens, and queries, keys and values."""
    x_BTD = here.embed(x_BTD)
    q, k, v = (
        jnp.einsum("btd,dhc->bthc", x_BTD, jnp.asarray(w, x_BTD.dtype))
        for w in weights or projections()
    )
    out = posenc_jax.attend(here, q, k, v, x=x_BTD)
    return out, x_BTD, (q, k, v)


def of_first_layer(model, token_ids) -> list[np.ndarray]:
    """Returns float64 queries and keys of the first layer before they rotate, ``[B, T, H, C]``."""
    block = model.layers[0].block
    x_BTD = np.asarray(block.attention_norm(model.embed(token_ids)), np.float64)
    kernels = block.attention.q.kernel, block.attention.k.kernel
    return [(x_BTD @ np.asarray(p[...])).reshape(*token_ids.shape, HEADS, -1) for p in kernels]


@jax.jit
def forward(model, token_ids, positions, segment_ids=None, length=None):
    """Returns the logits of a Transformer."""
    return model(token_ids, positions, segment_ids, length=length)


@jax.jit
def loss_and_gradients(model, token_ids, positions, weights_BTV):
    """Returns a weighted sum of the logits, and its gradient by every parameter."""

    def loss(model):
        return (model(token_ids, positions) * weights_BTV).sum()

    return jax.value_and_grad(loss)(model)


def having(here, made):
    """Returns an encoding at its tokens as if it had made something else of them."""
    return dataclasses.replace(here, tokens=dataclasses.replace(here.tokens, made=made))


@jax.jit
def probabilities(here, q_BTHC, k_BSKC, of_keys=None):
    """Returns attention weights ``[B, H, T, S]``, read off by attending to one-hot values.

    The keys may be at other tokens, ``of_keys``.
    """
    B, S, K, _ = k_BSKC.shape
    one_hot = jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, K, S))
    keys = (k_BSKC, one_hot) if of_keys is None else (of_keys.keys(k_BSKC, one_hot),)
    return posenc_jax.attend(here, q_BTHC, *keys).swapaxes(1, 2)


@functools.partial(jax.jit, static_argnames="num_heads")
def bias(encoding, q_positions, k_positions, num_heads: int) -> jax.Array:
    """Returns what ``score`` adds between positions ``[T]`` and ``[S]``, ``[H, T, S]``."""
    q, k = (jnp.zeros((1, len(p), num_heads, HEAD_DIM)) for p in (q_positions, k_positions))
    here, there = (encoding.at(jnp.asarray(p)[None]) for p in (q_positions, k_positions))
    return posenc_jax.logits(here, q, there.keys(k, k))[0]


def golden(name: str) -> tuple[dict[str, np.ndarray], Any]:
    """Returns the arrays of one golden file and the settings they were made with."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays), INDEX[name]["params"]


def parameter_paths(module) -> list[tuple[tuple[str, ...], jax.Array]]:
    """Returns every parameter of a module with the names that lead to it."""

    def name(key):
        return str(getattr(key, "key", getattr(key, "name", key)))

    flat, _ = jax.tree_util.tree_flatten_with_path(module)
    return [(tuple(map(name, path[:-1])), leaf) for path, leaf in flat]


def parameters_float64(module) -> dict[str, np.ndarray]:
    """Returns every parameter of a module by its dotted path."""
    paths = parameter_paths(module)
    return {".".join(path): np.asarray(value, np.float64) for path, value in paths}


def refuses(name, call, error=ValueError):
    """Checks that ``call()`` is refused with an error that names the argument."""
    with pytest.raises(error, match=name):
        call()


def changed(config, **changes):
    """Returns ``config`` with other values; ``train__steps`` stands for ``train.steps``."""
    with config.unlocked():
        for name, value in changes.items():
            parent, _, leaf = name.replace("__", ".").rpartition(".")
            (config[parent] if parent else config)[leaf] = value
    return config
