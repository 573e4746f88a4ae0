"""Compares patterns of layers with other people's code."""

import common
import pytest
from golden_checks import assert_frequencies

import posenc_jax
from posenc_jax.encodings.wrappers.logit_scale import BeamScale
from posenc_jax.hf.pattern import same

PATTERNS = {
    "pattern_beam": ("beam", {}),
    "pattern_cohere2": ("global_nope", {"layout": "interleaved"}),
    "pattern_muse_spark": ("global_nope", {"from_end": True}),
    "pattern_olmo3_yarn_global": ("global_yarn", {"factor": 4.0, "train_length": 64}),
    "pattern_smollm3": ("global_nope", {"window": None}),
}


@pytest.mark.parametrize(("golden", "name", "keywords"), [(key, *x) for key, x in PATTERNS.items()])
def test_patterns_of_layers(golden, name, keywords):
    """Windows, rotations and attention factors are those of each layer of the models."""
    arrays, params = common.golden(golden)
    count, rope = params["num_hidden_layers"], params["rope_parameters"]
    base = rope.get("rope_theta") or rope["sliding_attention"]["rope_theta"]
    window = {"window": params["sliding_window"]} if "sliding_window" in params else {}
    sizes = dict(head_dim=params["head_dim"], num_layers=count)
    layers = posenc_jax.make(name, base=base, **sizes, **window, **keywords)
    layers.check(count)
    read = posenc_jax.layers_from_hf(params, rope_scaling=None)
    for number in range(count):
        encoding, window_of = layers.at(number)
        assert window_of == read.at(number)[1] and same(encoding, read.at(number)[0])
        assert (window_of or 0) == arrays["window"][number]
        rotates = isinstance(encoding, type(common.build("rope")))
        assert rotates == arrays["uses_rope"][number]
        if rotates:
            scaling = arrays["attention_scaling"][number]
            assert_frequencies(encoding, arrays["inv_freq"][number], scaling)
        elif golden == "pattern_beam":
            assert isinstance(encoding, BeamScale)


def test_irope_layer_pattern():
    arrays, params = common.golden("irope_layer_pattern")
    layers = posenc_jax.make("irope", head_dim=common.HEAD_DIM, interval=params["interval"])
    layers.check(params["layers"])
    repeats = params["layers"] // len(layers.pattern)
    rope = type(common.build("rope"))
    rotates = [isinstance(layers.distinct[which], rope) for which in layers.pattern]
    for name in ("llama4_use_rope", "smollm3_use_rope"):
        assert rotates * repeats == arrays[name].astype(bool).tolist()
