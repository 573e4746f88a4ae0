"""PRoPE against its authors' code."""

import common
import numpy as np
import pytest
from golden_checks import close
from test_prope import attended

from posenc_jax.encodings import prope


@pytest.mark.parametrize("name", ["out", "out_world_changed"])
def test_prope(name):
    arrays, params = common.golden("prope")
    rows, columns = params["patches_y"], params["patches_x"]
    cameras = arrays["viewmats"].shape[1]
    positions = np.indices((cameras, rows, columns), np.int32)[1:].reshape(2, 1, -1)
    viewmats = arrays["viewmats"]
    if name == "out_world_changed":
        viewmats = viewmats @ arrays["world_change"]
    transforms = prope.prepare(
        positions,
        viewmats,
        arrays["Ks"],
        head_dim=params["head_dim"],
        image_size=(params["image_height"], params["image_width"]),
        base=params["rope_base"],
    )
    out = attended(transforms, arrays["q"], arrays["k"], arrays["v"])
    close(out, arrays[name], rtol=1e-5, atol=1e-5)
