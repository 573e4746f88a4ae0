"""Attention over several devices: batch, heads and tokens lie over axes of a mesh."""

import functools

import common
import jax
import numpy as np
import probe
import pytest
import schemes
from attention_cases import TILED, T, by, close, of_documents, operands, reference, sides
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import posenc_jax
from posenc_jax.attention.context import zigzag
from posenc_jax.positions import text

AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit


def model_axis(name):
    """Returns the axis that heads lie over, or None where each head needs all others."""
    return None if schemes.ALL[name].mixes_heads else "model"


def sharded_arguments(name, mesh, put):
    """Shards what ``probe.documents`` takes: tokens over the batch, and what has heads as well."""
    rows, weights_BTHC = probe.arguments()

    def placed(tree, *spec):
        return jax.tree.map(lambda x: put(x, NamedSharding(mesh, PartitionSpec(*spec))), tree)

    return (
        placed(common.build(name)),
        placed(rows, "data"),
        placed(weights_BTHC, "data", None, model_axis(name)),
        placed(common.projections(), None, model_axis(name)),
    )


def outline(x, sharding):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


@pytest.mark.parametrize("name", common.one_of_each_tile())
def test_operations_know_where_results_lie_on_explicit_axes(name):
    mesh = common.mesh_of(EXPLICIT, data=2, model=4)
    run = jax.jit(functools.partial(probe.documents, name))
    with jax.set_mesh(mesh):
        traced = run.trace(*sharded_arguments(name, mesh, outline))
    out = traced.out_info["documents"]
    spec = "data", None, model_axis(name), None
    assert out.sharding.spec == PartitionSpec(*spec)


@jax.jit
def of_text(encoding, q, k, v):
    """Returns attention over the eight tokens of a text."""
    return posenc_jax.attend(encoding.at(text(8)), q, k, v)


def test_arrays_bring_their_explicit_axes_with_them():
    """Nothing sets the mesh for the program."""
    mesh, encoding = common.mesh_of(EXPLICIT, data=2), common.build("transformer_xl")
    qkv = sides(4, 8, 8)
    actual = of_text(encoding, *common.placed(qkv, mesh, "data"))
    common.close(actual, of_text(encoding, *qkv))


def test_text_under_a_scheme_of_cameras_on_explicit_axes():
    """The transforms of text lie on every device, and the tokens on some."""
    mesh, encoding = common.mesh_of(EXPLICIT, context=2), common.build("prope")
    qkv = sides(4, 8, 8)
    with jax.set_mesh(mesh):
        actual = of_text(encoding, *common.placed(qkv, mesh, None, "context"))
    common.close(actual, of_text(encoding, *qkv))


@pytest.mark.parametrize("name", ["alibi", "t5"])
def test_heads_in_a_shard_map_over_every_axis(name):
    """Within it each device has all tokens, so there is nothing to pass around in a ring."""
    mesh, encoding = common.mesh_of(AUTO, context=2, model=2), common.build(name)
    here, spec = encoding.at(text(8)), PartitionSpec(None, None, "model")
    qkv = sides(4, 8, 8)

    def attend(heads, q, k, v):
        return posenc_jax.attend(here.of_heads(heads, common.HEADS), q, k, v)

    in_specs = PartitionSpec("model"), spec, spec, spec
    spread = jax.shard_map(attend, in_specs=in_specs, out_specs=spec, check_vma=False)
    with jax.set_mesh(mesh):
        actual = jax.jit(spread)(np.arange(common.HEADS), *qkv)
    common.close(actual, of_text(encoding, *qkv))


def test_a_model_in_a_shard_map_over_rows():
    mesh, model = common.mesh_of(AUTO, fsdp=2), common.build_model("rope")
    ids, forward = np.arange(32).reshape(4, 8), jax.jit(model)
    spec = PartitionSpec("fsdp")
    with jax.set_mesh(mesh):
        actual = jax.jit(jax.shard_map(model, in_specs=spec, out_specs=spec))(ids)
    common.close(actual, forward(ids), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("prope", EXPLICIT), ("grape_ap", EXPLICIT), ("seqpe", AUTO), ("grape_m_contextual", AUTO)],
)
def test_values_and_gradients(name, kind):
    mesh = common.mesh_of(kind, data=2, model=4)
    with jax.set_mesh(mesh):
        arguments = sharded_arguments(name, mesh, jax.device_put)
        actual = jax.jit(functools.partial(probe.documents, name))(*arguments)
    expected = probe.probe(name)
    heads = common.HEADS if schemes.ALL[name].mixes_heads else 1
    out = actual["documents"]
    assert out.sharding.shard_shape(out.shape) == (3, probe.T, heads, common.HEAD_DIM)
    for key in ("documents", "by_input"):
        one_device = np.stack([*getattr(expected, key).values()])
        common.close(actual[key], one_device, rtol=2e-4, atol=1e-4)
    leaves = map(jax.tree.leaves, (actual["by_parameters"], expected.by_parameters))
    for a, b in zip(*leaves, strict=True):
        common.close(a, b, rtol=2e-4, atol=1e-4 * max(1.0, np.abs(b).max()))


