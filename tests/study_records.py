"""Makes records of studies, as tests of tables and pages read them."""


def record(scheme, seed, multiple, bits, *, protocol="last", split="test", stride=None, **more):
    """Returns a record of a study of lengths, whose models were trained on 64 tokens."""
    where = dict(scheme=scheme, seed=seed, split=split, protocol=protocol, stride=stride)
    where |= dict(multiple=multiple, length=64 * multiple)
    losses = dict(bits_per_byte=bits, loss=0.7 * bits, perplexity=2.0**bits, tokens=1000)
    return where | losses | more


def panel_records(panel, values):
    """Returns the records of a panel, from the numbers of each scheme's seeds at each x."""
    return [
        dict(scheme=scheme, seed=seed, condition=panel.condition, metric=panel.metric)
        | dict(x=x, value=value, chance=0.1)
        for scheme, by_x in values.items()
        for x, seeds in zip(panel.xs, by_x, strict=True)
        for seed, value in enumerate(seeds)
    ]
