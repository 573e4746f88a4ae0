"""Makes records of studies, as tests of tables and pages read them."""

import json

from experiments.results import archive
from experiments.results.panels import Panel, PanelStudy

LOW, HIGH = (0.2, 0.1, 0.3), (0.99, 0.95, 1.0)


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
                    where = dict(scheme=scheme, seed=seed, split=split, protocol=protocol)
                    where |= dict(multiple=multiple, length=64 * multiple, stride=None)
                    texts = dict(by_text=[0.7 * bits - 0.1, 0.7 * bits + 0.1]) if by_text else {}
                    records.append(where | dict(bits_per_byte=bits, loss=0.7 * bits) | texts)
    return records


def panel_study(**shares):
    """Returns a study of the task copy in rows of 32 and 64 tokens; shares are those of seeds."""
    panel = Panel("copy", "exact match", "tokens of a row", (32, 64), (32,))
    records = [
        dict(scheme=scheme, seed=seed, condition="copy", metric="exact match", x=x, value=value)
        | dict(chance=0.1)
        for scheme, by_length in shares.items()
        for x, seeds in zip(panel.xs, by_length, strict=True)
        for seed, value in enumerate(seeds)
    ]
    failures = [{"scheme": "fire", "seed": 1, "reason": "no number"}]
    return PanelStudy(records, [], failures, {}, [], (panel,))


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
