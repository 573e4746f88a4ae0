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
from posenc_jax.encodings.rotary.frequencies import Frequencies, PositionInterpolation
from posenc_jax.encodings.rotary.frequencies.base import geometric
from posenc_jax.encodings.rotary.layouts import to_half, to_interleaved
from posenc_jax.positions import text

BAD_KEYWORDS = {
    "rope": [{"head_dim": 7}, {"rotary_dim": 3}, {"rotary_dim": 10}, {"rotary_dim": "8"}]
    + [{"layout": "neox"}, {"base": 1.0}, {"base": NAN}, {"axes": (0, 1)}, {"axes": 1}],
    "golden_gate": [{"rotary_dim": 2**40}, {"fastest": INF}, {"zero_share": 0.99}],
    "axial_rope": [{"num_axes": 3}],
    "mhrope": [{"axis_heads": (-1, 2, 2)}],
    "pi": [{"factor": 0.5}, {"factor": True}],
    "ntk": [{"factor": INF}, {"rotary_dim": 2}],
    "ntk_critical": [{"factor": 0.5}, {"train_length": 6}],
    "dynamic_ntk": [{"factor": None}],
    "ntk_by_parts": [{"factor": 0.5}, {"alpha": 40.0}],
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
    "prope": [{"time_base": 1.0}],
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
    + [{"num_buckets": 8, "max_distance": 5}],
    "dape": [{"bias": "fire"}, {"hidden": 0}],
    "cope": [{"num_positions": 1}, {"num_positions": NAN}],
    "learned": [{"out_of_range": "wrap"}],
    "learned_2d": [{"out_of_range": "wrap"}, {"grid": (4, 0)}],
    "sinusoidal": [{"model_dim": 33}, {"base": -5}, {"layout": "pairs"}],
    "sinusoidal_2d": [{"base": 0}, {"num_axes": 3}, {"num_axes": {}}],
    "seqpe": [{"num_axes": [2]}, {"scalar_scale": 1j}, {"num_pivots": None}, {"temperature": INF}],
    "transformer_xl": [{"model_dim": 33}, {"base": 0.0}],
    "inkling": [{"extent": 2**40}, {"log_floor": 4.0}],
    "path": [{"num_kv_heads": 3}, {"rank": 0}, {"width": 0}],
    "selective_rope": [{"model_dim": 33}, {"rank": 0}, {"width": 0}, {"temperature": 0.0}],
    "llama4_temperature": [{"attn_scale": -0.1}, {"attn_scale": NAN}, {"floor_scale": NAN}],
    "ministral_scale": [{"attn_scale": INF}],
    "beam_scale": [{"exponent": INF}],
    "soft_cap": [{"cap": 0}, {"cap": INF}, {"over": None}, {"over": {"base": 1e4}}],
    "logn": [{"over": ["rope"]}, {"over": "irope"}, {"train_length": 1}],
    "ssmax": [{"over": 3, "num_layers": 2}, {"train_length": 1}]
    + [{"over": {"name": "alibi", "num_heads": 4}}],
    "dual_base": [{"local_base": 0.5}, {"global_base": 0.5}, {"global_factor": 0.5}],
}


@pytest.mark.parametrize("name", BAD_KEYWORDS)
def test_bad_values_of_keywords(name):
    """Some are found only where the pairs of channels are known."""
    for bad in BAD_KEYWORDS[name]:
        word = next(iter(bad)).replace("rotary_dim", "rotary|rotary_dim|axes")
        axes = (T, 2) if name == "golden_gate" else (T,)
        refuses(
            word,
            lambda bad=bad, axes=axes: common.build(name, **bad).tokens(np.zeros((1, *axes), int)),
        )


def test_unknown_names_and_keywords_are_answered_with_the_nearest():
    refuses("did you mean 'alibi'", lambda: posenc_jax.make("alibbi", num_heads=4))
    refuses("unknown encoding 'zzz'", lambda: posenc_jax.make("zzz"))
    refuses("name=", lambda: posenc_jax.make(["rope"]))
    refuses("'beta_fats'.*'beta_fast'", lambda: common.build("yarn", beta_fats=3), TypeError)
    refuses("did you mean 'rope'", lambda: common.build("logn", over="ropee"))


@pytest.mark.parametrize("name", registry.REGISTRY)
def test_an_unknown_keyword_is_never_swallowed(name):
    refuses("no_such_keyword", lambda: common.build(name, no_such_keyword=1), TypeError)


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


@pytest.mark.parametrize("value", [0, -4, 8.0, "8", 2**31])
def test_sizes_are_positive_whole_numbers(value):
    refuses("head_dim=", lambda: posenc_jax.make("rope", head_dim=value))


def test_rngs_are_random_numbers():
    refuses("rngs=", lambda: posenc_jax.make("t5", num_heads=4, model_dim=32, rngs=0))


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


def test_rngs_are_not_needed_without_parameters():
    for name in ("nope", "rope", "alibi", "sinusoidal"):
        sizes = dict(num_heads=4, head_dim=8, model_dim=32, train_length=32)
        assert not jax.tree.leaves(posenc_jax.make(name, **sizes))
        assert not jax.tree.leaves(posenc_jax.make(name, rngs=nnx.Rngs(0), **sizes))


# A scheme of one's own


class ByPosition(posenc_jax.Encoding):
    def __init__(self, num_heads):
        self.num_heads = num_heads

    def score(self, logits_BHTS, tile):
        return logits_BHTS - tile.distance()


class Misspelt(posenc_jax.Encoding):
    def scores(self, logits_BHTS, tile):
        return logits_BHTS - tile.distance()


class NoEncoding:
    def score(self, logits_BHTS, tile):
        return logits_BHTS


class NoFactor(Frequencies):
    def __call__(self, channels, base, length):
        return geometric(channels, base)


class OnePairLess(Frequencies):
    def __call__(self, channels, base, length):
        return geometric(channels, base)[:-1], 1.0


@pytest.mark.parametrize("kind", [ByPosition, Misspelt, NoEncoding, NoFactor, OnePairLess])
def test_a_scheme_that_cannot_be_used(kind, monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "own", f"{__name__}:{kind.__name__}")
    sizes = {"head_dim": C} if issubclass(kind, Frequencies) else {"num_heads": H}
    refuses(kind.__name__, lambda: posenc_jax.make("own", **sizes).tokens(text(T)))


def test_a_line_of_the_registry_has_a_colon(monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "own", "posenc_jax.encodings.bias.alibi.ALiBi")
    refuses(r"REGISTRY\['own'\]", lambda: posenc_jax.make("own"))


MADE = {
    "prepare": [lambda tokens: tokens.having(tokens.positions[0]), lambda tokens: None],
    "observe": [lambda x: (x[..., 0].T, ())],
}


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
        refuses("rotary_dim", lambda f=convert: f(np.zeros((8, 7))))
