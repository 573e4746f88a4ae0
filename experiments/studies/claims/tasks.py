"""Holds the claims about tasks, and about the order of tokens."""

import math
from collections.abc import Iterable

from experiments.results.answers import SOLVED
from experiments.results.ledger import Answers, Claim, Effect, Seeds, least, mean, spread
from experiments.results.panels import EXACT
from experiments.studies.claims.effects import difference, less
from experiments.studies.claims.token_order import BLIND, ORDERS

_ALGORITHMS = ("copy", "reverse", "addition")


def _more(one: str, other: str, tasks: tuple[str, ...]) -> Effect:
    """Says that ``one`` has more answers right at 2x than ``other``, on average over ``tasks``."""

    def share(answers: Answers, scheme: str) -> Seeds:
        return mean(*(answers.alone(task, scheme, 2) for task in tasks))

    says = f"share of answers right at 2x in {', '.join(tasks)}, {one} minus {other}"
    return difference(says, share, (one,), (other,), low=0.0)


def _learned(schemes: tuple[str, ...], tasks: tuple[str, ...]) -> Effect:
    """Says that schemes have learned tasks at the trained length, which other effects require."""
    return Effect(
        f"least share of rows right at 1x in {', '.join(tasks)}, {' and '.join(schemes)}",
        lambda a: least(*(a.alone(task, one, 1, EXACT) for one in schemes for task in tasks)),
        low=SOLVED,
    )


def _errors(scheme: str, **range_: float) -> Effect:
    """Says in which range the share of wrong answers in sparse rows of flip-flops lies."""
    return Effect(
        f"share of bits wrong in sparse rows of flip_flops at 1x, {scheme}",
        lambda a: (a.alone("flip_flops", scheme, 1, rows="flip_flops_sparse") - 1.0) / -1.0,
        **range_,
    )


def _counts(multiple: int) -> Effect:
    """Says that CoPE has more answers of the task counting right than RoPE."""
    says = f"share of answers right at {multiple}x in counting, cope minus rope"

    def share(answers: Answers, scheme: str) -> Seeds:
        return answers.hits(scheme, "counting", multiple)

    return difference(says, share, ("cope",), ("rope",), low=0.0)


def _sees_order(scheme: str, pair: str) -> Effect:
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


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "hope_copies",
        "HoPE copies better than RoPE at twice the trained length.",
        "2410.21216",
        "models to 3B parameters, trained at 512 tokens: 60 % against 24 % copied, as third "
        "parties quote it",
        ("hope", "rope"),
        (_more("hope", "rope", ("copy",)),),
        needs=(_learned(("hope", "rope"), ("copy",)),),
        scale_needed="models that copy at the trained length under both schemes",
    ),
    Claim(
        "seeds_decide_addition",
        "Whether a model adds numbers longer than those of training depends on its seed more than "
        "on most else: seeds with FIRE are far apart.",
        "2402.09371",
        "25M parameters, as third parties quote it; sums of up to 40 digits, tested to 100",
        ("fire",),
        (
            Effect(
                "share of sums right at 2x, distance of a seed from the median, fire",
                lambda a: spread(a.alone("addition", "fire", 2, EXACT)),
                low=0.1,
            ),
        ),
        needs=(
            Effect(
                "share of sums right at 1x, fire",
                lambda a: a.alone("addition", "fire", 1, EXACT),
                low=0.1,
            ),
        ),
        scale_needed="models that add at the trained length; the paper's have 25M parameters",
    ),
    Claim(
        "cope_counts",
        "CoPE counts better than RoPE, at the trained length and at 4 times it.",
        "2405.18719",
        "counting, selective copying and flip-flops, by its abstract; another reproduction found "
        "no gain at length",
        ("cope", "rope"),
        (_counts(1), _counts(4)),
        needs=(
            Effect(
                "share of answers right at 1x in counting, cope",
                lambda a: a.hits("cope", "counting", 1),
                low=0.5,
            ),
        ),
        scale_needed="models that count at the trained length",
    ),
    Claim(
        "path_flip_flop",
        "PaTH follows a flip-flop beyond its training almost without error, where RoPE errs in "
        "tens of percent.",
        "2505.16381",
        "one layer, two heads, 64 channels, rows of the trained length with fewer writes: 0.0001 % "
        "against 40.3 %",
        ("path", "rope"),
        (_errors("path", high=0.01), _errors("rope", low=0.1)),
    ),
    Claim(
        "nope_generalises",
        "Without positions, algorithms generalise to longer rows better than with RoPE, on average "
        "over three of them; in language it is the other way round.",
        "2305.19466",
        "107M parameters, ten tasks, rows to 20, tested to 40, as third parties quote it",
        ("nope", "rope"),
        (_more("nope", "rope", _ALGORITHMS), less("rope", "nope", 1)),
        needs=(_learned(("nope", "rope"), _ALGORITHMS),),
        scale_needed="models that learn the three tasks at the trained length; the paper's have "
        "107M parameters",
    ),
    Claim(
        "randomized_generalises",
        "Positions drawn at random generalise on algorithms to rows longer than those of training "
        "better than RoPE, on average over three of them.",
        "2305.16843",
        "encoders on 15 tasks, trained to 40 tokens, tested to 500: 12 % more",
        ("randomized", "rope"),
        (_more("randomized", "rope", _ALGORITHMS),),
        needs=(_learned(("randomized", "rope"), _ALGORITHMS),),
        scale_needed="models that learn the three tasks at the trained length; the paper's are "
        "encoders",
    ),
)


def order_is_seen(schemes: Iterable[str]) -> Claim:
    """Returns the claim that models of these schemes tell orders apart."""
    return Claim(
        "order_is_seen",
        "Without a causal mask every scheme with positions tells 我爱你 from 你爱我, and 不怕辣 "
        "from 怕不辣.",
        "the chapter that this project starts from, for the first pair",
        "any model",
        (),
        tuple(_sees_order(scheme, pair) for pair in ORDERS for scheme in schemes),
        note="我爱你 and 你爱我 are mirror images, in which every two tokens are as far apart. A "
        "scheme that reads the distance without its direction must take them for the same, at any "
        "scale. The second pair are no mirror images: whoever takes these for the same is blind to "
        "order.",
    )
