"""Tests the model around an encoding."""

import functools

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, close_trees, far
from jax.sharding import AxisType

B, T, QUERY = 2, 24, 10
TOKEN_IDS = np.arange(B * T, dtype=np.int32).reshape(B, T)
POSITIONS = np.stack([np.random.default_rng(b).permutation(T + 8)[:T] for b in range(B)])
WEIGHTS_BTV = common.normal(0, B, T, common.VOCAB)
# The loss reads one output of the first sequence, and all of the second.
WEIGHTS_BTV[0, np.arange(T) != QUERY] = 0


@functools.cache
def trained_once(name, **options):
    """Returns the loss of a model and its gradients, as NumPy arrays.

    Layers under ``log_scale`` have each a scale of their own, and share the rates beneath.
    """
    over = {"over": common.build("lerope")} if name == "log_scale" else {}
    encoding = common.build(name, num_layers=common.LAYERS, **over)
    model = common.build_model(encoding, tied=False, **options)
    return jax.device_get(common.loss_and_gradients(model, TOKEN_IDS, POSITIONS, WEIGHTS_BTV))


# Parameters that layers share, or each has, of embeddings, of positions, of logits, of tokens.
@pytest.mark.parametrize("name", ["learned", "lerope", "inkling", "kv_shift"])
def test_causality_and_every_parameter_by_gradient(name):
    """Each layer must use its own parameters."""
    _, gradients = trained_once(name, scan=True, remat=True)
    by_token = np.abs(gradients.embedding[...]).max(axis=-1)[TOKEN_IDS[0]]
    assert (by_token[: QUERY + 1] > 0).all()
    assert (by_token[QUERY + 1 :] == 0).all()
    gradients = layer_by_layer(gradients)
    chex.assert_tree_all_finite(gradients)
    common.assert_every_parameter_is_seen(name, gradients)


@pytest.mark.parametrize("name", ["learned", "inkling", "log_scale"])
def test_scan_and_remat_change_no_number(name):
    results = [trained_once(name), trained_once(name, scan=True, remat=True)]
    close_trees(*((loss, layer_by_layer(gradients)) for loss, gradients in results))


def layer_by_layer(model):
    """Returns what layers share and every layer by itself, of a model with or without scan."""
    shared = model.embedding, model.unembedding, model.final_norm, model.encodings
    if not model.scan:
        return shared, [*model.layers]
    repeats = range(model.num_layers // len(model.layers))
    cut = [[jax.tree.map(lambda p, i=i: p[i], layer) for layer in model.layers] for i in repeats]
    return shared, [layer for layers in cut for layer in layers]


def test_bfloat16():
    exact = common.forward(common.build_model("shaw", scan=True), TOKEN_IDS, POSITIONS)
    rounded_model = common.build_model("shaw", scan=True, dtype="bfloat16")
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(rounded_model))
    rounded = common.forward(rounded_model, TOKEN_IDS, POSITIONS)
    assert rounded.dtype == jnp.float32
    assert 0 < np.abs(rounded - exact).mean() / np.abs(exact).mean() < 0.05


def test_evaluation_under_another_encoding():
    trained = common.build_model("alibi")
    other = common.build("transformer_xl", num_layers=common.LAYERS)
    swapped = common.forward(trained.under(other), TOKEN_IDS, POSITIONS)
    close(swapped, common.forward(common.build_model(other), TOKEN_IDS, POSITIONS), atol=1e-4)
    assert far(swapped, common.forward(trained, TOKEN_IDS, POSITIONS))


@pytest.mark.parametrize(
    ("name", "kind"), [("learned", AxisType.Auto), ("transformer_xl", AxisType.Explicit)]
)
def test_on_a_mesh(name, kind):
    """The batch is sharded, and the parameters are on every device."""
    model = common.build_model(name, tied=False)
    with jax.set_mesh(mesh := common.mesh_of(kind, data=2, model=4)):
        batch = common.placed((TOKEN_IDS, POSITIONS, WEIGHTS_BTV), mesh, "data")
        actual = common.loss_and_gradients(common.placed(model, mesh), *batch)
    close_trees(actual, trained_once(name))


@pytest.mark.parametrize("scan", [False, True])
def test_angles_are_computed_once_for_all_layers(scan):
    """Neither for each layer nor in the loop over layers, also in a program that is compiled."""

    def cosines(num_layers):
        model = common.build_model("rope", num_layers=num_layers, scan=scan)
        program = jax.make_jaxpr(lambda model: model(TOKEN_IDS, POSITIONS))(model)
        loops = [step for step in program.eqns if step.primitive.name == "scan"]
        assert not any("= cos" in str(loop.params["jaxpr"]) for loop in loops)
        assert len(loops) == scan
        compiled = jax.jit(lambda model: model(TOKEN_IDS, POSITIONS)).lower(model).compile()
        return str(program).count("= cos"), compiled.as_text().count("cosine(")

    one = cosines(1)
    assert one == cosines(2) and min(one) > 0


# Patterns of layers


def by_hand(model, layer_encodings, token_ids, positions):
    """Returns the model's logits, one block after another, of a model without scan."""
    x_BTD = model.embedding[...][token_ids]
    for encoding in {id(item): item for item in layer_encodings}.values():
        x_BTD = encoding.at(positions).embed(x_BTD)
    for layer, encoding in zip(model.layers, layer_encodings, strict=True):
        x_BTD, _ = layer.block(x_BTD, encoding.at(positions))
    return model.final_norm(x_BTD) @ model.embedding[...].T


def test_pattern_with_parameters_for_each_layer():
    stacked, bias = common.build("transformer_xl", num_layers=4), common.build("t5")
    pattern = [stacked, bias, stacked]
    model, plain = (common.build_model(pattern, num_layers=6, scan=scan) for scan in (True, False))
    first, *middle, last = (stacked.of_layer(i) for i in range(4))
    layers = [first, bias, *middle, bias, last]
    output = common.forward(model, TOKEN_IDS, POSITIONS)
    close(output, jax.jit(by_hand)(plain, layers, TOKEN_IDS, POSITIONS), atol=1e-4)
    swapped = jax.tree.map(lambda p: p[::-1], stacked)
    other = model.under([swapped, bias, swapped])
    assert far(output, common.forward(other, TOKEN_IDS, POSITIONS))


def test_one_instance_is_one_set_of_parameters():
    bias = common.build("t5")
    model = common.build_model([bias, common.build("rope"), bias, bias], num_layers=4)
    tables = [p for path, p in common.parameter_paths(model) if path[-1] == "table"]
    assert len(tables) == 1
