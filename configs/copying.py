"""Follows models through training: when do they begin to copy, and is that what orders schemes?

    python launch.py --config=configs/copying.py:small --workdir=runs/copying

Presets, after the colon:

    tiny   two schemes, seconds: checks that everything runs, shows nothing
    onset  eight schemes, two and four layers at equal parameters, three rates, three seeds
    seeds  five more seeds of the schemes whose seeds of ``onset`` differ in kind
    cause  four schemes with keys and values that are mixed with those before, which makes copying
           easy
    long   RoPE at 1,024 tokens: three rates with and without QK norm, two and eight texts a step;
           then RoPE, ALiBi and Transformer-XL on four times the tokens
    depth  six layers of the same width, 20 tokens a parameter
    small  all of these

Models read bytes of the corpus ``packages`` as those of ``configs/ladder.py`` do. What each preset
predicts was written down before it ran: docs/copying.md. The results are ``copying.csv.gz`` in the
workdir, a row for each measurement of each run, and ``copying.svg``.
"""

from ml_collections import ConfigDict

from configs import ladder
from experiments.config import encoding
from experiments.settings import one_of

RATES = (3e-3, 6e-3, 12e-3)
EIGHT = "rope,alibi,nope,fox,transformer_xl,kerple_log,key_offset,kv_shift"
# At 0.006, with two layers, these copied in some of the first three seeds and not in others.
IN_KIND = "fox,kerple_log,kv_shift"
# Each of the four under KV shift; RoPE is also there with its keys offset.
SHIFTED = "kv_shift,alibi_shift,nope_smear,fox_shift,key_offset"
DEPTH = "rope,alibi,nope,fox,kerple_log,rnope_swa"


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    one_of("preset", preset, (*PRESETS, "small"))
    parts = [name for name in PRESETS if name != "tiny"] if preset == "small" else [preset]
    config = ConfigDict({"experiment": "copying"})
    config.studies = {name: one for part in parts for name, one in PRESETS[part]().items()}
    return config


def _study(schemes: str, *, layers: int = 2, width: int = 128, length: int = 256) -> ConfigDict:
    """Returns a study of 20 tokens a parameter."""
    config = ladder.study(length, schemes)
    config.experiment, config.corpus = "onset", "packages"
    config.model.update(num_layers=layers, model_dim=width)
    per_layer = (ladder.parameters(width) - 257 * width) / 2
    tokens = 20 * (layers * per_layer + 257 * width)
    config.train.steps = round(tokens / (config.train.batch_size * length))
    config.eval.update(multiples=(1, 4), documents=32)
    for name in ("alibi", "fox"):
        config.encodings[f"{name}_shift"] = encoding("kv_shift", over=name)
    config.copying = dict(every=250, repeated=192, texts=64)
    return config


def _onset() -> dict[str, ConfigDict]:
    shallow, deeper = _study(EIGHT), _study(EIGHT, layers=4, width=96)
    for study in (shallow, deeper):
        study.sweep.learning_rate = RATES
    return {"onset_2_layers": shallow, "onset_4_layers": deeper}


def _seeds() -> dict[str, ConfigDict]:
    study = _study(IN_KIND)
    study.seeds, study.copying.first_seed = 8, 3
    return {"more_seeds": study}


def _cause() -> dict[str, ConfigDict]:
    study = _study(SHIFTED)
    study.sweep.learning_rate = RATES
    return {"cause": study}


def _long() -> dict[str, ConfigDict]:
    studies = {}
    for texts in (2, 8):
        for norm in (None, "head"):
            study = _study("rope", length=1024)
            study.train.steps = study.train.steps * 2 // texts
            study.train.batch_size = texts
            study.model.qk_norm = norm
            study.seeds = 2
            study.sweep.learning_rate = RATES
            studies[f"long_{texts}_texts_{norm or 'no'}_norm"] = study
    study = _study("rope,alibi,transformer_xl", length=1024)
    study.train.steps *= 4
    return studies | {"long_4_times": study}


def _depth() -> dict[str, ConfigDict]:
    return {"depth_6_layers": _study(DEPTH, layers=6)}


def _tiny() -> dict[str, ConfigDict]:
    study = _study("rope,alibi", width=32, length=32)
    study.corpus = "stdlib"
    study.train.update(batch_size=8, steps=6, warmup_steps=2)
    study.eval.update(multiples=(1, 2), last_tokens=16, documents=4, splits=("test",))
    study.seeds = 1
    study.copying = dict(every=3, repeated=4, texts=4)
    return {"tiny": study}


PRESETS = {
    "tiny": _tiny,
    "onset": _onset,
    "cause": _cause,
    "long": _long,
    "depth": _depth,
    "seeds": _seeds,
}
