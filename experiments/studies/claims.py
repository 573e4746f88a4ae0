"""Tests published claims, and writes the ledger of verdicts.

python launch.py --config=configs/claims.py:small --workdir=runs/answers

Every claim is a few numbers and the range in which its paper says that they lie; ``ledger.RULE``
decides. The numbers of papers are in the claims' sentences. docs/experiments.md lists the claims
that were changed after results had been seen.
"""

import math

from experiments.results import ledger
from experiments.results.ledger import Answers, Claim, Effect, Seeds, least, mean, spread
from experiments.results.reports import ledger_page
from experiments.results.statistics import BASELINE
from experiments.studies.combined import Studies
from experiments.studies.order_sensitivity import BLIND, order_study
from posenc_jax import REGISTRY

ALGORITHMS = ("copy", "reverse", "addition", "sort", "parity")
_OTHER_BIASES = ("alibi", "kerple_log", "kerple_power")
# Two schemes count as equal below this difference in bits per byte, and a scheme as flat below this
# share of its loss.
EQUAL = 0.02


def _less(
    one: str, other: str, multiple: int, of: str = "language", than: str = "language", **range_
) -> Effect:
    """Says that ``one`` in the study ``of`` has a lower loss than ``other`` in ``than``."""
    return Effect(
        f"bits per byte at {multiple}x, {one} minus {other}" + ", trained at 2L" * (of == "double"),
        lambda a: a.bits(of, one, multiple) - a.bits(than, other, multiple),
        **({"high": 0.0} | range_),
    )


def _change(scheme: str, multiple: int, *, study: str = "language", **range_):
    """Says in which range the loss lies, relative to the loss with only the most recent tokens."""
    return Effect(
        f"loss of {scheme} at {multiple}x over that of the most recent 1x tokens alone, minus 1",
        lambda a: a.bits(study, scheme, multiple) / a.recent_bits(study, scheme) - 1.0,
        **range_,
    )


def _more(one: str, other: str, tasks: tuple[str, ...], multiple: int) -> Effect:
    """Says that ``one`` has more answers right than ``other``, on average over ``tasks``."""

    def share(answers: Answers, scheme: str):
        return mean(*(answers.hits("tasks", scheme, task, multiple) for task in tasks))

    return Effect(
        f"share of answers right at {multiple}x in {', '.join(tasks)}, {one} minus {other}",
        lambda a: share(a, one) - share(a, other),
        low=0.0,
    )


def _learned(schemes: tuple[str, ...], tasks: tuple[str, ...]) -> Effect:
    """Says that schemes have learned tasks at the trained length, which other effects require."""
    return Effect(
        f"least share of answers right at 1x in {', '.join(tasks)}, {' and '.join(schemes)}",
        lambda a: least(*(a.hits("tasks", one, task, 1) for one in schemes for task in tasks)),
        low=0.5,
    )


def _errors(scheme: str, multiple: int, **range_: float) -> Effect:
    return Effect(
        f"share of rows of flip_flop wrong at {multiple}x, {scheme}",
        lambda a: (a.hits("tasks", scheme, "flip_flop", multiple) - 1.0) / -1.0,
        **range_,
    )


def _tuned(one: str, steps: int, other: str, other_steps: int) -> Effect:
    def loss(answers: Answers, scheme: str, steps: int):
        where = dict(scheme=scheme, protocol="last", multiple=8, steps=steps)
        return answers.read("extension", "bits_per_byte", **where)

    return Effect(
        f"bits per byte at 8x, {one} after {steps} steps minus {other} after {other_steps}",
        lambda a: loss(a, one, steps) - loss(a, other, other_steps),
        high=0.0,
    )


