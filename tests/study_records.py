"""Makes records of studies, as tests of tables and pages read them."""

import json

from experiments.results import archive
from experiments.results.panels import Panel, PanelStudy
from experiments.training.recipe import RULES

LOW, HIGH = (0.2, 0.1, 0.3), (0.99, 0.95, 1.0)
# What reports say of a study besides its results.
ABOUT = {"command": "python launch.py --config=x", "rules": RULES, "device": "1 x CPU"}
ABOUT |= {"git": "abc123", "date": "2026-01-01", "config": {}, "versions": {"jax": "0.7"}}
ABOUT |= {"train_length": 64, "last_tokens": 32, "corpus": "a & b", "corpus_digest": "12ab"}
TRAINING = {"steps": 10, "tokens": 5000, "seconds": 2.5, "final_loss": 3.0, "parameters": 1000}


def record(scheme, seed, multiple, bits, *, protocol="last", split="test", stride=None, **more):
    """Returns a record of a study of lengths, whose models were trained on 64 tokens."""
    where = dict(scheme=scheme, seed=seed, split=split, protocol=protocol, stride=stride)
    where |= dict(multiple=multiple, length=64 * multiple)
    losses = dict(bits_per_byte=bits, loss=0.7 * bits, perplexity=2.0**bits, tokens=1000)
    return where | losses | more


def text_records(by_text=False, **losses):
    """Returns records of texts as long as in training and twice as long, and of the window.

    The loss of seed n grows by n / 100 from one length to the other; the window costs 0.5.
    """
    records = []
    for scheme, loss in losses.items():
        for seed in range(3):
            places = (("last", 1, 0.0), ("last", 2, 0.0), ("windowed", 1, 0.5))
            for split in ("test", "manual"):
                for protocol, multiple, more in places:
                    bits = loss + 0.01 * seed * multiple + more
                    texts = dict(by_text=[0.7 * bits - 0.1, 0.7 * bits + 0.1]) if by_text else {}
                    where = dict(protocol=protocol, split=split)
                    records.append(record(scheme, seed, multiple, bits, **where, **texts))
    return records


def panel_study(**shares):
    """Returns a study of the task copy in rows of 32 and 64 tokens; shares are those of seeds."""
    panel = Panel("copy", "exact match", "tokens of a row", (32, 64), (32,))
    failures = [{"scheme": "fire", "seed": 1, "reason": "no number"}]
    return PanelStudy(panel_records(panel, shares), [], failures, {}, [], (panel,))


def panel_records(panel, values):
    """Returns the records of a panel, from the numbers of each scheme's seeds at each x."""
    return [
        dict(scheme=scheme, seed=seed, condition=panel.condition, metric=panel.metric)
        | dict(x=x, value=value, chance=0.1)
        for scheme, by_x in values.items()
        for x, seeds in zip(panel.xs, by_x, strict=True)
        for seed, value in enumerate(seeds)
    ]


def results(table, **values):
    """Returns records of every column of a table, from the numbers of each scheme's seeds."""
    return [
        dict(scheme=scheme, seed=seed, condition=condition, x=x, metric=table.metric)
        | dict(value=value, chance=0.1)
        for scheme, seeds in values.items()
        for seed, value in enumerate(seeds)
        for condition, x in table.columns.values()
    ]


def pack(path, records):
    """Writes an archive of one point with all the records."""
    folder = path.with_suffix("") / "runs/point/seed0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("{}\n")
    evaluation = {"training": {"steps": 1}, "records": records}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    path.write_bytes(archive.pack(path.with_suffix("")))
