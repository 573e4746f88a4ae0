"""Compares PRoPE with its authors' code."""

import common
import numpy as np
import pytest
from golden_checks import close
from test_prope import attended

import posenc_jax
from posenc_jax.positions import cameras


@pytest.mark.parametrize("name", ["out", "out_world_changed"])
def test_prope(name):
    arrays, params = common.golden("prope")
    grid = params["patches_y"], params["patches_x"]
    count = arrays["viewmats"].shape[1]
    patches = np.indices((count, *grid), np.int32)[1:].reshape(2, -1).T[None]
    viewmats = arrays["viewmats"]
    if name == "out_world_changed":
        viewmats = viewmats @ arrays["world_change"]
    size = params["image_height"], params["image_width"]
    positions = cameras(patches, viewmats, arrays["Ks"], image_size=size)
    encoding = posenc_jax.make("prope", head_dim=params["head_dim"], base=params["rope_base"])
    out = attended(encoding, positions, arrays["q"], arrays["k"], arrays["v"])
    close(out, arrays[name], rtol=1e-5, atol=1e-5)