def _kept(scheme: str, steps: int) -> Effect:
    def accuracy(answers: Answers, scheme: str, steps: int):
        where = dict(scheme=scheme, protocol="short", steps=steps)
        return answers.read("extension", "accuracy", **where)

    return Effect(
        f"share of the accuracy at short context that {scheme} keeps after {steps} steps",
        lambda a: accuracy(a, scheme, steps) / accuracy(a, "rope", 0),
        low=0.95,
    )


def _searched(one: str, other: str, group: str = "near") -> Effect:
    multiple = {"near": "8x", "far": "64x, tuned at 8x"}[group]

    def loss(answers: Answers, scheme: str):
        return answers.read("longrope", "last_loss", group=group, scheme=scheme)

    return Effect(
        f"nats per token at {multiple}, {one} minus {other}, on documents that no search read",
        lambda a: loss(a, one) - loss(a, other),
        high=0.0,
    )


def _moved(scheme: str, causal: bool, **range_: float) -> Effect:
    mask = "causal" if causal else "bidirectional"
    return Effect(
        f"how far the outputs of 我爱你 and 你爱我 are apart as sets, {scheme}, {mask}",
        lambda a: a.read("order", "distance", scheme=scheme, causal=causal),
        **range_,
    )


def _sees_order(scheme: str) -> Effect:
    """Says that the outputs differ; by powers of 10, as distances range over many magnitudes."""

    def power(answers: Answers) -> Seeds:
        found = answers.read("order", "distance", scheme=scheme, causal=False)
        # The rounding of float32, about 1e-7, stands for a distance of 0.
        return Seeds({seed: math.ceil(math.log10(far or 1e-7)) for seed, far in found.items()})

    says = "how far the outputs of 我爱你 and 你爱我 are apart as sets, as the next power of 10"
    return Effect(f"{says}, {scheme}, bidirectional", power, low=math.log10(BLIND))


def _at_stride_1(answers: Answers, multiple: int):
    where = dict(scheme="alibi", split="test", protocol="sliding", stride=1, multiple=multiple)
    return answers.read("far", "bits_per_byte", **where)


