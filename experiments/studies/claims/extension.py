"""Holds the claims about how a trained RoPE is extended, with tuning and without."""

from typing import Any

from experiments.results.ledger import Answers, Claim, Effect, Seeds
from experiments.studies.claims.effects import difference, less


def _bits(answers: Answers, scheme: str, steps: int, **where: Any) -> Seeds:
    """Returns bits per byte of a model tuned for some steps, by default with texts of 8x."""
    where = {"protocol": "last", "multiple": 8} | where
    return answers.read("extension", "bits_per_byte", scheme=scheme, steps=steps, **where)


def _tuned(one: str, steps: int, other: str, other_steps: int) -> Effect:
    """Says that a model tuned for some steps has a lower loss than another one."""
    says = f"bits per byte at 8x, {one} after {steps} steps minus {other} after {other_steps}"
    return difference(says, _bits, (one, steps), (other, other_steps))


def _keeps(scheme: str, steps: int) -> Effect:
    """Says that a tuned model keeps the accuracy at short context."""

    def accuracy(answers: Answers, scheme: str, steps: int) -> Seeds:
        where = dict(scheme=scheme, protocol="short", steps=steps)
        return answers.read("extension", "accuracy", **where)

    return Effect(
        f"share of the accuracy at short context that {scheme} keeps after {steps} steps",
        lambda a: accuracy(a, scheme, steps) / accuracy(a, "rope", 0),
        low=0.95,
    )


def _searched(one: str, other: str, group: str = "near") -> Effect:
    """Says that factors of one method have a lower loss than another's."""
    multiple = {"near": "8x", "far": "64x, tuned at 8x"}[group]

    def loss(answers: Answers, scheme: str) -> Seeds:
        return answers.read("longrope", "last_loss", group=group, scheme=scheme)

    says = f"nats per token at {multiple}, {one} minus {other}, on documents that no search read"
    return difference(says, loss, (one,), (other,))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "yarn_ntk_pi",
        "Without fine-tuning YaRN is better than NTK, and NTK better than position interpolation.",
        "2309.00071",
        "LLaMA of 7B parameters, trained at 2048 tokens, at 16 times the length: YaRN holds and "
        "the others blow up; 2402.13753 finds YaRN behind PI in LLaMA 2",
        ("yarn", "ntk", "pi"),
        tuple(
            less(one, other, multiple)
            for multiple in (2, 4)
            for one, other in (("yarn", "ntk"), ("ntk", "pi"))
        ),
    ),
    Claim(
        "yarn_in_a_tenth",
        "YaRN reaches the loss of position interpolation at the target length with a tenth of its "
        "tokens of tuning, and keeps 95 % of the accuracy at short context.",
        "2309.00071",
        "LLaMA 2 of 7B and 13B parameters, 400 steps: a tenth of the tokens and 2.5 times fewer "
        "steps, by its abstract",
        ("yarn", "pi"),
        (_tuned("yarn", 40, "pi", 400), _keeps("yarn", 400)),
    ),
    Claim(
        "drope",
        "A model whose rotation is dropped after training, and which is tuned at its own length, "
        "extrapolates better than YaRN without tuning, and keeps 95 % of the accuracy at short "
        "context.",
        "2512.12167",
        "models of 360M to 7B parameters (SmolLM, LLaMA 2), by the authors' code",
        ("nope", "yarn"),
        (_tuned("drope", 400, "yarn", 0), _keeps("drope", 400)),
        # Dropping the rotation can only work in a model that is deep enough to do without.
        needs=(less("nope", "rope", 1, high=0.1),),
        scale_needed="a model that does nearly as well without positions as with RoPE; the paper's "
        "smallest has 360M parameters",
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
        "pi_short_tuning",
        "Position interpolation needs a short tuning only: untuned it is better than RoPE at 8 "
        "times the trained length; after 400 steps it is better than RoPE tuned as long, makes use "
        "of the longer context, and keeps 95 % of the accuracy at short context.",
        "2306.15595",
        "LLaMA of 7B to 65B parameters, from 2048 to 8192 tokens in 1000 steps: perplexity 7.20 "
        "at 2048 before and 6.95 at 8192 after them (7.10 after 400), and 7.69 where RoPE is tuned "
        "for 10,000 steps; untuned 16.10, and above 1000 without interpolation; 96 to 99 % of the "
        "accuracy of 7B at short context (tables 1, 3 and 5)",
        ("pi", "rope"),
        (
            _tuned("pi", 0, "rope", 0),
            _tuned("pi", 400, "rope", 400),
            Effect(
                "bits per byte, pi at 8x after 400 steps minus rope with the most recent 1x tokens",
                lambda a: (
                    _bits(a, "pi", 400) - _bits(a, "rope", 0, protocol="windowed", multiple=1)
                ),
                high=0.0,
            ),
            _keeps("pi", 400),
        ),
    ),
)
