"""Holds the claims about tasks, and about the order of tokens."""

from collections.abc import Iterable

from experiments.results.ledger import Claim, Effect, spread
from experiments.studies.claims.effects import ALGORITHMS, errors, learned, less, more, sees_order
from experiments.studies.order_sensitivity import ORDERS

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "hope_copies",
        "HoPE copies better than RoPE from twice the trained length.",
        "2410.21216",
        "models to 3B parameters, trained at 512 tokens: 60 % against 24 % copied, as third "
        "parties quote it",
        ("hope", "rope"),
        (more("hope", "rope", ("copy",), 2),),
        needs=(learned(("hope", "rope"), ("copy",)),),
        scale_needed="models that copy at the trained length under both schemes, such as of a task "
        "learned alone for longer",
        is_of_text=False,
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
                lambda a: spread(a.exact("addition", "fire", "addition", 2)),
                low=0.1,
            ),
        ),
        needs=(
            Effect(
                "share of sums right at 1x, fire",
                lambda a: a.exact("addition", "fire", "addition", 1),
                low=0.1,
            ),
        ),
        scale_needed="models that add at the trained length; the paper's have 25M parameters",
        is_of_text=False,
    ),
    Claim(
        "cope_counts",
        "CoPE counts better than RoPE, at the trained length and at 4 times it.",
        "2405.18719",
        "counting, selective copying and flip-flops, by its abstract; another reproduction found "
        "no gain at length",
        ("cope", "rope"),
        (more("cope", "rope", ("counting",), 1), more("cope", "rope", ("counting",), 4)),
        needs=(learned(("cope",), ("counting",)),),
        scale_needed="models that count at the trained length",
        is_of_text=False,
    ),
    Claim(
        "path_flip_flop",
        "PaTH follows a flip-flop beyond its training almost without error, where RoPE errs in "
        "tens of percent.",
        "2505.16381",
        "one layer, two heads, 64 channels, rows of the trained length with fewer writes: 0.0001 % "
        "against 40.3 %; rows 4 times as long stand for them here",
        ("path", "rope"),
        (errors("path", 4, high=0.01), errors("rope", 4, low=0.1)),
        is_of_text=False,
    ),
    Claim(
        "nope_generalises",
        "Without positions, algorithms generalise to longer rows better than with RoPE, on average "
        "over five of them; in language it is the other way round.",
        "2305.19466",
        "107M parameters, ten tasks, rows to 20, tested to 40, as third parties quote it",
        ("nope", "rope"),
        (more("nope", "rope", ALGORITHMS, 2), less("rope", "nope", 1)),
        needs=(learned(("nope", "rope"), ALGORITHMS),),
        scale_needed="models that learn the five tasks at the trained length; the paper's have "
        "107M parameters, and each learns one task",
    ),
    Claim(
        "randomized_generalises",
        "Positions drawn at random generalise on algorithms to rows longer than those of training, "
        "on average over five of them.",
        "2305.16843",
        "encoders on 15 tasks, trained to 40 tokens, tested to 500: 12 % more",
        ("randomized", "rope"),
        (more("randomized", "rope", ALGORITHMS, 4),),
        needs=(learned(("randomized", "rope"), ALGORITHMS),),
        scale_needed="models that learn the five tasks at the trained length; the paper's are "
        "encoders, and each learns one task",
        is_of_text=False,
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
        tuple(sees_order(scheme, pair) for pair in ORDERS for scheme in schemes),
        is_of_text=False,
        note="我爱你 and 你爱我 are mirror images, in which every two tokens are as far apart. A "
        "scheme that reads the distance without its direction must take them for the same, at any "
        "scale. The second pair are no mirror images: whoever takes these for the same is blind to "
        "order.",
    )