# Every scheme but the one that is said to be blind.
SEEING = tuple(name for name in REGISTRY if name != BASELINE)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "alibi_flat",
        "ALiBi's loss does not grow with the length, and at stride 1, where every token has the "
        "same context, it stays the same; here to 128 times the trained length.",
        "2108.12409",
        "WikiText-103 and 1.3B parameters, trained at 512 and 1024 tokens, tested at 3072 and 2024",
        ("alibi",),
        (
            _change("alibi", 128, study="far", low=-0.05, high=0.02),
            Effect(
                "loss of alibi at 128x over that at 1x, minus 1, at stride 1",
                lambda a: _at_stride_1(a, 128) / _at_stride_1(a, 1) - 1.0,
                low=-0.05,
                high=0.02,
            ),
        ),
    ),
    Claim(
        "alibi_half_length",
        "ALiBi trained at L tokens is at 2L as good as sinusoidal positions trained at 2L.",
        "2108.12409",
        "WikiText-103, trained at 512 tokens: perplexity 18.40 at 3072, where sinusoidal positions "
        "trained there have 18.67",
        ("alibi", "sinusoidal"),
        (
            Effect(
                "bits per byte at 2L, alibi minus sinusoidal trained there",
                lambda a: a.bits("language", "alibi", 2) - a.bits("double", "sinusoidal", 1),
                high=EQUAL,
            ),
        ),
        # If sinusoidal positions are far behind at every length, the comparison says nothing.
        needs=(_less("alibi", "sinusoidal", 1, low=-0.1, high=0.1),),
    ),
    Claim(
        "rope_blow_up",
        "RoPE's loss explodes beyond the trained length.",
        "2205.09921, table 3; 2306.15595",
        "162M parameters, trained at 512 tokens: perplexity 24 there, 111 at 4096; LLaMA 7B",
        ("rope",),
        (_change("rope", 4, low=0.1),),
    ),
    Claim(
        "t5_drifts",
        "T5's bias is the best of the biases by distance to twice the trained length, and the "
        "worst of them at 16 times.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384",
        ("t5", *_OTHER_BIASES),
        (
            *(_less("t5", other, multiple) for multiple in (1, 2) for other in _OTHER_BIASES),
            *(_less(other, "t5", 16) for other in _OTHER_BIASES),
        ),
    ),
    Claim(
        "kerple_beats_alibi",
        "KERPLE's logarithmic kernel has no higher loss than ALiBi at the trained length, and a "
        "lower one at 4, 8 and 16 times.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384: perplexity 23.9 and 23.9 at 512, "
        "21.2 and 22.2 at 4096",
        ("kerple_log", "alibi"),
        (
            _less("kerple_log", "alibi", 1, high=EQUAL),
            *(_less("kerple_log", "alibi", multiple) for multiple in (4, 8, 16)),
        ),
    ),
    Claim(
        "power_lies_between",
        "KERPLE's power kernel lies between its logarithmic one and ALiBi at 8 and 16 times the "
        "trained length.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384: perplexity 21.2, 21.5 and 22.2 "
        "at 4096",
        ("kerple_log", "kerple_power", "alibi"),
        (
            *(_less("kerple_log", "kerple_power", multiple) for multiple in (8, 16)),
            *(_less("kerple_power", "alibi", multiple) for multiple in (8, 16)),
        ),
    ),
    Claim(
        "sandwich_is_alibi",
        "Sandwich, which has no parameters, extrapolates as ALiBi does.",
        "2212.10356",
        "162M parameters, trained at 512 tokens, tested to 8192",
        ("sandwich", "alibi"),
        (_less("sandwich", "alibi", 16, low=-0.05, high=0.05),),
    ),
    Claim(
        "yarn_ntk_pi",
        "Without fine-tuning YaRN is better than NTK, and NTK better than position interpolation.",
        "2309.00071",
        "LLaMA of 7B parameters, trained at 2048 tokens, at 16 times the length: YaRN holds and "
        "the others blow up; 2402.13753 finds YaRN behind PI in LLaMA 2",
        ("yarn", "ntk", "pi"),
        tuple(
            _less(one, other, multiple)
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
        (_tuned("yarn", 40, "pi", 400), _kept("yarn", 400)),
        is_of_text=False,
    ),
    Claim(
        "drope",
        "A model whose rotation is dropped after training, and which is tuned at its own length, "
        "extrapolates better than YaRN without tuning.",
        "2512.12167",
        "models of 360M to 7B parameters (SmolLM, LLaMA 2), by the authors' code",
        ("nope", "yarn"),
        (_tuned("drope", 400, "yarn", 0), _kept("drope", 400)),
        # Dropping the rotation can only work in a model that is deep enough to do without.
        needs=(_less("nope", "rope", 1, high=0.1),),
        is_of_text=False,
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
        is_of_text=False,
    ),
    Claim(
        "longrope_extends_twice",
        "In a model tuned at 8 times its length, the factors that LongRoPE finds for 8 times more "
        "are better than YaRN's, and YaRN's better than position interpolation.",
        "2402.13753",
        "LLaMA 2 7B tuned at 256k tokens, Books3 at 2048k: perplexity 7.08, 8.27 and 20.17",
        ("longrope", "yarn", "pi"),
        (_searched("progressive", "yarn", "far"), _searched("yarn", "pi", "far")),
        is_of_text=False,
    ),
    Claim(
        "hope_copies",
        "HoPE copies better than RoPE from twice the trained length.",
        "2410.21216",
        "models to 3B parameters, trained at 512 tokens: 60 % against 24 % copied, as third "
        "parties quote it",
        ("hope", "rope"),
        (_more("hope", "rope", ("copy",), 2),),
        needs=(_learned(("hope", "rope"), ("copy",)),),
        is_of_text=False,
    ),
    Claim(
        "fire_beats_alibi",
        "FIRE has a lower loss than ALiBi and KERPLE at 4 times the trained length.",
        "2310.04418",
        "models trained at 2048 tokens, tested at 8192, as third parties quote it",
        ("fire", "alibi", "kerple_log"),
        (_less("fire", "alibi", 4), _less("fire", "kerple_log", 4)),
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
        is_of_text=False,
    ),
    Claim(
        "transformer_xl_relative",
        "Transformer-XL's relative encoding has a lower loss than absolute positions, and holds "
        "beyond the trained length.",
        "1901.02860",
        "WikiText-103, perplexity 18.3 with 257M parameters and 24.0 with 151M",
        ("transformer_xl", "sinusoidal"),
        (_less("transformer_xl", "sinusoidal", 1), _change("transformer_xl", 4, high=EQUAL)),
    ),
    Claim(
        "seqpe_losses",
        "Both regularising losses of SeqPE help it beyond the trained length: the one that keeps "
        "distances, and the one that carries them over to positions not trained on.",
        "2506.13277",
        "a decoder like GPT-2 on WikiText-103, by the authors' code; its size was not read",
        ("seqpe",),
        (
            _less("seqpe", "seqpe_no_contrast", 4, than="variants"),
            _less("seqpe", "seqpe_no_transfer", 4, than="variants"),
        ),
    ),
    Claim(
        "cope_counts",
        "CoPE counts better than RoPE, at the trained length and at 4 times it.",
        "2405.18719",
        "counting, selective copying and flip-flops, by its abstract; another reproduction found "
        "no gain at length",
        ("cope", "rope"),
        (_more("cope", "rope", ("counting",), 1), _more("cope", "rope", ("counting",), 4)),
        needs=(_learned(("cope",), ("counting",)),),
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
        (_errors("path", 4, high=0.01), _errors("rope", 4, low=0.1)),
        is_of_text=False,
    ),
    Claim(
        "path_degrades",
        "PaTH's loss grows in the end: products of reflections make far tokens matter less, but "
        "there are ever more of them.",
        "2606.24975",
        "a lower bound, and language models at extreme lengths",
        ("path",),
        (_change("path", 16, low=EQUAL),),
    ),
    Claim(
        "fox_extrapolates",
        "A forget gate without positions has a lower loss than RoPE at 4 times the trained length, "
        "and holds there.",
        "2503.02130",
        "760M parameters, trained at 16,384 tokens of LongCrawl64, by the authors' code",
        ("fox", "rope"),
        (_less("fox", "rope", 4), _change("fox", 4, high=EQUAL)),
    ),
    Claim(
        "dape_order",
        "DAPE improves the bias that it adapts: over KERPLE's it has a lower loss than KERPLE at "
        "the trained length and far beyond it, where KERPLE's grows and DAPE's does not.",
        "2405.14722",
        "125M parameters, trained at 512 tokens, perplexity of the last 256 tokens at 8192: 3.70 "
        "against 9.08, as third parties quote it",
        ("dape", "kerple_log"),
        (
            *(_less("dape", "kerple_log", multiple) for multiple in (1, 16)),
            _change("kerple_log", 16, low=0.0),
            _change("dape", 16, high=EQUAL),
        ),
    ),
    Claim(
        "nope_generalises",
        "Without positions, algorithms generalise to longer rows better than with RoPE, on average "
        "over five of them; in language it is the other way round.",
        "2305.19466",
        "107M parameters, ten tasks, rows to 20, tested to 40, as third parties quote it",
        ("nope", "rope"),
        (_more("nope", "rope", ALGORITHMS, 2), _less("rope", "nope", 1)),
        needs=(_learned(("nope", "rope"), ALGORITHMS),),
    ),
    Claim(
        "randomized_generalises",
        "Positions drawn at random generalise on algorithms to rows longer than those of training, "
        "on average over five of them.",
        "2305.16843",
        "encoders on 15 tasks, trained to 40 tokens, tested to 500: 12 % more",
        ("randomized", "rope"),
        (_more("randomized", "rope", ALGORITHMS, 4),),
        needs=(_learned(("randomized", "rope"), ALGORITHMS),),
        is_of_text=False,
    ),
    Claim(
        "few_rotary_channels",
        "An eighth of the channels is enough to turn.",
        "2603.11611, about a tenth",
        "language models of several sizes, by its abstract; an eighth of a head is 2 pairs here",
        ("rope",),
        (_less("rope_eighth", "rope", 1, of="variants", high=EQUAL),),
    ),
    Claim(
        "small_base",
        "A base near the trained length extrapolates better than the usual large one.",
        "2310.05209",
        "LLaMA 2 of 7B and 13B parameters, fine-tuned at 4096 tokens under bases from 500 on; "
        "larger bases than 10,000 help there too",
        ("rope",),
        (
            *(_less("rope_base_128", "rope", multiple, of="variants") for multiple in (2, 4)),
            _less("rope_base_1000", "rope", 4, of="variants"),
            _less("rope_base_128", "rope_base_1000", 4, of="variants", than="variants"),
            *(_less(f"rope_base_{base}", "rope", 2, "double", "double") for base in (128, 1000)),
        ),
    ),
    Claim(
        "windows_and_nope",
        "RoPE within a window, and layers without positions that see everything, hold to 32 times "
        "the trained length, and better than RoPE and YaRN without tuning.",
        "2501.18795 (RNoPE-SWA), 2504.08719 (SWAN)",
        "8B parameters, trained at 8192 tokens, as third parties quote it: they lose 22 % on RULER "
        "at 32 times the length, and scaled RoPE 41 %",
        ("rnope_swa", "rope", "yarn"),
        (
            _change("rnope_swa", 32, study="far", high=EQUAL),
            *(_less("rnope_swa", other, 32, "far", "far") for other in ("rope", "yarn")),
        ),
    ),
    Claim(
        "blind_to_order",
        "Without positions and without a causal mask 我爱你 and 你爱我 give the same set of "
        "outputs; a causal mask alone makes them differ.",
        "1706.03762, section 3.5; 2203.16634 on the mask",
        "any model: it follows from the equations",
        ("nope",),
        (_moved("nope", causal=False, high=BLIND), _moved("nope", causal=True, low=1e-4)),
        is_of_text=False,
    ),
    Claim(
        "order_is_seen",
        "Every scheme with positions tells 我爱你 from 你爱我 without a causal mask.",
        "the chapter that this project starts from",
        "any model",
        (),
        tuple(map(_sees_order, SEEING)),
        is_of_text=False,
    ),
    Claim(
        "logit_scales",
        "Logits that grow with the logarithm of the length lower the loss of RoPE at 8 times the "
        "trained length.",
        "2501.19399 (SSMax); 2202.12172 (LogN)",
        "162M parameters, trained at 1024 tokens, as third parties quote it; LogN for encoders of "
        "formal languages",
        ("ssmax", "logn", "rope"),
        (_less("ssmax", "rope", 8), _less("logn", "rope", 8)),
    ),
)


class Claims(Studies):
    """Runs the studies that claims need besides the atlas' own; see ``configs/claims.py``."""

    def write_report(self, command):
        studies = {name: part.study(command) for name, part in self.parts.items()}
        chosen = [name.strip() for name in self.config["schemes"].split(",")]
        seeing = [name for name in SEEING if name in chosen]
        studies["order"] = order_study(seeing, seeds=self.config["seeds"])
        about = next(iter(self.parts.values())).about(command) | self.environment()
        about |= {"config": self.config, "setup": {name: self.setup(name) for name in self.parts}}
        rows = ledger.ledger_of(CLAIMS, studies)
        ledger_page.print_ledger(rows, self.console)
        return ledger_page.write(self.workdir / "claims", rows, about)
