"""Asks where a ball is at a time that no frame of a clip shows.

    python launch.py --config=configs/story.py:small --workdir=runs/story

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    small  three seeds on a laptop CPU; the results are in docs/multimodal.md

To train also on clips that run backwards and pause, give
``--config.task.warps="('steady','uneven','pause','reverse','random')"``. One more variant,
``time_rope_told``, has the times among its inputs too.
"""

from ml_collections import ConfigDict

from experiments.config import start, variant
from experiments.settings import one_of
from experiments.studies.multimodal.story import Setting, Trials


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("story", setting=Setting, trials=Trials)
    config.schemes = "frame_index,frame_index_told,time_rope,time_rope_halved,time_rope_adaln"
    config.variants = ConfigDict(
        {
            "frame_index": _variant("frame"),
            "frame_index_told": _variant("frame", told=True),
            "time_rope": _variant("story"),
            "time_rope_halved": _variant("story", rate=0.5, of="time_rope"),
            "time_rope_told": _variant("story", told=True),
            "time_rope_adaln": _variant("story", adaln=True),
        }
    )
    PRESETS[one_of("preset", preset, PRESETS)](config)
    return config


def _variant(clock: str, **changed) -> ConfigDict:
    settings = dict(clock=clock, rate=1.0, told=False, adaln=False) | changed
    # Frames of four patches need few pairs for space, and clips of tens of frames a small base.
    return variant("time_rope", settings, sections=(6, 1, 1), base=100.0)


def _tiny(config):
    config.seeds = 1
    config.model.update(model_dim=16, num_layers=1, num_heads=1)
    config.task.update(frames=6, questions=2)
    config.train.update(batch_size=8, steps=4, warmup_steps=2)
    config.eval.update(paces=(0.5, 1.0, 4.0), clips=16, batch=16)


def _small(config):
    config.model.update(model_dim=64, num_layers=2, num_heads=4)
    config.train.update(batch_size=32, steps=1000, warmup_steps=50)


PRESETS = {"tiny": _tiny, "small": _small}
