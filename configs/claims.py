"""Tests published claims, and writes the ledger of verdicts.

    python launch.py --config=configs/claims.py:small --workdir=runs/answers

Presets, after the colon:

    tiny   few schemes, one seed, a minute: checks that everything runs, shows nothing
    small  every claim, with three seeds, on two CPU cores
    paper  the same for the models of ``configs/atlas.py:paper``, for a GPU or TPU

The claims are in ``experiments/studies/claims``, and the rule for verdicts in
``experiments/results/ledger.py``. The study ``language`` is the atlas' own and runs only once if
both have the same workdir. Results of ``read`` are only read: other commands train them, in folders
of the workdir, or ``experiments.results.archive`` restores them there. Any field can be overridden
on the command line, such as ``--config.studies.far.eval.documents=16``.
"""

import math

from ml_collections import ConfigDict

from configs import atlas, extrapolation, ladder, longrope
from experiments.config import encoding
from experiments.evaluation.mechanisms import is_near_to
from posenc_jax.encodings.lib.axes import STILL

PRESETS = atlas.PRESETS
# Bases of RoPE between the trained lengths of ``small`` (64 and 128) and the usual 10,000.
_BASES = {"rope_base_128": 128.0, "rope_base_1000": 1000.0}
# Folders of the workdir, and the commands that fill them: {workdir} stands for the workdir.
_READ = {
    f"{experiment}/{study}".rstrip("/"): f"python launch.py --config=configs/{experiment}.py:small "
    f"--workdir={{workdir}}/{experiment}"
    for experiment, study in (
        ("ladder", "b1_bases_64"),
        ("ladder", "b2_bases_256"),
        ("ladder", "c_l256_t20"),
        ("learned", "flip_flops"),
        ("video", ""),
    )
}


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = atlas.get_config(preset)
    config.experiment = "claims"
    shared = config.studies
    config.studies = ConfigDict({"language": shared.language})
    of_cpu = "small" if preset == "paper" else preset
    config.studies.far = _far(preset, shared.language)
    config.studies.double = _double(preset, shared.language)
    config.studies.variants = _variants(shared.language)
    config.studies.longrope = _longrope(of_cpu, config)
    config.studies.probed = _probed(of_cpu, config)
    config.read = ConfigDict(_READ)
    return config


def _follow(study, language, *parts):
    """Makes fields of a study on text follow the atlas' study, overrides included.

    A field that is set after this call no longer follows.
    """
    for follower, leader, keys in (
        (study, language, ("corpus", "seeds")),
        *((study[part], language[part], list(language[part])) for part in parts),
    ):
        for key in keys:
            if follower[key] is None:  # no other field is derived from it
                follower[key] = leader.get_oneway_ref(key)
            else:
                follower.get_ref(key).set(leader.get_oneway_ref(key))


def _far(preset, language):
    """Returns a study on far longer texts of schemes said to extrapolate, RoPE and YaRN."""
    study = extrapolation.get_config(preset)
    study.schemes = "alibi,rnope_swa,rope,yarn"
    study.encodings.rnope_swa.interval = 2
    _follow(study, language, "model", "train", "sweep")  # but not "eval": texts are much longer
    if preset != "tiny":
        study.eval.update(multiples=(1, 32, 128), documents=4, strides=((1, 1),), window_stride=1)
    return study


def _double(preset, language):
    """Returns a study that trains at twice the length, with the same tokens in a batch."""
    study = extrapolation.get_config(preset)
    study.schemes = ",".join(("rope", *_BASES))
    study.encodings.update(_of_bases())
    _follow(study, language, "model", "train", "eval", "sweep")
    study.train.get_ref("length").set(2 * language.train.get_oneway_ref("length"))
    study.train.get_ref("batch_size").set(language.train.get_oneway_ref("batch_size") // 2)
    halves = [multiple // 2 for multiple in language.eval.multiples if multiple > 1]
    study.eval.multiples = tuple(halves)
    return study


def _variants(language):
    """Returns a study on text of RoPE under the bases that the atlas does not have."""
    study = language.copy_and_resolve_references()
    study.experiment = "extrapolation"
    _follow(study, language, "model", "train", "eval", "sweep")
    study.encodings.update(_of_bases())
    study.schemes = ",".join(_BASES)
    return study


def _of_bases():
    """Returns RoPE with each of ``_BASES``, by name."""
    return {name: encoding("rope", base=base) for name, base in _BASES.items()}


def _longrope(preset, shared):
    study = longrope.get_config(preset)
    study.seeds = shared.get_oneway_ref("seeds")
    study.stages = "longrope,progressive"
    return study


def _probed(preset, shared):
    """Returns a study whose models of all seeds are looked into, with variants of RoPE's pairs."""
    study = ladder.study(64, "rope,rope_near_still,rope_near_stopped,hope")
    study.experiment = "probed"
    study.seeds = shared.get_oneway_ref("seeds")
    if preset == "tiny":
        study.model.update(model_dim=32, num_layers=2, num_heads=4)
        study.train.update(length=32, batch_size=4, steps=6, warmup_steps=2)
        study.eval.update(
            multiples=(1, 2), last_tokens=16, documents=4, splits=("test",), batch_tokens=512
        )
    else:
        study.corpus = "packages"
        study.train.steps = 700
        study.eval.update(multiples=(1, 2, 4), documents=48)
    rope = {"name": "rope"} | study.encodings.rope.to_dict()
    still = {"axes": _without_near(study)}
    study.encodings.update({"rope_near_still": rope | still, "rope_near_stopped": rope})
    study.extend.rope_near_stopped = ConfigDict({"of": "rope"} | still)
    return study


def _without_near(study):
    """Returns ``axes`` of RoPE in which pairs of a period near the trained length stand still.

    They are as wide and as fast as the study says now, whatever is overridden later.
    """
    pairs = study.model.model_dim // study.model.num_heads // 2
    periods = (2 * math.pi * study.encodings.rope.base ** (i / pairs) for i in range(pairs))
    return tuple(STILL if is_near_to(study.train.length, period) else 0 for period in periods)
