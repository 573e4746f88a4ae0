"""Makes texts longer within one run: does the last tenth at four times the length suffice?

    python launch.py --config=configs/phases.py:small --workdir=runs/phases

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    small  the model of ``make compare``, trained at 256 and 1,024 tokens, three seeds, in about two
           hours of one CPU core

All variants have the same tokens, the same number of steps and one schedule:

    rope         all steps at the short length; it is also read through a window of that length
    long         all steps at the long length
    longer       nine tenths at the short length, then the long one; nothing else changes
    longer_yarn  the same, and RoPE becomes YaRN with the long length
    longer_ntk   the same, and RoPE's base grows as NTK-aware scaling says
    wider        all steps at the long length; for nine tenths a query sees only the last tokens, as
                 many as the short length has, and then all

Any field can be overridden on the command line, also a plan, in which a phase is a share of the
steps and what changes: ``--config.plans.longer="((0.5,{}),(0.5,{'length':1024}))"``. Its settings
are those of ``experiments/training/phases.py``.
"""

from ml_collections import ConfigDict

from experiments.config import defaults, encoding, start
from experiments.evaluation.lengths import Protocols
from experiments.settings import one_of
from experiments.training.encodings import RATIO
from experiments.training.windows import Data


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("phases", trials=Protocols)
    config.corpus = "stdlib"
    config.data = defaults(Data)
    config.sweep = ConfigDict({"learning_rate": ()})
    config.extend = ConfigDict()
    PRESETS[one_of("preset", preset, PRESETS)](config)
    plans = _plans(config.train.length, 4 * config.train.length)
    config.plans = ConfigDict(plans)
    config.schemes = ",".join(plans)
    config.encodings = ConfigDict({name: encoding("rope") for name in plans})
    return config


def _plans(short: int, long: int) -> dict[str, tuple]:
    """Returns the phases of each variant."""
    first, last = (0.9, {"length": short}), {"length": long}
    return {
        "rope": ((1.0, {"length": short}),),
        "long": ((1.0, last),),
        "longer": (first, (0.1, last)),
        "longer_yarn": (first, (0.1, last | {"encoding": {"name": "yarn", "factor": RATIO}})),
        "longer_ntk": (first, (0.1, last | {"encoding": {"name": "ntk", "factor": RATIO}})),
        "wider": ((0.9, last | {"window": short}), (0.1, last)),
    }


def _tiny(config):
    config.seeds = 1
    config.model.update(model_dim=32, num_layers=2, num_heads=4, scan=True)
    config.train.update(length=32, batch_size=32, steps=10, warmup_steps=2)
    config.eval.update(
        multiples=(1, 4), last_tokens=16, documents=2, strides=(), window_stride=8, batch_tokens=512
    )


def _small(config):
    config.model.update(model_dim=128, num_layers=2, num_heads=4)
    config.train.update(
        length=256,
        batch_size=16,
        steps=2000,
        optimizer="muon",
        learning_rate=6e-3,
        warmup_steps=20,
    )
    config.eval.update(
        multiples=(1, 2, 4, 8), last_tokens=64, documents=48, strides=(), window_stride=16
    )


PRESETS = {"tiny": _tiny, "small": _small}
