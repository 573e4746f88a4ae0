"""Trains a model to point at icons on screens of 8 x 8 cells, and tests it on up to 16 x 16.

    python launch.py --config=configs/pointing.py:small --workdir=runs/pointing

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    small  three seeds on a laptop CPU; the results are in docs/multimodal.md

Both draw the Material Design Icons (``pip install -e '.[icons]'``). Without them:
``--config.task.data=dejavu``, the symbols of a font that matplotlib brings along.

Each layout of frequencies has the positions that it was published with, and a second variant with
ruler tokens: one for every row or column (published: for every 8th, on far larger screens).
``rope`` numbers cells one after the other, like text; ``nope`` has no positions.
"""

from ml_collections import ConfigDict, config_dict

from experiments.config import start, variant
from experiments.settings import one_of
from experiments.studies.multimodal.pointing import Setting, Trials


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("pointing", setting=Setting, trials=Trials)
    # The base of the axial RoPE of images (2403.13298). The published bases, 1e6 and more, are for
    # long contexts: on a grid of 16 x 16 half of the pairs would hardly rotate.
    base = dict(base=100.0)
    config.variants = ConfigDict({"nope": _placed("nope", "vanilla")})
    config.variants.rope = _placed("mrope", "vanilla", **base)
    for name, positions in LAYOUTS.items():
        config.variants[name] = _placed(name, positions, **base)
        config.variants[f"{name}_ruler"] = _placed(name, positions, ruler=1, **base)
    config.schemes = ",".join(config.variants)
    PRESETS[one_of("preset", preset, PRESETS)](config)
    return config


LAYOUTS = {
    "mrope": "qwen2_vl",
    "i_mrope": "qwen2_vl",
    "mhrope": "spatial_reset",
    "videorope": "videorope",
}


def _placed(name, positions, ruler=None, **changed):
    ruler = config_dict.FieldReference(ruler, field_type=int)
    return variant(name, {"positions": positions, "ruler": ruler}, **changed)


def _tiny(config):
    config.schemes = "mrope,i_mrope,i_mrope_ruler"
    config.seeds = 1
    config.model.update(model_dim=16, num_layers=1, num_heads=4, head_dim=8)
    config.train.update(batch_size=8, steps=4, warmup_steps=2)
    config.eval.update(screens=((8, 8), (8, 16)), count=4, batch=4)


def _small(config):
    config.model.update(model_dim=64, num_layers=1, num_heads=8, head_dim=32, mlp_dim=64)
    config.train.update(batch_size=16, steps=1500, learning_rate=0.01)


PRESETS = {"tiny": _tiny, "small": _small}