# Tokens on several devices


# Every strategy runs the tiles of ``blockwise``. Schemes change what devices send, or what is left
# of it: values, the layer's input, weights, all heads or whole rows.
ON_DEVICES = [
    ("blockwise", "deberta", EXPLICIT, dict(data=2)),
    ("ring", "alibi", AUTO, dict(context=8)),
    ("ring", "value_rope", AUTO, dict(context=4)),
    ("ring", "dape", AUTO, dict(context=4)),
    ("ring", "shaw", AUTO, dict(data=2, context=2)),
    ("ring", "fox", EXPLICIT, dict(context=4)),
    ("ring", "cope", EXPLICIT, dict(data=2, context=4)),
    ("gather", "shaw", AUTO, dict(data=2, context=4)),
    ("gather", "path", EXPLICIT, dict(context=4)),
    ("gather", "alibi", EXPLICIT, dict(data=2, context=4)),
    ("ulysses", "fox", AUTO, dict(context=2)),
    ("ulysses", "value_rope", AUTO, dict(context=2)),
    ("ulysses", "t5", AUTO, dict(data=2, context=2, model=2)),
    ("ulysses", "alibi", EXPLICIT, dict(data=2, context=2)),
]


@pytest.mark.parametrize(("implementation", "name", "kind", "shape"), ON_DEVICES)
def test_meshes(implementation, name, kind, shape):
    """Each device has its own part where the batch is sharded too."""
    encoding, *qkv = operands(name, kv_heads := 4 if "model" in shape else 2)
    expected = reference(name, kv_heads)
    axes = [axis if axis in shape else None for axis in ("data", "context", "model")]
    attend = TILED if implementation == "blockwise" else by(implementation)
    with jax.set_mesh(mesh := common.mesh_of(kind, **shape)):
        actual = of_documents(attend, encoding, *common.placed(qkv, mesh, *axes))
    close(actual, expected)
    output = actual[0][1]
    part = 2 // shape.get("data", 1), T // shape.get("context", 1)
    assert output.sharding.shard_shape(output.shape)[:2] == part


def test_tokens_on_another_explicit_axis_are_refused():
    qkv, here = sides(), common.build("rope").at(text(T))
    with jax.set_mesh(mesh := common.mesh_of(EXPLICIT, data=2, sequence=2)):
        q, k, v = common.placed(qkv, mesh, "data", "sequence")
        whole = common.placed([k, v], mesh, "data")
        for keys in ((k, v), (here.keys(k, v),)):
            common.refuses('"context"', lambda keys=keys: posenc_jax.attend(here, q, *keys))
        attend = jax.jit(functools.partial(posenc_jax.attend, here))
        common.close(attend(q, *whole), attend(*qkv))


@pytest.mark.parametrize("name", ["fox", "cable", "kv_shift", "dynamic_short_conv", "path"])
def test_inputs_lie_by_token_on_explicit_axes(name):
    """Some schemes sum over the inputs, or shift keys, along the axis that devices share."""
    encoding = common.build(name, num_kv_heads=2)
    qkv, x = sides(), common.normal(9, 2, T, common.WIDTH)

    @jax.jit
    def run(*operands):
        def loss(q, k, v, x):
            out = posenc_jax.attend(encoding.at(text(T)), q, k, v, x=x)
            return (out**2).sum(), out

        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*operands)

    expected = run(*qkv, x)
    with jax.set_mesh(mesh := common.mesh_of(EXPLICIT, data=2, context=2)):
        actual = run(*common.placed((*qkv, x), mesh, "data", "context"))
    close(actual, expected)
    out = actual[0][1]
    assert out.sharding.shard_shape(out.shape)[:2] == (1, T // 2)


def test_a_training_step_with_a_ring_gathers_no_tokens():
    """Keys go round from device to device; all else that belongs to a token stays where it is."""
    order = zigzag(T, 4)

    def loss(model, ids, targets, places, index):
        x_BTD = model.hidden(ids, places, index=index)
        return posenc_jax.cross_entropy(x_BTD, model.embedding[...], targets).mean()

    with jax.set_mesh(mesh := common.mesh_of(context=4)):
        tokens = np.zeros((2, 2, T), np.int32)
        ids, targets, order = common.placed([*tokens, order[None]], mesh, None, "context")
        step = jax.jit(jax.grad(loss))
        model = common.build_model("t5")
        model.implementation = "ring"
        program = step.lower(model, ids, targets, order, order).compile()
    text = program.as_text()
    assert "collective-permute(" in text
    assert "all-gather(" not in text


def test_zigzag():
    """Each device has the same number of pairs to compute."""
    order = zigzag(24, 3)
    assert sorted(order) == list(range(24))
    assert {int((piece + 1).sum()) for piece in order.reshape(3, -1)} == {100}
    common.refuses("length=20 must be a multiple of 6", lambda: zigzag(20, 3))
