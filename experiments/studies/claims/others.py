"""Holds the claims about attention, searched factors, a task and videos."""

import functools

import pandas as pd

from experiments.results.ledger import Answers, Claim, Effect
from experiments.results.panels import ANSWERS
from experiments.studies.claims.effects import PROBED, difference, more_right

_RISE = "attention to the tokens 1 to an eighth of a text over that to the middle quarter"
_LENGTH = 64  # tokens of a training text
_ROW = 513  # tokens of a training row of flip-flops


def _probe(answers: Answers, name: str, scheme: str, **where: int) -> pd.Series:
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

    def number(answers: Answers, scheme: str, length: int) -> pd.Series:
        return _probe(answers, "far", scheme, length=length)

    says = f"{_RISE}, rope in texts of {_LENGTH} tokens minus {scheme} in texts of {length}"
    return difference(says, number, ("rope", _LENGTH), (scheme, length), low=0.0)


def _searched(one: str, other: str, group: str = "near") -> Effect:
    """Says that factors of one method have a lower loss than another's."""
    multiple = {"near": "8x", "far": "64x, tuned at 8x"}[group]

    def loss(answers: Answers, scheme: str) -> pd.Series:
        return answers.read("longrope", "last_loss", group=group, scheme=scheme)

    says = f"nats per token at {multiple}, {one} minus {other}, on documents that no search read"
    return difference(says, loss, (one,), (other,))


def _errors(scheme: str, **range_: float) -> Effect:
    """Says in which range the share of wrong answers in sparse rows of flip-flops lies."""
    where = dict(scheme=scheme, condition="flip_flops_sparse", metric=ANSWERS, x=_ROW)
    return Effect(
        f"share of bits wrong in sparse rows of flip_flops at 1x, {scheme}",
        lambda a: 1.0 - a.read("learned/flip_flops", "value", **where),
        **range_,
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
    ),
    Claim(
        "pi_bound",
        "With the queries and keys of a trained model, logits at distances that were not trained "
        "become at least twice as large as at trained ones, and leave the trained range by 60 "
        "times the error of interpolation between trained distances, which keeps to its bound.",
        "2306.15595, theorem 2.1 and figure 2",
        "heads of 128 channels: a bound of the error of interpolation that is about 600 times "
        "smaller than a bound of the logits of extrapolation, of which a tenth is asked for here. "
        "The constant of the theorem is no bound for all queries and keys: if all pairs add 1 in "
        "phase, the error for 128 channels and a base of 10,000 is 0.494, and the bound 0.434",
        ("rope", "pi"),
        (
            *_in_layers("reach", "largest logit from 1x to 4x over that to 1x", low=2.0),
            *_in_layers(
                "excess", "logits from 1x to 4x out of their range to 1x, over the error", low=60.0
            ),
            *_in_layers("bound", "largest error of interpolation over its bound", high=1.0),
        ),
    ),
    Claim(
        "longrope_searched",
        "Without tuning the factors that LongRoPE finds are better than YaRN's and than position "
        "interpolation at 8 times the length.",
        "2402.13753",
        "LLaMA 2 7B, PG19 at 2 and 4 times the length: perplexity 9.37 and 11.34, position "
        "interpolation 10.65 and 20.49, YaRN 32.64 and 87.89",
        ("longrope", "yarn", "pi"),
        (_searched("longrope", "yarn"), _searched("longrope", "pi")),
    ),
    Claim(
        "longrope_extends_twice",
        "In a model tuned at 8 times its length, the factors that LongRoPE finds for 8 times more "
        "are better than YaRN's, and YaRN's better than position interpolation.",
        "2402.13753",
        "LLaMA 2 7B tuned at 256k tokens, Books3 at 2048k: perplexity 7.08, 8.27 and 20.17",
        ("longrope", "yarn", "pi"),
        (_searched("progressive", "yarn", "far"), _searched("yarn", "pi", "far")),
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
        "videorope_pp",
        "VideoRoPE++ finds more needles than VideoRoPE in videos of 2 and 4 times the trained "
        "length, without tuning, and more than M-RoPE where a distractor is one or three whole "
        "turns of the slowest time pair away.",
        "2502.05173; VideoRoPE++ (doi 10.5281/zenodo.16529245)",
        "Qwen2-VL: VideoRoPE is 12.4 points above M-RoPE on V-NIAH-D, by its README; the numbers "
        "of VideoRoPE++ could not be read",
        ("videorope_pp", "videorope", "mrope"),
        (
            *(more_right("video", "videorope_pp", "videorope", "length", x) for x in (64, 128)),
            *(
                more_right("video", "videorope_pp", "mrope", "gap, 128 frames", gap)
                for gap in (35, 106)
            ),
        ),
    ),
)
