"""Every scheme in a Linen model gives the numbers of NNX, under Linen's own transforms too."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import posenc_jax
from posenc_jax.positions import text

KINDS = ["learned", "t5", "inkling"]
B, T, DEPTH = 2, 12, 2
SEGMENT_IDS = np.repeat([[0, 1], [2, 2]], T // 2, axis=1)


def residual() -> jax.Array:
    return jnp.asarray(common.normal(0, B, T, common.WIDTH))


class Layer(nn.Module):
    """Embeds, projects with fixed matrices, attends; the residual is wide enough for all heads."""

    scheme: str

    @nn.compact
    def __call__(self, x_BTD, positions, segment_ids=None):
        encoding = posenc_jax.linen.Encoding(
            self.scheme, name="encoding", **common.arguments(self.scheme)
        )
        here = encoding.at(positions, segment_ids)
        x_BTD = here.embed(x_BTD)
        q, k, v = (jnp.einsum("btd,dhc->bthc", x_BTD, w) for w in common.projections())
        attended = posenc_jax.attend(here, q, k, v, x=x_BTD)
        return x_BTD + attended.reshape(x_BTD.shape)


def in_nnx(encoding, x_BTD, positions, segment_ids=None):
    """Runs the layer above, written with the NNX module."""
    attended = common.attention(encoding, x_BTD, positions, segment_ids)
    x_BTD = encoding.at(positions, segment_ids).embed(x_BTD)
    return x_BTD + attended.reshape(x_BTD.shape)


def nnx_module(name, params):
    """Makes the scheme in NNX with the parameters of the Linen module."""
    encoding = posenc_jax.make(name, rngs=nnx.Rngs(9), **common.arguments(name))
    structure, state = nnx.split(encoding)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(structure, state)


def trained(variables):
    return common.moved(variables, seed=1)


def assert_close(actual, expected, atol=1e-5):
    common.close(actual, expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", KINDS)
def test_linen_equals_nnx(name):
    layer, x_BTD, positions = Layer(name), residual(), text(T)
    # No stream but "params" in init, none at all in apply.
    init, apply = jax.jit(layer.init_with_output), jax.jit(layer.apply)
    output, variables = init(jax.random.key(0), x_BTD, positions, SEGMENT_IDS)
    assert_close(apply(variables, x_BTD, positions, SEGMENT_IDS), output)

    variables = trained(variables)
    encoding = nnx_module(name, variables["params"]["encoding"])
    expected = jax.jit(in_nnx)(encoding, x_BTD, positions, SEGMENT_IDS)
    assert_close(apply(variables, x_BTD, positions, SEGMENT_IDS), expected)
    assert np.abs(expected - output).max() > 1e-3


@pytest.mark.parametrize("name", ["seqpe", "shaw"])
def test_initial_values_are_those_of_nnx(name):
    """A single draw from the "params" stream makes all parameters, as ``make`` does."""

    class Key(nn.Module):
        def __call__(self):
            return self.make_rng("params")

    encoding = posenc_jax.linen.Encoding(name, **common.arguments(name))
    variables = jax.jit(lambda key: encoding.init(key, text(T)))(jax.random.key(0))
    key = Key().apply({}, rngs={"params": jax.random.key(0)})
    expected = nnx.split(posenc_jax.make(name, rngs=nnx.Rngs(key), **common.arguments(name)))[1]
    # The compiler may round a product of a draw and its width differently.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(close, variables["params"], nnx.to_pure_dict(expected))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_under_scan_and_remat(name):
    """Layers under nn.scan and nn.remat equal layers one by one in NNX."""
    positions, x_BTD = text(T), residual()

    def step(layer, x_BTD, _):
        return layer(x_BTD, positions, SEGMENT_IDS), None

    scanned = nn.scan(
        nn.remat(step), variable_axes={"params": 0}, split_rngs={"params": True}, length=DEPTH
    )

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x_BTD):
            return scanned(Layer(name), x_BTD, None)[0]

    def layer_by_layer(params):
        x = x_BTD
        for i in range(DEPTH):
            of_layer = jax.tree.map(lambda p, i=i: p[i], params)
            x = in_nnx(nnx_module(name, of_layer), x, positions, SEGMENT_IDS)
        return x

    variables = trained(jax.jit(Model().init)(jax.random.key(0), x_BTD))
    params = variables["params"]["Layer_0"]["encoding"]
    output = jax.jit(Model().apply)(variables, x_BTD)
    assert_close(output, jax.jit(layer_by_layer)(params), atol=1e-4)


def test_one_encoding_for_all_layers():
    """An encoding made in the model and given to its layers is one set of parameters."""

    class Given(nn.Module):
        encoding: posenc_jax.linen.Encoding

        def __call__(self, x_BTD):
            heads = x_BTD.reshape(B, T, common.HEADS, common.HEAD_DIM)
            here = self.encoding.at(text(T))
            return x_BTD + posenc_jax.attend(here, heads, heads, heads).reshape(x_BTD.shape)

    class Model(nn.Module):
        def setup(self):
            self.t5 = posenc_jax.linen.Encoding("t5", num_heads=common.HEADS, model_dim=32)
            self.layers = [nn.remat(Given)(self.t5) for _ in range(2)]

        def __call__(self, x_BTD):
            for layer in self.layers:
                x_BTD = layer(x_BTD)
            return x_BTD

    output, variables = Model().init_with_output(jax.random.key(0), residual())
    assert list(variables["params"]) == ["t5"]
    assert_close(Model().apply(variables, residual()), output)


def test_a_pattern_of_layers_is_refused():
    class OneLayer(nn.Module):
        @nn.compact
        def __call__(self, positions):
            return posenc_jax.linen.Encoding("irope", head_dim=8).at(positions).tokens.positions

    common.refuses("name='irope'", lambda: OneLayer().init(jax.random.key(0), text(T)))
