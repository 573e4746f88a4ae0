"""What make cannot build, and what no hook may return, is refused by its name."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schemes
from calls import INF, NAN, X_BTD, C, H, T
from common import refuses
from flax import nnx

import posenc_jax
from posenc_jax import registry
from posenc_jax.encodings.rotary.axis_frequencies import ByAxis
from posenc_jax.encodings.rotary.frequencies import Default, PositionInterpolation, YaRN
from posenc_jax.encodings.rotary.layouts import to_half, to_interleaved
from posenc_jax.positions import text

BAD_KEYWORDS = {
    "rope": [{"head_dim": 7}, {"rotary_dim": 3}, {"rotary_dim": 10}, {"rotary_dim": "8"}]
    + [{"layout": "neox"}, {"base": 1.0}, {"base": NAN}, {"axes": (0, 1)}, {"axes": 1}]
    + [{"axes": (0, 1, -2, 0)}, {"axes": ((0, 1, 0, 0), (0, 1))}, {"frequencies": YaRN}]
    + [{"axes": ((1.0, 0.0),) * 3}, {"axes": (((1.0,),) * 3,)}]
    + [{"frequencies": ByAxis((0, 0, 1, 1), (Default(),) * 2), "axes": (0, 1, 0, 1)}]
    + [{"head_dim": value} for value in (0, -4, 8.0, "8", True, 2**31, np.float32(8))],
    "golden_gate": [{"rotary_dim": 2**40}, {"fastest": INF}, {"zero_share": 2.0}]
    + [{"fastest": 0.1}, {"num_axes": 1}],
    "axial_rope": [{"num_axes": 3}],
    "mrope": [{"sections": (1, 1, 1)}, {"sections": (2, 3, -1)}, {"head_dim": 4}],
    "i_mrope": [{"sections": (1, 1, 2)}, {"order": (0, 2)}],
    "videorope": [{"sections": (1, 2, 1)}]
    + [{"frequencies": ByAxis((0,) * 4, (Default(),) * 3), "head_dim": 8}],
    "videorope_pp": [{"factor": 0.5}, {"train_length": 1}],
    "time_rope": [{"sections": (4, 4, 4)}],
    "dinov3": [{"head_dim": 6}, {"shift": -0.1}, {"jitter": 0.5}],
    "rope_mixed": [{"head_dim": 6}],
    "value_rope": [{"frequencies": YaRN(32, 4.0)}],
    "mhrope": [{"axis_heads": (-1, 2, 2)}, {"axis_heads": (2, 2, 2)}]
    + [{"num_kv_heads": 2, "axis_heads": None}],
    "pi": [{"factor": 0.5}, {"factor": True}],
    "ntk": [{"factor": INF}, {"rotary_dim": 2}],
    "ntk_critical": [{"factor": 0.5}, {"train_length": 6}],
    "dynamic_ntk": [{"factor": None}],
    "ntk_by_parts": [{"factor": 0.5}, {"beta": 0.5}],
    "llama3": [{"factor": 0.5}, {"high_freq_factor": 0.5}],
    "yarn": [{"factor": 0}, {"ramp": "linear"}, {"beta_fast": 0.5}, {"beta_slow": 0.0}]
    + [{"truncate": None}, {"attention_factor": NAN}, {"mscale": 0.7}],
    "dynamic_yarn": [{"ramp": "linear"}, {"beta_slow": 0.0}, {"attention_factor": 0.0}],
    "longrope": [{"factor": 0.5}, {"train_length": 1}, {"attention_factor": 0.0}]
    + [{"short_attention_factor": 0.0}, {"start_tokens": -1}, {"long_factor": (1.0, 2.0)}]
    + [{"short_factor": (1, 1, 1, INF)}],
    "longrope2": [{"factor": 0.5}, {"base": 1.0}, {"critical_pair": 4}, {"tail_factors": 3.0}]
    + [{"tail_factors": (4.0, 5.0), "critical_pair": 1}]
    + [{"tail_factors": (5.0, 4.5), "critical_pair": 2}],
    "clipped_rope": [{"clipped_pairs": 0}, {"clipped_pairs": 5}, {"taper": "soft"}],
    "hope": [{"cut_cycles": -1.0}],
    "p_rope": [{"fraction": 0.0}, {"fraction": 1.5}, {"fraction": 0.1}, {"factor": 0.0}],
    "xpos": [{"scale_base": 0.0}, {"gamma": -0.1}],
    "fope": [{"padding": "zero"}, {"rotary_dim": 2}, {"train_length": 6}, {"gain": -1.0}],
    "pope": [{"phase_init": "normal"}, {"base": 0.5}],
    "prope": [{"time_base": 1.0}, {"base": 1.0}, {"time_channels": 3}, {"head_dim": 14}],
    "rerope": [{"window": 0}],
    "leaky_rerope": [{"window": 4.0}, {"factor": 0.5}],
    "self_extend": [{"group_size": 0}, {"window": -8}],
    "dual_chunk": [{"local_window": 24}, {"chunk_size": 20.5}, {"chunk_size": 2**31}],
    "alibi": [{"slope_scale": 0.0}, {"slope_scale": "2"}, {"slope_scale": jnp.float32(2)}],
    "t5": [{"num_buckets": 7}, {"num_buckets": 6, "bidirectional": True}, {"table_scale": NAN}]
    + [{"max_distance": 16}, {"max_distance": 99.5}, {"bidirectional": "false"}],
    "fire": [{"init_length": 0.0}, {"init_length": INF}, {"hidden": 0}],
    "sandwich": [{"channels": 7}, {"base": 0}],
    "swin_v2": [{"grid": 8}],
    "shaw": [{"max_distance": 0}, {"values": np.ones(2)}],
    "deberta": [{"max_distance": 0}, {"num_buckets": 7}, {"p2c_row": "code"}]
    + [{"max_distance": 5, "num_buckets": 8}],
    "dape": [{"bias": "fire"}, {"hidden": 0}],
    "cope": [{"num_positions": 1}, {"num_positions": NAN}],
    "learned": [{"out_of_range": "wrap"}],
    "learned_2d": [{"out_of_range": "wrap"}, {"grid": (4, 0)}, {"train_length": None}],
    "fox": [{"rngs": 0}, {"num_layers": 0}],
    "sinusoidal": [{"model_dim": 33}, {"base": -5}, {"layout": "pairs"}],
    "sinusoidal_2d": [{"base": 0}, {"num_axes": 3}, {"num_axes": {}}],
    "randomized": [{"max_length": 0}, {"max_length": 2**24 + 1}],
    "seqpe": [{"num_axes": [2]}, {"scalar_scale": 1j}, {"num_pivots": None}, {"temperature": INF}]
    + [{"hook": "rotary"}, {"pe_qk": "multi"}, {"pe_qk": "none", "num_kv_heads": 2}]
    + [{"encoder_heads": 5}, {"max_position": 63}, {"max_position": 10**8 + 1}]
    + [{"shift_probability": 1.5}, {"num_candidates": 1}, {"encoder_layers": 0}]
    + [{"transfer_weight": -0.1}, {"contrastive_weight": NAN}],
    "transformer_xl": [{"model_dim": 33}, {"base": 0.0}],
    "inkling": [{"extent": 2**40}, {"log_floor": 4.0}],
    "path": [{"num_kv_heads": 3}, {"rank": 0}, {"width": 0}],
    "selective_rope": [{"model_dim": 33}, {"rank": 0}, {"width": 0}, {"temperature": 0.0}],
    "llama4_temperature": [{"attn_scale": -0.1}, {"attn_scale": NAN}, {"floor_scale": NAN}],
    "ministral_scale": [{"attn_scale": INF}],
    "beam_scale": [{"exponent": INF}],
    "soft_cap": [{"cap": 0}, {"cap": INF}, {"over": None}, {"over": {"base": 1e4}}],
    "logn": [{"over": ["rope"]}, {"over": "irope"}, {"train_length": 1}],
    "ssmax": [{"over": 3, "num_layers": 2}, {"train_length": 1}],
    "dual_base": [{"local_base": 0.5}, {"global_base": 0.5}, {"global_factor": 0.5}],
}


@pytest.mark.parametrize("name", BAD_KEYWORDS)
def test_bad_values_of_keywords(name):
    """The error names the keyword; some are found only where the pairs of channels are known."""
    for bad in BAD_KEYWORDS[name]:
        word = next(iter(bad)).replace("rotary_dim", "rotary_dim|axes")
        refuses(word, lambda bad=bad: build(name, **bad).tokens(np.zeros((1, T), int)))


def build(name, **settings):
    """Builds a scheme at small sizes, with random numbers unless they are given."""
    given = dict(num_heads=H, head_dim=C, model_dim=common.WIDTH, train_length=common.TRAIN_LENGTH)
    given |= {"rngs": nnx.Rngs(0)} | schemes.ALL[name].overrides
    return posenc_jax.make(name, **given | settings)


def test_unknown_names_and_keywords_are_answered_with_the_nearest():
    refuses("did you mean 'alibi'", lambda: posenc_jax.make("alibbi", num_heads=4))
    refuses("name=", lambda: posenc_jax.make(["rope"]))
    refuses("no_such_keyword", lambda: posenc_jax.make("nope", no_such_keyword=1), TypeError)
    refuses("'beta_fats'.*'beta_fast'", lambda: common.build("yarn", beta_fats=3), TypeError)
    refuses("did you mean 'rope'", lambda: common.build("logn", over="ropee"))
    beneath = {"name": "rope", "bse": 1}
    refuses("did you mean 'base'", lambda: common.build("randomized", over=beneath), TypeError)


@pytest.mark.parametrize(
    ("name", "given", "missing"),
    [
        ("rope", {}, "head_dim="),
        ("yarn", {"head_dim": 8}, "train_length="),
        ("learned", {"model_dim": 8}, "train_length=, rngs="),
        ("transformer_xl", dict(num_heads=4, head_dim=8, model_dim=32, num_layers=2), "rngs="),
        ("beam", {"head_dim": 8}, "num_layers="),
    ],
)
def test_a_missing_argument_is_named(name, given, missing):
    refuses(missing, lambda: posenc_jax.make(name, **given))


NUMBERS = [
    (name, key, value)
    for name in common.SCHEMES
    for key, parameter in registry.keywords(registry.lookup(name)).items()
    for value in [schemes.ALL[name].overrides.get(key, parameter.default)]
    if type(value) in (int, float)
]


def test_a_keyword_may_be_a_number_of_numpy():
    """It gives the encoding that the same number of Python gives."""
    for name, key, value in NUMBERS:
        given = np.float32(value) if isinstance(value, float) else np.int64(value)
        usual, other = (
            jax.eval_shape(functools.partial(common.build, name, trained=False, **{key: number}))
            for number in (given.item(), given)
        )
        assert jax.tree.structure(other) == jax.tree.structure(usual), (name, key)
        assert not any(isinstance(x, np.generic) for x in vars(other).values()), (name, key)
    factor = posenc_jax.make("pi", head_dim=8, factor=np.int64(4)).frequencies
    assert factor == PositionInterpolation(4.0)
    assert common.build("rope", base=jnp.float32(500)).base == 500


class Misspelt(posenc_jax.Encoding):
    def scores(self, logits_BHTS, tile):
        return logits_BHTS - tile.distance()


MADE = {
    "prepare": [lambda tokens: tokens.having(tokens.positions[0]), lambda tokens: None],
    "observe": [lambda x: (x[..., 0].T, ())],
}


def test_a_misspelt_hook_is_refused(monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "misspelt", f"{__name__}:Misspelt")
    refuses("misspelt", lambda: posenc_jax.make("misspelt"))


@pytest.mark.parametrize("hook", MADE)
def test_what_is_made_of_tokens_can_be_cut(hook):
    def tokens_of(change):
        method = lambda self, x, *_, **__: change(x)  # noqa: E731
        encoding = type("Own", (posenc_jax.Encoding,), {hook: method})()
        return encoding.tokens(text(T)).observed(encoding, X_BTD)

    for change in MADE[hook]:
        refuses(f"Own.{hook}", lambda change=change: tokens_of(change))


def test_a_layout_is_converted_along_channels():
    for convert in (to_half, to_interleaved):
        refuses("rotary_dim", lambda f=convert: f(np.zeros((8, 4)), rotary_dim=6, axis=1))
        refuses("head_dim", lambda f=convert: f(np.zeros((8, 7))))
