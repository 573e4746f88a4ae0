"""What make cannot build, and what no hook may return, is refused by its name."""

import common
import jax.numpy as jnp
import numpy as np
import pytest
from calls import X_BTD, T, attend
from common import refuses
from flax import nnx

import posenc_jax
from posenc_jax.encodings.rotary.frequencies import PositionInterpolation, YaRN
from posenc_jax.positions import text

BAD_KEYWORDS = {
    "rope": [{"head_dim": 7}, {"rotary_dim": 10}, {"layout": "neox"}, {"base": 1.0}]
    + [{"axes": (0, 1)}, {"frequencies": YaRN}],
    "mrope": [{"sections": (1, 1, 1)}],
    "mhrope": [{"axis_heads": (2, 2, 2)}],
    "axial_rope": [{"num_axes": 3}],
    "pi": [{"factor": 0.5}],
    "yarn": [{"ramp": "linear"}, {"beta_fast": 0.5}],
    "longrope": [{"long_factor": (1.0, 2.0)}],
    "t5": [{"num_buckets": 7}, {"max_distance": 16}],
    "learned_2d": [{"out_of_range": "wrap"}],
    "fox": [{"rngs": 0}, {"num_layers": 0}],
    "seqpe": [{"hook": "rotary"}, {"max_position": 63}],
    "path": [{"num_kv_heads": 3}],
    "soft_cap": [{"cap": 0}, {"over": None}],
    "logn": [{"over": "irope"}, {"train_length": 1}],
}


@pytest.mark.parametrize("name", BAD_KEYWORDS)
def test_bad_values_of_keywords(name):
    """The error names the keyword; some are found only where the pairs of channels are known."""
    for bad in BAD_KEYWORDS[name]:
        word = next(iter(bad)).replace("rotary_dim", "rotary_dim|axes")
        refuses(word, lambda bad=bad: build(name, **bad).tokens(np.zeros((1, T), int)))


def build(name, **settings):
    """Builds a scheme at small sizes, with random numbers unless they are given."""
    given = common.arguments(name) | {"rngs": nnx.Rngs(0)} | settings
    return posenc_jax.make(name, **given)


def test_unknown_names_and_keywords_are_answered_with_the_nearest():
    refuses("did you mean 'alibi'", lambda: posenc_jax.make("alibbi", num_heads=4))
    refuses("'beta_fats'.*'beta_fast'", lambda: common.build("yarn", beta_fats=3), TypeError)
    refuses("did you mean 'rope'", lambda: common.build("logn", over="ropee"))
    for name, meant in (("rope", "head_dim"), ("sinusoidal", "model_dim")):
        refuses(f"did you mean '{meant}'", lambda n=name: posenc_jax.make(n, dim=8), TypeError)
    beneath = {"name": "rope", "bse": 1}
    refuses("did you mean 'base'", lambda: common.build("randomized", over=beneath), TypeError)


@pytest.mark.parametrize(
    ("name", "given", "missing"),
    [
        ("rope", {}, "head_dim="),
        ("learned", {"model_dim": 8}, "train_length=, rngs="),
        ("beam", {"head_dim": 8}, "num_layers="),
    ],
)
def test_a_missing_argument_is_named(name, given, missing):
    refuses(missing, lambda: posenc_jax.make(name, **given))


def test_a_keyword_may_be_a_number_of_numpy():
    factor = posenc_jax.make("pi", head_dim=8, factor=np.int64(4)).frequencies
    assert factor == PositionInterpolation(4.0)
    assert type(common.build("alibi", slope_scale=np.float32(0.5)).slope_scale) is float
    assert common.build("rope", base=jnp.float32(500)).base == 500


class Misspelt(posenc_jax.Encoding):
    def scores(self, logits_BHTS, tile):
        return logits_BHTS - tile.distance()


def test_a_misspelt_hook_is_refused(monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "misspelt", f"{__name__}:Misspelt")
    refuses("misspelt", lambda: posenc_jax.make("misspelt"))


def test_a_misspelt_hook_of_a_class_outside_of_the_registry_is_refused():
    refuses("misspelt", lambda: attend(Misspelt()))


class ByHead(posenc_jax.Encoding):
    """Makes a number for each head, which no cut by tokens has a place for."""

    def prepare(self, tokens, *, length=None, key=None):
        return tokens.having(jnp.ones(common.HEADS))

    def observe(self, x_BTD, tokens, state=None):
        return jnp.ones(common.HEADS), ()


def test_what_hooks_make_has_the_tokens_along_axis_1():
    refuses("ByHead .* axis 1", lambda: ByHead().tokens(text(T)))
    tokens = posenc_jax.Encoding().tokens(text(T))
    refuses("ByHead .* axis 1", lambda: tokens.resumed(ByHead(), X_BTD, None))
