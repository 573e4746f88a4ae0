"""Holds the claims about the attention of trained models; see ``evaluation/mechanisms.py``."""

import functools

from experiments.results.ledger import Answers, Claim, Effect, Seeds, most
from experiments.studies.claims.effects import PROBED, difference

_RISE = "attention to the tokens 1 to an eighth of a text over that to the middle quarter"
_LENGTH = 64  # tokens of a training text
# The attention to the first token from which 2410.10781 speaks of a sink, and its schemes.
_SINK = 0.3
_OF_SINKS = ("nope", "alibi", "learned", "rope")


def _probe(answers: Answers, name: str, scheme: str, **where: int) -> Seeds:
    return answers.read(PROBED, "value", probe=name, scheme=scheme, **where)


def _in_layers(name: str, says: str, **range_: float) -> tuple[Effect, ...]:
    """Says in which range a number of RoPE's lies, in each layer."""
    return tuple(
        Effect(
            f"{says}, rope, layer {layer + 1}",
            functools.partial(_probe, name=name, scheme="rope", layer=layer),
            **range_,
        )
        for layer in (0, 1)
    )


def _at_trained_length(name: str, says: str, **range_: float) -> Effect:
    """Says in which range a number of RoPE's lies, in texts of the trained length."""
    says = f"{says}, rope, in texts of {_LENGTH} tokens"
    return Effect(says, lambda a: _probe(a, name, "rope", length=_LENGTH), **range_)


def _rises_more_than(scheme: str, length: int) -> Effect:
    """Says that RoPE's attention rises more than a scheme's, which reads texts of a length."""

    def number(answers: Answers, scheme: str, length: int) -> Seeds:
        return _probe(answers, "far", scheme, length=length)

    says = f"{_RISE}, rope in texts of {_LENGTH} tokens minus {scheme} in texts of {length}"
    return difference(says, number, ("rope", _LENGTH), (scheme, length), low=0.0)


def _sinks(*schemes: str) -> Effect:
    """Says that some head attends to the first token, under some of the schemes."""
    which = f"any of {', '.join(schemes)}" if len(schemes) > 1 else schemes[0]
    return Effect(
        f"largest mean attention of a head to the first token, {which}",
        lambda a: most(*(_probe(a, "sink", scheme) for scheme in schemes)),
        low=_SINK,
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "hope_near_pairs",
        "RoPE's channel pairs whose period is near the trained length carry more than twice an "
        "even share of the logits' variance, in every layer.",
        "2410.21216",
        "models trained at 512 tokens, by its abstract: some learned components of RoPE cause its "
        "U-shape",
        ("rope",),
        _in_layers(
            "near",
            "share of the logits' variance of 3 pairs of 16, with periods within an octave of the "
            "trained length",
            low=0.375,
        ),
    ),
    Claim(
        "hope_u_shape",
        "RoPE's attention is U-shaped in the distance: it rises again near the trained length. The "
        "rise follows the distance and not the beginning of a text, so texts of half and three "
        "quarters of that length have less of it; and there is less of it if the pairs with a "
        "period near that length stand still in training.",
        "2410.21216",
        "models trained at 512 tokens, by its abstract: a local decay and a global U-shape, caused "
        "by some learned components of RoPE",
        ("rope",),
        (
            _at_trained_length("far", _RISE, low=1.0),
            *(_rises_more_than("rope", length) for length in (_LENGTH // 2, 3 * _LENGTH // 4)),
            _at_trained_length(
                "first",
                "attention to token 0 over that to the tokens 1 to an eighth of a text",
                low=0.5,
                high=2.0,
            ),
            _rises_more_than("rope_near_still", _LENGTH),
        ),
        note="A bump that follows the first tokens is there in texts of any length, and one that "
        "follows the distance only where texts are long enough.",
    ),
    Claim(
        "pi_bound",
        "With the queries and keys of a trained model, logits at distances that were not trained "
        "become at least twice as large as at trained ones, and leave the trained range by 60 "
        "times the error of interpolation between trained distances, which keeps to its bound.",
        "2306.15595, theorem 2.1 and figure 2",
        "heads of 128 channels: a bound of the error of interpolation that is about 600 times "
        "smaller than a bound of the logits of extrapolation, and a drawn example of logits that "
        "explode",
        ("rope", "pi"),
        (
            *_in_layers("reach", "largest logit from 1x to 4x over that to 1x", low=2.0),
            *_in_layers(
                "excess", "logits from 1x to 4x out of their range to 1x, over the error", low=60.0
            ),
            *_in_layers("bound", "largest error of interpolation over its bound", high=1.0),
        ),
        note="A tenth of the ratio of the bounds is asked for, because neither need be reached. "
        "The theorem is not true for all queries and keys: if all pairs add 1 in phase, the error "
        "for 128 channels and a base of 10,000 is 0.494, and the bound 0.434.",
    ),
    Claim(
        "sinks_everywhere",
        "Under every encoding some head puts more than 0.3 of its attention on the first token.",
        "2410.10781",
        "models of about 60M parameters: a sink appears without positions, and with ALiBi, learned "
        "positions and RoPE, after enough training on enough data",
        _OF_SINKS,
        tuple(map(_sinks, _OF_SINKS)),
        needs=(_sinks(*_OF_SINKS),),
        scale_needed="training until a sink appears; the paper's models have 60M parameters",
    ),
)
