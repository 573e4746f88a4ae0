"""Compares encodings of images with the code of models that were released."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import as_published, close, empty, float32, load, rotated

import posenc_jax
from posenc_jax.encodings.rotary.frequencies.by_axis import Spectra
from posenc_jax.positions import centred_grid


def rows_and_columns(arrays, params):
    """Returns positions ``[1, T, 2]`` of columns and rows, after tokens that do not rotate."""
    places = np.moveaxis(arrays["positions_xy"][::-1], 0, -1)[None]
    return np.pad(places, ((0, 0), (params["prefix_tokens"], 0), (0, 0)))


def test_rope_mixed():
    arrays, params = common.golden("rope_mixed")
    sizes = dict(num_heads=params["num_heads"], head_dim=params["head_dim"], base=params["base"])
    encoding = posenc_jax.make("rope_mixed", **sizes, rngs=nnx.Rngs(0))
    # At the start all pairs of a head have two directions, at the angle that it drew.
    angle = jnp.arctan2(*jnp.moveaxis(encoding.vectors[:, 0], -1, 0))[:, None, None]
    turn = np.exp(1j * (arrays["init_angle"][:, None] - angle[..., 0]))
    at_start = (encoding.vectors[..., 1] + 1j * encoding.vectors[..., 0]) * turn
    at_start = np.stack([at_start.real, at_start.imag], axis=-1)
    close(at_start, arrays["init_freqs"], rtol=1e-5, atol=1e-5)
    encoding.vectors[...] = jnp.asarray(arrays["freqs"][..., ::-1])
    positions = jnp.asarray(rows_and_columns(arrays, params))
    q, k = (rotated(encoding, jnp.asarray(arrays[key]), positions) for key in "qk")
    as_published("rope_mixed", q_rot=q, k_rot=k)
    # Pairs (1, 0) come out as the cosine and sine of their angles.
    unit = jnp.tile(jnp.array([1.0, 0.0]), params["head_dim"] // 2)
    unit = jnp.broadcast_to(unit, (1, positions.shape[1], params["num_heads"], len(unit)))
    after = rotated(encoding, unit, positions)[0, params["prefix_tokens"] :].swapaxes(0, 1)
    as_published("rope_mixed", cos=after[..., 0::2], sin=after[..., 1::2])


def test_axial_rope_of_rope_vit():
    """A setting of RoPE: columns rotate the first half of the pairs, rows the second."""
    arrays, params = common.golden("rope_vit_axial")
    of_axis, sizes = params["head_dim"] // 4, {key: params[key] for key in ("head_dim", "base")}
    by_axis = dict(frequencies=Spectra((of_axis,) * 2), axes=(1,) * of_axis + (0,) * of_axis)
    encoding = posenc_jax.make("rope", **sizes, **by_axis, layout="interleaved")
    positions = jnp.asarray(rows_and_columns(arrays, params))
    patches = positions[:, params["prefix_tokens"] :]
    cos, sin = (table[0, :, 0] for table in encoding.at(patches).tokens.made)
    q, k = (rotated(encoding, jnp.asarray(arrays[key]), positions) for key in "qk")
    as_published("rope_vit_axial", cos=cos, sin=sin, q_rot=q, k_rot=k)


@pytest.mark.parametrize("golden", ["golden_gate_2d", "golden_gate_nd"])
def test_golden_gate(golden):
    arrays, params = common.golden(golden)
    given = {key: params[key] for key in ("num_heads", "head_dim", "num_axes", "zero_share")}
    given |= dict(slowest=params["min_freq"], fastest=params["max_freq"])
    encoding = posenc_jax.make("golden_gate", **given)
    close(encoding.rates(), arrays["freqs"], rtol=1e-5, atol=2e-5)
    positions = jnp.asarray(np.moveaxis(arrays["positions"], 0, -1), jnp.float32)
    after = rotated(encoding, jnp.asarray(arrays["x"]), positions)
    close(after, arrays["x_rot"], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("golden", ["dinov3_rope", "dinov3_rope_augmented"])
def test_dinov3(golden, monkeypatch):
    arrays, params = common.golden(golden)
    encoding = posenc_jax.make("dinov3", head_dim=params["head_dim"], base=params["rope_theta"])
    grid = jnp.asarray(centred_grid(*params["grid"], others=params["prefix_tokens"]))
    if "shift" in arrays:
        # What the released code drew: a shift, and the product of both of its factors.
        drawn = arrays["shift"], np.log(arrays["factor"])
        draws = iter([*(x[None, None] for x in drawn), np.zeros((1, 1, 1))])
        monkeypatch.setattr(jax.random, "uniform", lambda *_, **__: next(draws))
        grid = encoding.augmented(grid, jax.random.key(0))
    grid = jnp.asarray(grid, jnp.float32)
    patches = grid[:, params["prefix_tokens"] :]
    close(patches[0], arrays["coords"], rtol=1e-5, atol=1e-6)
    rate, _ = encoding.frequencies(params["head_dim"], params["rope_theta"], 1)
    cos, sin = (table[0, :, 0] for table in encoding.at(patches).tokens.made)
    # Rows and columns have the same rates.
    q, k = (rotated(encoding, jnp.asarray(arrays[key]), grid) for key in "qk")
    as_published(golden, inv_freq=rate[: len(rate) // 2], cos=cos, sin=sin, q_rot=q, k_rot=k)


def test_dinov3_moves_the_patch_in_the_centre_but_no_class_token():
    """An odd grid has a patch in its centre, where class and register tokens are too."""
    encoding = posenc_jax.make("dinov3", head_dim=8, shift=0.3)
    grid = jnp.asarray(centred_grid(3, 5, others=2))
    placed = encoding.augmented(grid, jax.random.key(0))
    np.testing.assert_array_equal(placed[0, :2], 0)
    assert (abs(placed - grid)[0, 2:] > 1e-3).all()


def test_dinov3_moves_coordinates_in_training():
    """Each draw is a shift, then a factor; both lie where they may, and axes differ."""
    given = dict(shift=0.3, jitter=1.5, rescale=2.0)
    encoding = posenc_jax.make("dinov3", head_dim=8, **given)
    grid = jnp.asarray([[[-1.0, -1.0], [1.0, 1.0]]])
    keys = jax.random.split(jax.random.key(0), 400)
    placed = np.asarray(jax.vmap(lambda key: encoding.augmented(grid, key))(keys))[:, 0]
    factor = (placed[:, 1] - placed[:, 0]) / 2
    shift = placed[:, 1] / factor - 1
    assert 0.28 < np.abs(shift).max() <= 0.3 + 1e-6
    logs = np.log(factor)
    assert 0.9 < np.abs(logs).max() / np.log(3.0) <= 1 + 1e-6
    between = np.abs(logs[:, 0] - logs[:, 1]).max() / np.log(2.25)
    assert 0.9 < between <= 1 + 1e-5
    assert np.abs(shift[:, 0] - shift[:, 1]).max() > 0.3
    np.testing.assert_array_equal(encoding.at(grid).tokens.positions, grid)


@pytest.mark.parametrize("golden", ["swinv2_cpb", "swinv2_cpb_pretrained"])
def test_swin_v2(golden):
    arrays, params = float32(golden)
    trained = params["pretrained_window"] if params["pretrained_window"][0] else params["window"]
    H, hidden = params["num_heads"], params["hidden"]
    given = dict(num_heads=H, grid=tuple(trained), hidden=hidden)
    encoding = empty("swin_v2", **given)
    names = {"inner_kernel": "w1", "inner_bias": "b1", "outer_kernel": "w2"}
    names |= {"log_scale": "logit_scale"}
    load(encoding, {name: arrays[key] for name, key in names.items()})
    cells = np.stack(np.indices(params["window"]), axis=-1).reshape(1, -1, 2)

    @jax.jit
    def bias_and_out(encoding, q, k, v):
        here = encoding.at(jnp.asarray(cells))
        bias = posenc_jax.logits(here, 0 * q, k)
        return bias, posenc_jax.attend(here, q, k, v, causal=False)

    bias, out = bias_and_out(encoding, *(arrays[key] for key in ("q", "k", "v")))
    close(bias[0], arrays["bias"], rtol=2e-5, atol=2e-5)
    close(out, arrays["out"], rtol=2e-5, atol=2e-5)
