"""Makes the numbers that published claims predict; see ``studies/claims``."""

import math
import statistics
from collections.abc import Callable
from typing import Any

from scipy import stats

from experiments.results.ledger import Answers, Effect, MissingRunError, Seeds, least, mean, most
from experiments.studies.order_sensitivity import BLIND

ALGORITHMS = ("copy", "reverse", "addition", "sort", "parity")
# Two schemes count as equal below this difference in bits per byte, and a scheme as flat below this
# share of its loss.
EQUAL = 0.02
# The rung of the ladder on which claims about text are decided: it is trained longest, each scheme
# at its best learning rate.
RUNG = "c_l256_t20"
# The study whose models of all seeds are looked into.
PROBED = "probed"
_FLAT = 0.05


def _below_0(says: str, of: Callable[[Answers], Seeds], **range_: float) -> Effect:
    """Says that a number is below 0, or within another range."""
    return Effect(says, of, **({"high": 0.0} | range_))


def grows_less(one: str, other: str, multiple: int, **range_: float) -> Effect:
    """Says that the loss of ``one`` grows less from the trained length than that of ``other``.

    What one scheme is ahead at the trained length says nothing about longer texts.
    """

    def growth(answers: Answers, scheme: str) -> Seeds:
        return answers.bits("language", scheme, multiple) - answers.bits("language", scheme, 1)

    return _below_0(
        f"growth of bits per byte from 1x to {multiple}x, {one} minus {other}",
        lambda a: growth(a, one) - growth(a, other),
        **range_,
    )


def less(
    one: str,
    other: str,
    multiple: int,
    of: str = "language",
    than: str = "language",
    **range_: float,
) -> Effect:
    """Says that ``one`` in the study ``of`` has a lower loss than ``other`` in ``than``."""
    return _below_0(
        f"bits per byte at {multiple}x, {one} minus {other}" + ", trained at 2L" * (of == "double"),
        lambda a: a.bits(of, one, multiple) - a.bits(than, other, multiple),
        **range_,
    )


def change(scheme: str, multiple: int, *, study: str = "language", **range_: float) -> Effect:
    """Says in which range the loss lies, relative to the loss with only the most recent tokens."""
    return Effect(
        f"loss of {scheme} at {multiple}x over that of the most recent 1x tokens alone, minus 1",
        lambda a: a.bits(study, scheme, multiple) / a.recent_bits(study, scheme) - 1.0,
        **range_,
    )


def more(one: str, other: str, tasks: tuple[str, ...], multiple: int) -> Effect:
    """Says that ``one`` has more answers right than ``other``, on average over ``tasks``."""

    def share(answers: Answers, scheme: str) -> Seeds:
        return mean(*(answers.hits("tasks", scheme, task, multiple) for task in tasks))

    return Effect(
        f"share of answers right at {multiple}x in {', '.join(tasks)}, {one} minus {other}",
        lambda a: share(a, one) - share(a, other),
        low=0.0,
    )


def learned(schemes: tuple[str, ...], tasks: tuple[str, ...]) -> Effect:
    """Says that schemes have learned tasks at the trained length, which other effects require."""
    return Effect(
        f"least share of answers right at 1x in {', '.join(tasks)}, {' and '.join(schemes)}",
        lambda a: least(*(a.hits("tasks", one, task, 1) for one in schemes for task in tasks)),
        low=0.5,
    )


def errors(scheme: str, multiple: int, **range_: float) -> Effect:
    """Says in which range the share of wrong rows of the task flip_flop lies."""
    return Effect(
        f"share of rows of flip_flop wrong at {multiple}x, {scheme}",
        lambda a: (a.hits("tasks", scheme, "flip_flop", multiple) - 1.0) / -1.0,
        **range_,
    )


def _tuned_bits(answers: Answers, scheme: str, steps: int, **where: Any) -> Seeds:
    """Returns bits per byte in the study extension, by default with texts of 8x."""
    where = {"protocol": "last", "multiple": 8} | where
    return answers.read("extension", "bits_per_byte", scheme=scheme, steps=steps, **where)


