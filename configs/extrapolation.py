"""Trains short and tests long: every scheme under the same model, data and steps.

    python launch.py --config=configs/extrapolation.py:small --workdir=runs/small

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    demo   six schemes and one seed of ``small``, in 2 minutes; what ``make demo`` runs
    small  three seeds on a laptop CPU; what ``make compare`` runs
    long   four schemes trained at 256 tokens for 14 times as many steps: does context help?
    paper  125M parameters, trained at 512 and tested to 16384, for a GPU or TPU

Any field can be overridden on the command line: ``--config.train.steps=500``;
``--config.schemes=rope,yarn,alibi`` runs fewer schemes.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from experiments.config import defaults, own_defaults, short_keywords, start
from experiments.evaluation.lengths import Protocols
from experiments.settings import one_of
from experiments.training.encodings import RATIO
from experiments.training.windows import Data
from posenc_jax import REGISTRY

# Schemes of every kind, which two CPU cores compare in 5 to 10 minutes. The slowest schemes
# come first, so that two workers end at about the same time.
SMALL = (
    "rope,pi,ntk,dynamic_ntk,yarn,transformer_xl,kerple_log,fire,t5,sinusoidal,learned,alibi,nope,"
    "p_rope,hope"
)

# The schemes that extend a trained RoPE. "ratio" means the evaluated length over the training
# length; schemes without it follow the length by themselves.
_BY_RATIO = (
    "pi ntk ntk_critical ntk_by_parts llama3 yarn mrrope_uni mrrope_pro longrope longrope2 "
    "leaky_rerope"
)
_BY_LENGTH = "dynamic_pi dynamic_ntk dynamic_yarn rerope jet_long dual_chunk"
EXTENSIONS: dict[str, dict[str, Any]] = {
    **{name: {"factor": RATIO} for name in _BY_RATIO.split()},
    **{name: {} for name in _BY_LENGTH.split()},
    "self_extend": {"group_size": RATIO},
}
# The schemes that are evaluated on a trained RoPE instead of being trained: its extensions, and the
# rotary schemes of images and videos, which on text rotate as RoPE does.
ON_ROPE: dict[str, dict[str, Any]] = EXTENSIONS | {
    "mrope": {},
    "i_mrope": {},
    "videorope": {},
    "videorope_pp": {"factor": RATIO},
}
# Windows are the training length over these numbers: ReRoPE keeps distances up to half of it, and
# an eighth leaves Self-Extend room for its groups.
WINDOWS = {"rerope": 2, "leaky_rerope": 2, "self_extend": 8}
# With a factor of 1 dynamic NTK would equal NTK, because all sequences have the evaluated length.
DYNAMIC_NTK = 2.0


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("extrapolation", trials=Protocols)
    # Names of the registry, comma-separated; "all" leaves out patterns that do not fit the layers.
    config.schemes = "all"
    config.corpus = "stdlib"
    config.data = defaults(Data)
    # Parts of a run, see ``experiments/training/phases.py``; empty: one length and one encoding.
    config.train.phases = ()
    # Learning rates at which every scheme is trained, such as (1e-3, 3e-3, 1e-2); the report shows
    # the best one of each scheme. Empty: train.learning_rate alone.
    config.sweep = ConfigDict({"learning_rate": ()})
    config.encodings = ConfigDict({name: own_defaults(name) for name in REGISTRY})
    # These are evaluated on the checkpoint of ``of`` instead of being trained. Keywords that are
    # not given here come from ``encodings``.
    config.extend = ConfigDict(
        {name: {"of": "rope"} | changed for name, changed in ON_ROPE.items()}
    )
    config.encodings.dynamic_ntk.factor = DYNAMIC_NTK
    follow_length(config.encodings, config.train.get_ref("length"))
    PRESETS[one_of("preset", preset, PRESETS)](config)
    return config


def follow_length(encodings: Mapping[str, ConfigDict], length: FieldReference) -> None:
    """Makes keywords of encodings follow the training length, also when it is overridden."""
    for name, part in WINDOWS.items():
        encodings[name].window = length // part
    for name, changed in short_keywords(length).items():
        for key, value in changed.items():
            encodings[name][key] = value


def short_t5(t5: ConfigDict, length: FieldReference, model: ConfigDict, num_buckets: int) -> None:
    """Sets up T5 for training at few tokens and few steps.

    The last bucket must begin within the training length, or it stays untrained. The table is
    scaled because 200 steps at 3e-3 move a parameter by a few tenths at most, which is too little.
    """
    t5.num_buckets = num_buckets
    t5.max_distance = length // 2
    head_dim = model.get_ref("model_dim").to_float() / model.get_ref("num_heads")
    t5.table_scale = head_dim**0.5  # as in GPT-NeoX


def short_yarn(encodings: Mapping[str, ConfigDict]) -> None:
    """Sets the bounds of YaRN and MrRoPE for training lengths of tens of tokens.

    Over 64 tokens no pair turns 32 times, the published bound, so all pairs would be slowed down.
    For YaRN, 2 and 1 were the best of 13 pairs of bounds on the validation split, in one seed.
    """
    for name in ("yarn", "dynamic_yarn", "mrrope_uni", "mrrope_pro"):
        encodings[name].beta_fast = 2.0
    encodings["ntk_by_parts"].beta = 2.0


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
    length = config.train.get_ref("length")
    short_t5(config.encodings.t5, length, config.model, num_buckets=16)


def _demo(config):
    _small(config)
    config.seeds = 1
    config.schemes = "sinusoidal,learned,rope,yarn,t5,alibi"


def _small(config):
    config.model.update(model_dim=128, num_layers=2, num_heads=4)
    config.train.update(length=64, batch_size=32, steps=200, warmup_steps=20)
    config.eval.update(
        last_tokens=64, documents=24, strides=((16, 4),), window_stride=16, batch_tokens=8192
    )
    length = config.train.get_ref("length")
    short_t5(config.encodings.t5, length, config.model, num_buckets=32)
    short_yarn(config.encodings)
    config.schemes = SMALL


def _long(config):
    _small(config)
    config.schemes = "kerple_log,fox,alibi,transformer_xl"
    config.train.update(length=256, batch_size=8, steps=2800, optimizer="muon", learning_rate=6e-3)
    config.eval.update(multiples=(1, 2, 4, 16), documents=48)


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
    # Four times the longest evaluated sequence, as in the paper: positions are drawn below it.
    config.encodings.randomized.max_length = 4 * 32 * 512


PRESETS = {"tiny": _tiny, "demo": _demo, "small": _small, "long": _long, "paper": _paper}
