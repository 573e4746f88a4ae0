"""LongRoPE searches the factors of a RoPE model at 8 times its length, and extends it further.

    python launch.py --config=configs/longrope.py:small --workdir=runs/longrope

Presets, after the colon:

    tiny     one seed, seconds: checks that everything runs, shows nothing
    small    the RoPE model of ``make compare``, three seeds, every stage, on a laptop CPU
    smollm2  SmolLM2-135M from 8k to 16k tokens, 60 candidates; needs ``posenc_jax[pretrained]``

``--config.checkpoint=FOLDER`` starts from a trained model, the folder of a finished run; ``{seed}``
in it becomes the seed, as in ``--config.checkpoint=runs/small/runs/rope/seed{seed}``.
``--config.stages=longrope,longrope2`` runs fewer of the stages, which
``experiments/studies/longrope/stages.py`` defines.
"""

from ml_collections import ConfigDict

from experiments.config import defaults, loading, own_defaults, start
from experiments.settings import one_of
from experiments.studies.longrope.plan import STAGES, Trials
from experiments.studies.longrope.search import Budget
from experiments.training.recipe import Recipe
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("longrope", trials=Trials)
    # A finished run or published weights ("{seed}" becomes the seed); empty: train a model here.
    config.checkpoint = ""
    config.loading = loading()
    config.corpus = "stdlib"
    config.stages = ",".join(STAGES)
    # Target length over train length; the second extension multiplies the length by it once more.
    config.factor = 8
    config.rope = own_defaults("rope")
    config.yarn = defaults(YaRNFrequencies, leave_out=("train_length", "factor"))
    config.search = defaults(Budget)
    config.tune = defaults(Recipe, leave_out=("length", "phases"))
    PRESETS[one_of("preset", preset, PRESETS)](config)
    return config


def _tiny(config):
    config.seeds = 1
    config.factor = 2
    config.model.update(model_dim=32, num_layers=2, num_heads=4)
    config.train.update(length=32, batch_size=8, steps=6, warmup_steps=2)
    config.tune.update(batch_size=8, steps=3, warmup_steps=1)
    config.search.update(population=8, generations=2, parents=4, mutations=4, crossovers=4)
    config.eval.update(search_documents=2, far_documents=1, documents=2, last_tokens=16)
    config.eval.batch_tokens = 1024


def _small(config):
    config.model.update(model_dim=128, num_layers=2, num_heads=4)
    config.train.update(length=64, batch_size=32, steps=200, warmup_steps=20)
    # As many tokens in all as in training.
    config.tune.update(batch_size=8, steps=100, warmup_steps=10, learning_rate=1e-3)
    # More documents than the paper's 5, because these are short.
    config.eval.update(search_documents=16, documents=24, last_tokens=64, batch_tokens=2048)
    # For training lengths of tens of tokens, as in configs/extrapolation.py.
    config.yarn.beta_fast = 2.0


def _smollm2(config):
    config.seeds = 1
    config.checkpoint = "smollm2"
    config.factor = 2
    config.stages = "longrope"
    # The paper's recipe, for when a stage that tunes is added.
    config.tune.update(batch_size=1, steps=400, learning_rate=2e-5)
    config.search.update(population=20, generations=5, parents=10, mutations=4, crossovers=4)
    config.eval.update(search_documents=1, documents=4, batch_tokens=16384)


PRESETS = {"tiny": _tiny, "small": _small, "smollm2": _smollm2}