def tuned(one: str, steps: int, other: str, other_steps: int) -> Effect:
    """Says that a model tuned for some steps has a lower loss than another one."""
    return _below_0(
        f"bits per byte at 8x, {one} after {steps} steps minus {other} after {other_steps}",
        lambda a: _tuned_bits(a, one, steps) - _tuned_bits(a, other, other_steps),
    )


def beats_plain_window(scheme: str, steps: int) -> Effect:
    """Says that a tuned model makes use of more context than plain RoPE was trained with."""
    window = {"protocol": "windowed", "multiple": 1}
    return _below_0(
        f"bits per byte, {scheme} at 8x after {steps} steps minus rope with the most recent 1x "
        "tokens",
        lambda a: _tuned_bits(a, scheme, steps) - _tuned_bits(a, "rope", 0, **window),
    )


def keeps(scheme: str, steps: int) -> Effect:
    """Says that a tuned model keeps the accuracy at short context."""

    def accuracy(answers: Answers, scheme: str, steps: int) -> Seeds:
        where = dict(scheme=scheme, protocol="short", steps=steps)
        return answers.read("extension", "accuracy", **where)

    return Effect(
        f"share of the accuracy at short context that {scheme} keeps after {steps} steps",
        lambda a: accuracy(a, scheme, steps) / accuracy(a, "rope", 0),
        low=0.95,
    )


def searched(one: str, other: str, group: str = "near") -> Effect:
    """Says that factors of one method have a lower loss than another's."""
    multiple = {"near": "8x", "far": "64x, tuned at 8x"}[group]

    def loss(answers: Answers, scheme: str) -> Seeds:
        return answers.read("longrope", "last_loss", group=group, scheme=scheme)

    return _below_0(
        f"nats per token at {multiple}, {one} minus {other}, on documents that no search read",
        lambda a: loss(a, one) - loss(a, other),
    )


def sees_order(scheme: str, pair: str) -> Effect:
    """Says that the outputs differ, under the seed with the least difference.

    The models are not trained, so seeds are no sample of results: one number stands for all of
    them. It is a power of 10, as distances range over many magnitudes.
    """

    def power(answers: Answers) -> Seeds:
        distances = answers.read("order", "distance", scheme=scheme, pair=pair)
        # The rounding of float32, about 1e-7, stands for a distance of 0.
        exponent = math.ceil(math.log10(min(distances.values()) or 1e-7))
        return Seeds(dict.fromkeys(distances, exponent))

    says = f"how far the outputs of {pair} are apart as sets, as the next power of 10, {scheme}"
    return Effect(says, power, low=math.log10(BLIND))


def at_stride_1(answers: Answers, multiple: int) -> Seeds:
    """Returns bits per byte of ALiBi where every token has the same context."""
    where = dict(scheme="alibi", split="test", protocol="sliding", stride=1, multiple=multiple)
    return answers.read("far", "bits_per_byte", **where)


def rung_less(one: str, other: str, multiple: int, study: str = RUNG, **range_: float) -> Effect:
    """Says that ``one`` has a lower loss than ``other`` on a rung of the ladder."""
    return _below_0(
        f"bits per byte at {multiple}x, {one} minus {other}, in {study}",
        lambda a: a.rung_bits(study, one, multiple) - a.rung_bits(study, other, multiple),
        **range_,
    )


def rung_change(scheme: str, multiple: int, study: str = RUNG, **range_: float) -> Effect:
    """Says in which range the loss on a rung lies, relative to that at the trained length."""
    return Effect(
        f"loss of {scheme} at {multiple}x over that at 1x, minus 1, in {study}",
        lambda a: a.rung_bits(study, scheme, multiple) / a.rung_bits(study, scheme, 1) - 1.0,
        **range_,
    )


