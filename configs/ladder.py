"""Asks whether an advantage lasts: schemes trained longer, at other lengths and in other sizes.

    python launch.py --config=configs/ladder.py:small --workdir=runs/ladder --workers=2

Presets, after the colon:

    tiny   three schemes, seconds: checks that everything runs, shows nothing
    rates  rung B: each scheme under three learning rates, about 8 hours of one CPU core
    small  rungs B to D, about 46 hours of one CPU core
    track  your own scheme beside the ladder's: three learning rates, then three seeds of rung C at
           the best one. Give --config.schemes=mine, the name of a scheme or of a file mine.py that
           defines one; the report shows it among the schemes of docs/data/ladder.csv.gz. About an
           hour of one CPU core, or seconds in a workdir where ``small`` has trained the scheme,
           because the runs are the same.
    h100   33M and 124M parameters on the tokens of a tokeniser, trained at 512 of them, and table 3
           of KERPLE at its size (2205.09921): 42 hours of one H100 at 40 % of its peak
    v5e    the same but for the table, trained at 1,024 tokens: 192 chip hours of TPU v5e

``h100`` and ``v5e`` need --config.corpus=tokens:FOLDER, see ``experiments/training/data.py``. Their
hours are what ``--dry_run`` prints for a vocabulary of 50,257 tokens.

Rung A is ``configs/atlas.py:small``, and the others are here. A name begins with its rung, and
studies run in the order of their names:

    b1_bases_64, b2_bases_256   RoPE under several bases, at two lengths; they led to ``BASE``.
    b3_rates                    Every scheme of the ladder under three learning rates, one seed. All
                                rungs below take the best rate of each scheme.
    c_l256_t20                  RoPE, NoPE and fifteen other schemes, trained at 256 tokens on 20
                                tokens per parameter; extensions of RoPE read its models.
    d1_l64_t2 .. d5_l64_t20     Tokens: 1.6, 6 and 20 a parameter, at two lengths.
    d6_w64_t20, d8_w256_t20     Sizes: 0.12M and 1.7M parameters instead of 0.46M; the larger has
                                one seed, because a run takes more than an hour of a core.
    d7_l1024_t20                Lengths: trained at 1,024 tokens; this is also what a scheme trained
                                at 256 could reach at four times its length.

In a name l is the trained length, t the tokens per parameter that models see, and w their width.
All studies read the same texts, with a context of 64 to 4,096 tokens before the same targets, so
that their losses can be compared. Any field can be overridden on the command line:
``--config.studies.c_l256_t20.schemes=rope,alibi``.
"""

from ml_collections import ConfigDict

from configs import extrapolation
from configs.extrapolation import ON_ROPE
from experiments.config import encoding
from experiments.settings import one_of
from posenc_jax.model.transformer import usual_mlp_dim

# The base of every rotary scheme, over the trained length. In the studies ``b1_bases_64`` and
# ``b2_bases_256``, of one seed, its loss on texts is within 0.003 bits per byte of the lowest.
BASE = 16

# Schemes that lead their family in the atlas, or that papers argue about, and the baselines.
SCHEMES = (
    "rope,rope_10000,alibi,nope,transformer_xl,fox,kerple_log,t5,sinusoidal,fire,cable,path,"
    "selective_rope,hope,p_rope,rnope_swa,kv_shift,xpos,sandwich,randomized,inkling,cope,dape,"
    "stick_breaking,seqpe"
)
# These are evaluated on the models of ``rope`` and need no training.
EXTENSIONS = "yarn,rerope,self_extend,dual_chunk"
LONG = (
    "rope,alibi,nope,sinusoidal,transformer_xl,fox,kerple_log,t5,path,kv_shift,rnope_swa,p_rope,"
    "cable,fire,selective_rope,hope,stick_breaking"
)
FIVE = "rope,alibi,nope,transformer_xl,fox"
SIX = f"{FIVE},path"  # PaTH takes three times as long as the others
# The largest size takes more than an hour a run.
SIZES = "rope,alibi,nope,transformer_xl,fox,kerple_log"
FOUR = "rope,alibi,transformer_xl,fox"


