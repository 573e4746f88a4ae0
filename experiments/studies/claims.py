"""Tests published claims, and writes the ledger of verdicts.

python launch.py --config=configs/claims.py:small --workdir=runs/answers

Every claim is a few numbers and the range in which its paper says that they lie; ``ledger.RULE``
decides. The numbers of papers are in the claims' sentences. docs/experiments.md lists the claims
that were changed after results had been seen.
"""

from experiments.results import ledger
from experiments.results.ledger import Claim, Effect, spread
from experiments.results.reports import ledger_page
from experiments.results.statistics import BASELINE
from experiments.studies.claim_effects import (
    ALGORITHMS,
    EQUAL,
    at_stride_1,
    change,
    errors,
    grows_less,
    keeps,
    learned,
    less,
    more,
    searched,
    sees_order,
    tuned,
)
from experiments.studies.combined import Studies
from experiments.studies.order_sensitivity import ORDERS, order_study
from posenc_jax import REGISTRY

_OTHER_BIASES = ("alibi", "kerple_log", "kerple_power")
# Every scheme but the one without positions, which no order can change: see tests/test_order.py.
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
            change("alibi", 128, study="far", low=-0.05, high=0.02),
            Effect(
                "loss of alibi at 128x over that at 1x, minus 1, at stride 1",
                lambda a: at_stride_1(a, 128) / at_stride_1(a, 1) - 1.0,
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
        needs=(less("alibi", "sinusoidal", 1, low=-0.1, high=0.1),),
        scale_needed="training in which sinusoidal positions come as near to ALiBi at the trained "
        "length as in the paper, on WikiText-103 at 512 tokens",
    ),
    Claim(
        "rope_blow_up",
        "RoPE's loss explodes beyond the trained length.",
        "2205.09921, table 3; 2306.15595",
        "162M parameters, trained at 512 tokens: perplexity 24 there, 111 at 4096; LLaMA 7B",
        ("rope",),
        (change("rope", 4, low=0.1),),
    ),
    Claim(
        "t5_drifts",
        "T5's bias is the best of the biases by distance to twice the trained length, and the "
        "worst of them at 16 times.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384",
        ("t5", *_OTHER_BIASES),
        (
            *(less("t5", other, multiple) for multiple in (1, 2) for other in _OTHER_BIASES),
            *(less(other, "t5", 16) for other in _OTHER_BIASES),
        ),
    ),
    Claim(
        "kerple_beats_alibi",
        "KERPLE's logarithmic kernel has no higher loss than ALiBi at the trained length, and "
        "relative to that a lower one at 4, 8 and 16 times.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384: perplexity 23.9 and 23.9 at 512, "
        "21.2 and 22.2 at 4096",
        ("kerple_log", "alibi"),
        (
            less("kerple_log", "alibi", 1, high=EQUAL),
            *(grows_less("kerple_log", "alibi", multiple) for multiple in (4, 8, 16)),
        ),
    ),
    Claim(
        "power_lies_between",
        "The loss under KERPLE's power kernel grows more than under its logarithmic one and less "
        "than under ALiBi, from the trained length to 8 and 16 times that.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384: perplexity 21.2, 21.5 and 22.2 "
        "at 4096",
        ("kerple_log", "kerple_power", "alibi"),
        (
            *(grows_less("kerple_log", "kerple_power", multiple) for multiple in (8, 16)),
            *(grows_less("kerple_power", "alibi", multiple) for multiple in (8, 16)),
        ),
    ),
    Claim(
        "sandwich_is_alibi",
        "Sandwich, which has no parameters, extrapolates as ALiBi does: the loss grows as much.",
        "2212.10356",
        "162M parameters, trained at 512 tokens, tested to 8192",
        ("sandwich", "alibi"),
        (grows_less("sandwich", "alibi", 16, low=-0.05, high=0.05),),
    ),
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
        (tuned("yarn", 40, "pi", 400), keeps("yarn", 400)),
        is_of_text=False,
    ),
    Claim(
        "drope",
        "A model whose rotation is dropped after training, and which is tuned at its own length, "
        "extrapolates better than YaRN without tuning.",
        "2512.12167",
        "models of 360M to 7B parameters (SmolLM, LLaMA 2), by the authors' code",
        ("nope", "yarn"),
        (tuned("drope", 400, "yarn", 0), keeps("drope", 400)),
        # Dropping the rotation can only work in a model that is deep enough to do without.
        needs=(less("nope", "rope", 1, high=0.1),),
        scale_needed="a model that does nearly as well without positions as with RoPE; the paper's "
        "smallest has 360M parameters",
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
        (searched("longrope", "yarn"), searched("longrope", "pi")),
        is_of_text=False,
    ),
    Claim(
        "longrope_extends_twice",
        "In a model tuned at 8 times its length, the factors that LongRoPE finds for 8 times more "
        "are better than YaRN's, and YaRN's better than position interpolation.",
        "2402.13753",
        "LLaMA 2 7B tuned at 256k tokens, Books3 at 2048k: perplexity 7.08, 8.27 and 20.17",
        ("longrope", "yarn", "pi"),
        (searched("progressive", "yarn", "far"), searched("yarn", "pi", "far")),
        is_of_text=False,
    ),
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
        "fire_beats_alibi",
        "FIRE has a lower loss than ALiBi and KERPLE at 4 times the trained length.",
        "2310.04418",
        "models trained at 2048 tokens, tested at 8192, as third parties quote it",
        ("fire", "alibi", "kerple_log"),
        (less("fire", "alibi", 4), less("fire", "kerple_log", 4)),
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
        "transformer_xl_relative",
        "Transformer-XL's relative encoding has a lower loss than absolute positions, and holds "
        "beyond the trained length.",
        "1901.02860",
        "WikiText-103, perplexity 18.3 with 257M parameters and 24.0 with 151M",
        ("transformer_xl", "sinusoidal"),
        (less("transformer_xl", "sinusoidal", 1), change("transformer_xl", 4, high=EQUAL)),
    ),
    Claim(
        "seqpe_losses",
        "Both regularising losses of SeqPE help it beyond the trained length: the one that keeps "
        "distances, and the one that carries them over to positions not trained on.",
        "2506.13277",
        "a decoder like GPT-2 on WikiText-103, by the authors' code; its size was not read",
        ("seqpe",),
        (
            less("seqpe", "seqpe_no_contrast", 4, than="variants"),
            less("seqpe", "seqpe_no_transfer", 4, than="variants"),
        ),
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
        "path_degrades",
        "PaTH's loss grows in the end: products of reflections make far tokens matter less, but "
        "there are ever more of them.",
        "2606.24975",
        "a lower bound, and language models at extreme lengths",
        ("path",),
        (change("path", 16, low=EQUAL),),
    ),
    Claim(
        "fox_extrapolates",
        "A forget gate without positions has a lower loss than RoPE at 4 times the trained length, "
        "and holds there.",
        "2503.02130",
        "760M parameters, trained at 16,384 tokens of LongCrawl64, by the authors' code",
        ("fox", "rope"),
        (less("fox", "rope", 4), change("fox", 4, high=EQUAL)),
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
            *(less("dape", "kerple_log", multiple) for multiple in (1, 16)),
            change("kerple_log", 16, low=0.0),
            change("dape", 16, high=EQUAL),
        ),
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
    Claim(
        "few_rotary_channels",
        "An eighth of the channels is enough to turn.",
        "2603.11611, about a tenth",
        "language models of several sizes, by its abstract; an eighth of a head is 2 pairs here",
        ("rope",),
        (less("rope_eighth", "rope", 1, of="variants", high=EQUAL),),
        # As many as turn within 2048 tokens if a tenth of 128 channels is rotated.
        needs=(
            Effect(
                "channel pairs that turn within the trained length, rope_eighth",
                lambda a: a.turning_pairs("variants", "rope_eighth"),
                low=3.5,
            ),
        ),
        scale_needed="heads of 128 channels and texts of 2048 tokens, where four pairs or more of "
        "an eighth of the channels turn",
    ),
    Claim(
        "small_base",
        "A base near the trained length extrapolates better than the usual large one.",
        "2310.05209",
        "LLaMA 2 of 7B and 13B parameters, fine-tuned at 4096 tokens under bases from 500 on; "
        "larger bases than 10,000 help there too",
        ("rope",),
        (
            *(less("rope_base_128", "rope", multiple, of="variants") for multiple in (2, 4)),
            less("rope_base_1000", "rope", 4, of="variants"),
            less("rope_base_128", "rope_base_1000", 4, of="variants", than="variants"),
            *(less(f"rope_base_{base}", "rope", 2, "double", "double") for base in (128, 1000)),
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
            change("rnope_swa", 32, study="far", high=EQUAL),
            *(less("rnope_swa", other, 32, "far", "far") for other in ("rope", "yarn")),
        ),
    ),
    Claim(
        "order_is_seen",
        "Without a causal mask every scheme with positions tells 我爱你 from 你爱我, and 不怕辣 "
        "from 怕不辣.",
        "the chapter that this project starts from, for the first pair",
        "any model",
        (),
        tuple(sees_order(scheme, pair) for pair in ORDERS for scheme in SEEING),
        is_of_text=False,
        note="我爱你 and 你爱我 are mirror images, in which every two tokens are as far apart. A "
        "scheme that reads the distance without its direction must take them for the same, at any "
        "scale. The second pair are no mirror images: whoever takes these for the same is blind to "
        "order.",
    ),
    Claim(
        "logit_scales",
        "Logits that grow with the logarithm of the length lower the loss of RoPE at 8 times the "
        "trained length.",
        "2501.19399 (SSMax); 2202.12172 (LogN)",
        "162M parameters, trained at 1024 tokens, as third parties quote it; LogN for encoders of "
        "formal languages",
        ("ssmax", "logn", "rope"),
        (less("ssmax", "rope", 8), less("logn", "rope", 8)),
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