def beats_window(scheme: str, of: str) -> Effect:
    """Says that a scheme with the whole of texts of 16x is better than another in its window."""
    return _below_0(
        f"bits per byte after the first 1x tokens, {scheme} with texts of 16x minus {of} with the "
        f"most recent 1x tokens, in {RUNG}",
        lambda a: a.rung_bits(RUNG, scheme, 16, "beyond") - a.rung_bits(RUNG, of, 16, "cut"),
    )


def probe(answers: Answers, name: str, scheme: str, **where: int) -> Seeds:
    """Returns a number of ``evaluation/mechanisms.py``."""
    return answers.read(PROBED, "value", probe=name, scheme=scheme, **where)


def in_layer(name: str, says: str, scheme: str, layer: int, **range_: float) -> Effect:
    """Says in which range a number of ``evaluation/mechanisms.py`` lies in a layer."""
    return Effect(
        f"{says}, {scheme}, layer {layer + 1}",
        lambda a: probe(a, name, scheme, layer=layer),
        **range_,
    )


def at_length(name: str, says: str, scheme: str, length: int, **range_: float) -> Effect:
    """Says in which range a number of ``evaluation/mechanisms.py`` lies in texts of a length."""
    return Effect(
        f"{says}, {scheme}, in texts of {length} tokens",
        lambda a: probe(a, name, scheme, length=length),
        **range_,
    )


def more_at_length(name: str, says: str, one: tuple[str, int], other: tuple[str, int]) -> Effect:
    """Says that a number of ``mechanisms.py`` is larger for one scheme and length than another."""
    (scheme, length), (than, of) = one, other
    return Effect(
        f"{says}, {scheme} in texts of {length} tokens minus {than} in texts of {of}",
        lambda a: probe(a, name, scheme, length=length) - probe(a, name, than, length=of),
        low=0.0,
    )


def sinks(*schemes: str, low: float) -> Effect:
    """Says how much attention to the first token some head has, under some of the schemes."""
    which = f"any of {', '.join(schemes)}" if len(schemes) > 1 else schemes[0]
    return Effect(
        f"largest mean attention of a head to the first token, {which}",
        lambda a: most(*(probe(a, "sink", scheme) for scheme in schemes)),
        low=low,
    )


def loss_ranks_recall(answers: Answers) -> Seeds:
    """Returns the rank correlation of loss at 16x and recall at 4x, over schemes with a flat loss.

    A scheme is flat here if its loss at 16x is above that of the most recent tokens by less than
    ``_FLAT`` of it, on average over seeds.
    """
    losses, shares = {}, {}
    records = answers.studies["tasks"].records if "tasks" in answers.studies else []
    for scheme in {r["scheme"]: None for r in records}:
        try:
            loss = answers.bits("language", scheme, 16)
            recent = answers.recent_bits("language", scheme)
            share = answers.hits("tasks", scheme, "recall", 4)
        except MissingRunError:
            continue
        if statistics.fmean((loss / recent - 1.0).values()) < _FLAT:
            losses[scheme], shares[scheme] = loss, share
    if len(losses) < 3:
        raise MissingRunError("no data yet of recall under three schemes with a flat loss")
    seeds = sorted(set.intersection(*map(set, (*losses.values(), *shares.values()))))
    return Seeds(
        {
            seed: stats.spearmanr(*([v[seed] for v in by.values()] for by in (losses, shares)))[0]
            for seed in seeds
        }
    )


def differs(
    study: str, one: str, other: str, metric: str, condition: str, x: Any, **range_: float
) -> Effect:
    """Says how two schemes differ in a column of an experiment on images, screens or videos."""

    def value(answers: Answers, scheme: str) -> Seeds:
        where = dict(scheme=scheme, metric=metric, condition=condition, x=x)
        return answers.read(study, "value", **where)

    return Effect(
        f"{metric}, {condition} {x}, {one} minus {other}, in {study}",
        lambda a: value(a, one) - value(a, other),
        **range_,
    )