# The rung whose table is shown first.
_MAIN = {
    "tiny": "c_l32_t20",
    "rates": "b3_rates",
    "small": "c_l256_t20",
    "track": "c_l256_t20",
    "h100": "c_w384_t20",
    "v5e": "c_w384_t20",
}
_BATCH_TOKENS = 2048
_LONGEST = 4096
_WIDTH = 128


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    one_of("preset", preset, PRESETS)
    config = ConfigDict({"experiment": "ladder", "corpus": "packages"})
    # A tidy table whose schemes are shown beside the others, or none.
    config.beside = "docs/data/ladder.csv.gz" if preset == "track" else ""
    config.studies = ConfigDict(PRESETS[preset]())
    config.main = _MAIN[preset]
    if preset == "track":
        config.schemes = "rope"
        for rung in config.studies.values():
            rung.schemes = config.get_ref("schemes")
    for study in config.studies.values():
        study.corpus = config.get_ref("corpus")
    return config


def _small() -> dict[str, ConfigDict]:
    wide = _rung(256, 20, SIZES, width=256)
    wide.seeds = 1
    return _rates() | {
        "c_l256_t20": _rung(256, 20, f"{LONG},{EXTENSIONS}"),
        "d1_l64_t2": _rung(64, 1.6, FIVE),
        "d2_l256_t2": _rung(256, 1.6, FIVE),
        "d3_l64_t6": _rung(64, 6, FIVE),
        "d4_l256_t6": _rung(256, 6, FIVE),
        "d5_l64_t20": _rung(64, 20, FIVE),
        "d6_w64_t20": _rung(256, 20, SIZES, width=64),
        "d7_l1024_t20": _rung(1024, 20, FOUR),
        "d8_w256_t20": wide,
    }


def _rates() -> dict[str, ConfigDict]:
    rates = study(256, SCHEMES)
    rates.seeds = 1
    rates.train.steps = 1400
    rates.eval.documents = 32
    rates.sweep.learning_rate = (3e-3, 6e-3, 12e-3)
    return {"b1_bases_64": _bases(64), "b2_bases_256": _bases(256), "b3_rates": rates}


def _tiny() -> dict[str, ConfigDict]:
    short, longer = study(32, "rope,alibi,nope"), study(32, "rope,alibi,nope")
    for rung, steps in ((short, 6), (longer, 12)):
        rung.seeds = 2
        rung.model.update(model_dim=32, num_layers=2, num_heads=4)
        rung.train.update(length=32, batch_size=4, steps=steps, warmup_steps=2)
        rung.eval.update(multiples=(1, 2, 4), last_tokens=16, documents=4, batch_tokens=512)
    short.sweep.learning_rate = (3e-3, 6e-3)
    longer.rates_of = "b_l32_t2"
    return {"b_l32_t2": short, "c_l32_t20": longer}


def _large(length: int) -> dict[str, ConfigDict]:
    rates = _of_tokens(length, SIX, tokens=3e7, width=384)
    rates.sweep.learning_rate = (2e-3, 4e-3, 8e-3)
    rates.seeds = 1
    return {
        "b3_rates": rates,
        "c_w384_t20": _of_tokens(length, LONG, tokens=6.7e8, width=384),
        "d_w768_t20": _of_tokens(length, SIX, tokens=2.5e9, width=768),
    }


def _of_tokens(length: int, schemes: str, tokens: float, width: int) -> ConfigDict:
    """Returns a study on the tokens of a tokeniser, for an accelerator."""
    config = study(length, schemes)
    config.model.update(
        model_dim=width,
        num_layers=8 if width < 768 else 12,
        num_heads=width // 64,
        dtype="bfloat16",
        scan=True,
        remat=True,
    )
    batch_size = 2**16 // length
    config.train.update(
        batch_size=batch_size,
        steps=round(tokens / (batch_size * length)),
        warmup_steps=200,
        checkpoint_every=1000,
        learning_rate=4e-3,
    )
    config.eval.update(
        multiples=(1, 2, 4, 8, 16),
        last_tokens=256,
        documents=256,
        splits=("test",),
        window_stride=64,
        batch_tokens=2**17,
    )
    config.rates_of = "" if tokens < 1e8 else "b3_rates"
    return config


