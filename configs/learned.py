"""Trains models until they have learned one task each: do they solve it in longer rows?

    python launch.py --config=configs/learned.py:small --workdir=runs/learned

Presets, after the colon:

    tiny   two tasks, one seed, a minute: checks that everything runs, shows nothing
    small  eleven studies and three seeds, in about 16 hours of one CPU core, 11 of them for PaTH
    NAME   the study NAME of ``small`` alone; in the same workdir ``small`` does not run it again

A model is done when it has had 95 % of the held-out rows of the trained length right and has been
trained for as many steps again, or at the last step. Models have 0.1 million parameters or fewer.
The studies of ``small``, with their hours in brackets, if all runs take all steps:

    copy, reverse     up to 20 symbols: the two smallest tasks of 2305.19466, under the five schemes
                      that it compares and three more, copy under `hope` too (2.4 each)
    pairs, passkeys   longer rows have more pairs of key and value, or more numbers, to remember
                      (2.4 each)
    flip_flops        rows of 512 tokens, one layer and two heads of 32 channels, as in 2505.16381;
                      also tested where 98 of 100 instructions are to be ignored (4.5)
    flip_flops_short  the same in rows of 128 tokens (0.7)
    addition, addition_shifted, addition_hinted, addition_coupled
                      up to 5 digits, with ordinary positions, positions that begin anywhere, hints,
                      and the same position for digits of the same place, as in 2405.20671 (1)
    addition_coupled_long
                      the same as the last one, up to 10 digits and one layer: the positive control
                      (0.1)

Any field can be overridden on the command line: ``--config.studies.copy.schemes=rope,alibi``.
"""

from ml_collections import ConfigDict

from configs import tasks
from experiments.settings import one_of
from experiments.studies.tasks.one_task import Setting, TrialsOfOne

PRESETS = ("tiny", "small")
# One scheme of each kind, because all schemes would take days. The first five are the ones of
# 2305.19466: no positions, absolute positions, rotation, a fixed bias and a learned one. The others
# are a forget gate, accumulated transformations, and positions that are drawn at random.
KINDS = "nope,sinusoidal,rope,alibi,t5,fox,path,randomized"


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = ConfigDict({"experiment": "learned"})
    config.seeds = 1 if preset == "tiny" else 3
    studies = _tiny() if preset == "tiny" else _small()
    one_of("preset", preset, (*PRESETS, *studies))
    config.studies = ConfigDict({preset: studies[preset]} if preset in studies else studies)
    for study in config.studies.values():
        study.seeds = config.get_ref("seeds")
    return config


def _tiny() -> dict[str, ConfigDict]:
    studies = {"copy": _one("copy", 20), "addition_coupled": _one("addition_coupled", 20, "shaw")}
    for study in studies.values():
        study.model.update(model_dim=16, num_layers=1, num_heads=2)
        study.task.update(growing=2, every=2, held_out=8)
        study.train.update(batch_size=8, steps=4, warmup_steps=2)
        study.eval.update(multiples=(1, 2), rows=8, batch=8)
    return studies


def _small() -> dict[str, ConfigDict]:
    # Some lengths hold no more than shorter ones: 21 tokens have 5 digits, and so have 19. Each
    # length is the last of its kind, so that training has enough of the longest rows.
    studies = {
        "copy": _one("copy", 43, f"{KINDS},hope"),
        "reverse": _one("reverse", 43),
        "pairs": _one("pairs", 40),
        "passkeys": _one("passkeys", 48),
        "flip_flops": _flip_flops(513),
        "flip_flops_short": _flip_flops(129),
        "addition": _one("addition", 21, "nope,rope,t5,shaw,fire,randomized"),
        # A shift changes nothing for a scheme that reads distances alone.
        "addition_shifted": _one("addition_shifted", 21, "sinusoidal,learned"),
        "addition_hinted": _one("addition_hinted", 40, "nope,rope,fire,randomized"),
        "addition_coupled": _one("addition_coupled", 21, "learned,rope,t5,shaw"),
        "addition_coupled_long": _one("addition_coupled", 36, "learned,rope,t5,shaw"),
    }
    studies["addition_coupled_long"].model.num_layers = 1  # as in 2405.20671
    studies["addition_coupled_long"].train.batch_size = 64
    studies["addition_coupled_long"].eval.update(multiples=(1, 2, 3), rows=128)
    studies["flip_flops"].train.steps = 1500
    studies["flip_flops"].eval.multiples = (1, 2)
    for name in ("addition_coupled", "addition_coupled_long"):
        studies[name].train.steps = 1500
        # The two digits that a token adds are one position ahead of it, so a bias must tell later
        # positions apart too.
        studies[name].variants.t5.encoding.update(bidirectional=True, num_buckets=8, max_distance=4)
    for name in ("addition", "addition_coupled", "addition_coupled_long"):
        # All distances from this one on are read alike, so that longer sums have no new ones.
        studies[name].variants.shaw.encoding.max_distance = 4
    return studies


def _flip_flops(length: int) -> ConfigDict:
    config = _one("flip_flops", length, "nope,rope,alibi,fox,path")
    config.task.update(shortest=length, growing=0, held_out=64)
    config.model.update(num_layers=1, num_heads=2)
    config.train.update(batch_size=16, steps=800)
    config.eval.update(rows=128, batch=16, beside="flip_flops_sparse")
    return config


def _one(task: str, length: int, schemes: str = KINDS) -> ConfigDict:
    """Returns the study of a task in rows of up to ``length`` tokens."""
    config = tasks.study("one_task", schemes, setting=Setting, trials=TrialsOfOne)
    config.task.update(task=task, length=length, growing=500)
    config.model.update(model_dim=64, num_layers=2, num_heads=4)
    config.train.update(
        batch_size=32, steps=3000, optimizer="muon", learning_rate=4e-3, warmup_steps=100
    )
    return config
