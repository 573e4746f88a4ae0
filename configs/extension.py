"""Makes a trained model longer: every method on one RoPE model, before and after fine-tuning.

    python launch.py --config=configs/extension.py:small --workdir=runs/extension

Presets, after the colon:

    tiny     one seed, seconds: checks that everything runs, shows nothing
    small    the RoPE model of ``make compare``'s size, three seeds, within an hour on two CPU cores
    yarn     the same model: YaRN, PI, NTK and plain RoPE after 0, 25, 100 and 400 steps
    own      your own model: give --config.checkpoint=FOLDER, a finished run or published weights
    smollm2  SmolLM2-135M as published, zero-shot to 16k and 32k, within four hours
    paper    a 7B-class model from 4k to 128k, on a pod

Any field can be overridden on the command line. ``--config.methods=pi,yarn`` are evaluated without
tuning, ``--config.tuned=yarn`` after each number of steps in ``--config.tuning_steps="(100,400)"``,
tuned at ``--config.target=8`` times the trained length.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.extrapolation import DYNAMIC_NTK, EXTENSIONS, WINDOWS, short_yarn
from experiments.config import defaults, loading, own_defaults, start
from experiments.settings import one_of
from experiments.studies.extension.evaluations import Trials
from experiments.training.encodings import PART, RATIO
from experiments.training.recipe import Recipe

METHODS = (
    "rope,pi,ntk,ntk_by_parts,yarn,yarn_untempered,dynamic_ntk,dynamic_yarn,longrope,longrope2,"
    "hope,clipped_rope,resonance_yarn,rerope,leaky_rerope,self_extend,dual_chunk,drope"
)
# Keywords that the trained RoPE decides for every method.
_OF_ROPE = ("base", "rotary_dim", "layout", "axes", "frequencies")


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("extension", trials=Trials)
    # A finished run or published weights ("{seed}" becomes the seed); empty: train a model here.
    config.checkpoint = ""
    config.corpus = "stdlib"
    config.rope = own_defaults("rope")
    config.methods = METHODS
    config.variants = _variants()
    # The length that models are tuned at, over the trained length.
    config.target = 8
    config.tuned = METHODS + ",rope_short"
    config.tuning_steps = (100,)
    config.tuning = defaults(Recipe, leave_out=("length", "steps", "phases"))
    PRESETS[one_of("preset", preset, PRESETS)](config)
    return config


def _variants() -> ConfigDict:
    """Returns the methods, each with the keywords of its scheme in full."""
    windows = {name: {"window": f"{PART}{part}"} for name, part in WINDOWS.items()}
    extensions = {name: changed | windows.get(name, {}) for name, changed in EXTENSIONS.items()}
    extensions["dynamic_ntk"] = {"factor": DYNAMIC_NTK}
    variants = {name: _variant(name, **changed) for name, changed in extensions.items()}
    variants["yarn_untempered"] = _variant("yarn", factor=RATIO, attention_factor=1.0)
    yarn = {"name": "yarn", "factor": RATIO}
    variants["resonance_yarn"] = _variant("resonance", frequencies=yarn)
    for name in ("rope", "hope", "clipped_rope"):
        variants[name] = _variant(name)
    # DroPE (2512.12167): the rotation is dropped, and the model recalibrated at its own length.
    variants["drope"] = _variant("nope", tuned_at="train_length")
    # The control: how much of a gain comes from more training alone.
    variants["rope_short"] = _variant("rope", tuned_at="train_length")
    return ConfigDict(variants)


def _variant(scheme: str, tuned_at: str = "target", **changed: Any) -> dict[str, Any]:
    rest = {key: v for key, v in own_defaults(scheme).items() if key not in _OF_ROPE}
    return {"scheme": scheme, "tuned_at": tuned_at} | rest | changed


def _small_model(config, steps):
    """Sets up the RoPE model of ``make compare``, with bounds of YaRN and MrRoPE for 64 tokens."""
    config.model.update(model_dim=128, num_layers=2, num_heads=4)
    config.train.update(length=64, batch_size=32, steps=steps, warmup_steps=50)
    # Tuning begins at the learning rate that training ended with.
    config.tuning.update(batch_size=8, learning_rate=3e-4, warmup_steps=10)
    short_yarn(config.variants)
    config.variants.yarn_untempered.beta_fast = 2.0
    config.variants.resonance_yarn.frequencies.beta_fast = 2.0


def _tiny(config):
    _small_model(config, steps=6)
    config.seeds = 1
    config.model.update(model_dim=32, num_layers=2, num_heads=4, scan=True)
    config.train.update(length=32, batch_size=8, warmup_steps=2)
    config.target = 2
    config.tuned = "rope,yarn,drope"
    config.tuning_steps = (2,)
    config.tuning.update(batch_size=8, warmup_steps=1)
    config.eval.update(
        lengths=((1, 2), (2, 1)), last_tokens=16, window_stride=8, short_windows=8, batch_tokens=512
    )


def _small(config):
    _small_model(config, steps=1000)
    config.eval.update(
        lengths=tuple((2**k, 24) for k in range(6)),
        last_tokens=64,
        window_stride=16,
        short_windows=512,
        batch_tokens=8192,
    )


def _yarn(config):
    _small(config)
    config.methods = config.tuned = "rope,pi,ntk,yarn"
    config.tuning_steps = (25, 100, 400)


def _trained_here(config):
    # The checkpoint says what the model is and at which length it was trained.
    del config.model, config.train, config.rope
    config.loading = loading()
    config.seeds = 1  # a seed only draws the batches of tuning: there is one model
    config.tuned = "pi,ntk,yarn"
    config.tuning.update(batch_size=4, learning_rate=2e-5, warmup_steps=20, weight_decay=0.0)


def _smollm2(config):
    _trained_here(config)
    config.checkpoint = "smollm2"
    config.methods = "rope,pi,ntk,ntk_by_parts,yarn,self_extend,rerope"
    config.tuned = ""
    config.target = 2
    config.eval.update(
        lengths=((1, 4), (2, 4), (4, 1)), last_tokens=256, window_stride=256, short_windows=2
    )


def _paper(config):
    config.model.update(
        model_dim=4096,
        num_layers=32,
        num_heads=32,
        mlp_dim=11008,
        dtype="bfloat16",
        scan=True,
        remat=True,
    )
    config.mesh.update(fsdp=8, context=4)
    config.train.update(
        length=4096,
        batch_size=1024,
        steps=250_000,
        learning_rate=3e-4,
        warmup_steps=2000,
        log_every=50,
    )
    config.target = 16
    config.tuned = "rope,pi,ntk,yarn,longrope2,drope"
    config.tuning_steps = (400,)
    # The published recipe of YaRN: 400 steps of 64 sequences at 2e-5, without weight decay.
    config.tuning.update(batch_size=64, learning_rate=2e-5, warmup_steps=20, weight_decay=0.0)
    config.eval.update(
        lengths=((1, 64), (2, 64), (4, 32), (8, 16), (16, 8), (32, 4)),
        last_tokens=256,
        window_stride=256,
        short_windows=256,
        batch_tokens=2**19,
    )


PRESETS = {
    "tiny": _tiny,
    "small": _small,
    "yarn": _yarn,
    "own": _trained_here,
    "smollm2": _smollm2,
    "paper": _paper,
}