def _kerple_table3() -> ConfigDict:
    """Returns the setting of table 3 in 2205.09921: 162M parameters, 50,000 steps of 32 x 512."""
    config = _of_tokens(512, "kerple_log,kerple_power,alibi,t5,rope,sandwich", 8.2e8, width=768)
    config.train.update(
        batch_size=32, steps=50_000, warmup_steps=500, optimizer="adamw", learning_rate=6e-4
    )
    config.train.weight_decay = 0.0
    config.model.tied = False
    config.eval.multiples = (1, 2, 4, 8, 16, 32)
    config.rates_of = ""
    return config


PRESETS = {
    "tiny": _tiny,
    "rates": _rates,
    "small": _small,
    "track": lambda: {"b3_rates": _rates()["b3_rates"], "c_l256_t20": _rung(256, 20, "rope")},
    "h100": lambda: _large(512) | {"e_kerple_table3": _kerple_table3()},
    "v5e": lambda: _large(1024),
}


def _bases(length: int) -> ConfigDict:
    bases = [1, 4, 16, 64]
    config = study(length, ",".join(f"rope_{base}l" for base in bases))
    for base in bases:
        config.encodings[f"rope_{base}l"] = encoding("rope", base=float(base * length))
    config.seeds = 1
    config.train.steps = 1400
    config.eval.documents = 32
    return config


def _rung(length: int, tokens: float, schemes: str, width: int = _WIDTH) -> ConfigDict:
    """Returns a study of ``tokens`` tokens per parameter, each scheme at its own learning rate."""
    config = study(length, schemes)
    config.model.model_dim = width
    config.train.steps = round(tokens * parameters(width) / _BATCH_TOKENS)
    config.rates_of = "b3_rates"
    return config


def parameters(width: int) -> int:
    """Returns how many parameters a model of bytes has, without those of its encoding."""
    layers, vocabulary, hidden = 2, 256, usual_mlp_dim(width)
    return layers * (4 * width**2 + 3 * width * hidden + 2 * width) + (vocabulary + 1) * width


def study(length: int, schemes: str) -> ConfigDict:
    """Returns a study on texts of ``length`` tokens, with what every rung has in common."""
    config = extrapolation.get_config("small")
    config.experiment = "rung"
    config.schemes = schemes
    # The study whose best learning rates this one takes, see ``Rung`` of ``studies/ladder.py``.
    config.rates_of = ""
    config.train.update(
        length=length,
        batch_size=_BATCH_TOKENS // length,
        warmup_steps=100,
        optimizer="muon",
        learning_rate=6e-3,
        checkpoint_every=500,
    )
    config.eval.update(
        multiples=tuple(n for n in (1, 2, 4, 8, 16, 64) if n * length <= _LONGEST),
        last_tokens=64,
        documents=96,
        splits=("code", "prose"),
        strides=(),
        window_stride=16,
    )
    _follow_length(config.encodings, config.train.get_ref("length"))
    return config


def _follow_length(encodings: ConfigDict, length) -> None:
    """Makes everything in an encoding follow the trained length that may follow it.

    ``extrapolation.follow_length`` has done so for windows, and for thresholds that are lengths.
    """
    base = length.to_float() * BASE
    at_base = "rope hope p_rope xpos sinusoidal transformer_xl rnope_swa string circulant_string"
    for name in f"{at_base} repo key_offset".split():
        encodings[name].base = base
    for name in ON_ROPE:
        if "base" in encodings[name]:
            encodings[name].base = base
    rope = ConfigDict(encoding("rope", base=base))
    wrappers = ("kv_shift", "short_conv", "dynamic_short_conv", "ssmax")
    for name in (*wrappers, "randomized", "random_float"):
        encodings[name] = encoding(name, over=rope)
    encodings.randomized.max_length = encodings.random_float.max_length = 4 * _LONGEST
    encodings.nope_smear = encoding("kv_shift", over="nope")
    encodings.rope_10000 = encoding("rope", base=10_000.0)
    encodings.deberta.max_distance = length
    encodings.xpos.scale_base = length.to_float() / 2
    encodings.rnope_swa.interval = 2
