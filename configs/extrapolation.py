"""Trains short and tests long: every scheme under the same model, data and steps.

    python launch.py --config=configs/extrapolation.py:small --workdir=runs/small

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    demo   six schemes and one seed of ``small``, in 3 minutes; what ``make demo`` runs
    small  three seeds on a laptop CPU; what ``make compare`` runs
    paper  125M parameters, trained at 512 and tested to 16384, for a GPU or TPU

Any field is overridden on the command line, ``--config.train.steps=500``; to run fewer schemes,
``--config.schemes=rope,yarn,alibi``.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.config import RATIO, encoding_defaults, start
from experiments.evaluate import Protocols

PRESETS = ("tiny", "demo", "small", "paper")
# Schemes of every kind, which two CPU cores compare in 10 minutes (or seconds, when tiny).
SMALL = (
    "nope,sinusoidal,learned,rope,pi,ntk,dynamic_ntk,yarn,hope,p_rope,alibi,t5,kerple_log,fire,"
    "transformer_xl"
)

# The schemes that extend a trained RoPE. "ratio" stands for the evaluated length over the training
# length; those without it follow the length by themselves.
_BY_RATIO = "pi ntk ntk_critical ntk_by_parts llama3 yarn longrope longrope2 leaky_rerope"
_BY_LENGTH = "dynamic_pi dynamic_ntk dynamic_yarn rerope dual_chunk"
EXTENSIONS: dict[str, dict[str, Any]] = {
    **{name: {"factor": RATIO} for name in _BY_RATIO.split()},
    **{name: {} for name in _BY_LENGTH.split()},
    "self_extend": {"group_size": RATIO},
}
# Windows within the training length, as parts of it: half of it is near, or what leaves room for
# the groups.
WINDOWS = {"rerope": 2, "leaky_rerope": 2, "self_extend": 8}
# With factor 1 dynamic NTK is NTK again, when all sequences have the evaluated length.
DYNAMIC_NTK = 2.0


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("extrapolation", preset, presets=PRESETS, trials=Protocols)
    # Names of the registry, comma-separated; "all" leaves out patterns that do not fit the layers.
    config.schemes = "all"
    config.corpus = "stdlib"
    # Seeds of a scheme that are trained as one program: as many times the memory, and faster where
    # the model is too small for the machine.
    config.together = 1
    config.encodings = encoding_defaults()
    # These are evaluated on the checkpoint of ``of`` instead of being trained; all that is not said
    # here comes from ``encodings``.
    same_on_text: dict[str, dict] = {"mrope": {}, "i_mrope": {}, "videorope": {}}
    extend = EXTENSIONS | same_on_text | {"videorope_pp": {"factor": RATIO}}
    config.extend = ConfigDict({name: {"of": "rope"} | own for name, own in extend.items()})
    config.encodings.dynamic_ntk.factor = DYNAMIC_NTK
    for name, part in WINDOWS.items():
        config.encodings[name].window = config.train.get_ref("length") // part
    # Learned tables end at the training length: what lies past it reads the last row.
    config.encodings.learned.out_of_range = "clamp"
    config.encodings.learned_2d.out_of_range = "clamp"
    # FIRE's threshold is a quarter of the training length in the paper (512 of 2048). A reference
    # follows when the length is overridden.
    config.encodings.fire.init_length = config.train.get_ref("length").to_float() / 4
    # The windows of patterns follow too, and the steps of Llama 4's temperature, which are for
    # thousands of tokens.
    config.encodings.rnope_swa.window = config.train.get_ref("length") // 2
    config.encodings.dual_base.window = config.train.get_ref("length") // 4
    config.encodings.irope.floor_scale = config.train.get_ref("length")
    config.encodings.llama4_temperature.floor_scale = config.train.get_ref("length")
    globals()[f"_{preset}"](config)
    return config


def _short_t5(config, num_buckets):
    """Sets T5 up for short training, at few tokens and few steps.

    The last bucket must lie within the training length, or it is met untrained. And the bias must
    be able to grow: 200 steps at 3e-3 move a number by a few tenths at most.
    """
    config.encodings.t5.num_buckets = num_buckets
    config.encodings.t5.max_distance = config.train.get_ref("length") // 2
    width, heads = (config.model.get_ref(key) for key in ("model_dim", "num_heads"))
    head_dim = width.to_float() / heads
    config.encodings.t5.table_scale = head_dim**0.5  # as GPT-NeoX has it


def _tiny(config):
    config.schemes = SMALL
    config.seeds = 1
    config.model.update(model_dim=32, num_layers=2, num_heads=4, scan=True)
    config.train.update(length=32, batch_size=8, steps=6, warmup_steps=2)
    config.eval.update(
        multiples=(1, 2),
        last_tokens=16,
        documents=2,
        strides=((8, 2),),
        window_stride=8,
        batch_tokens=512,
    )
    _short_t5(config, num_buckets=16)


def _demo(config):
    _small(config)
    config.seeds = 1
    config.schemes = "sinusoidal,learned,rope,yarn,t5,alibi"


def _small(config):
    config.together = 3
    config.model.update(model_dim=128, num_layers=2, num_heads=4)
    config.train.update(length=64, batch_size=32, steps=200, warmup_steps=20)
    config.eval.update(
        last_tokens=64, documents=24, strides=((16, 4),), window_stride=16, batch_tokens=8192
    )
    _short_t5(config, num_buckets=32)
    config.schemes = SMALL
    # YaRN's bounds of 32 and 1 turns are for training lengths of thousands of tokens. Over 64
    # tokens no pair turns 32 times, and all would be slowed down. 2 was the best of 13 pairs of
    # bounds on the validation split, in one seed.
    config.encodings.yarn.beta_fast = 2.0
    config.encodings.dynamic_yarn.beta_fast = 2.0
    config.encodings.ntk_by_parts.beta = 2.0


def _paper(config):
    config.model.update(
        model_dim=768, num_layers=12, num_heads=12, dtype="bfloat16", scan=True, remat=True
    )
    config.train.update(
        length=512,
        batch_size=64,
        steps=50_000,
        learning_rate=6e-4,
        warmup_steps=1000,
        log_every=50,
        checkpoint_every=2000,
    )
    config.eval.update(
        multiples=(1, 2, 4, 8, 16, 32),
        last_tokens=256,
        documents=256,
        strides=((256, 64), (1, 2)),
        window_stride=64,
        batch_tokens=16384,
    )
    # Four times the longest evaluated sequence, as in the paper; past it there is nothing to draw.
    config.encodings.randomized.max_length = 4 * 32 * 512
