"""Holds the claims about the loss on text, at the trained length and beyond it."""

import pandas as pd

from experiments.results.ledger import Answers, Claim, Effect
from experiments.studies.claims.effects import (
    EQUAL,
    PROBED,
    change,
    grows_less,
    growth,
    less,
    rise,
)

_OTHER_BIASES = ("alibi", "kerple_log", "kerple_power")


def _alibi_at_stride_1(answers: Answers, multiple: int) -> pd.Series:
    """Returns bits per byte of ALiBi where every token has the same context."""
    where = dict(scheme="alibi", split="test", protocol="sliding", stride=1, multiple=multiple)
    return answers.read("far", "bits_per_byte", **where)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "alibi_flat",
        "ALiBi's loss does not grow with the length, and at stride 1, where every token has the "
        "same context, it stays the same; here to 128 times the trained length.",
        "2108.12409",
        "WikiText-103 and 1.3B parameters, trained at 512 and 1024 tokens, tested at 3072 and 2024",
        ("alibi",),
        (
            change("alibi", 128, "far", low=-0.05, high=0.02),
            Effect(
                "loss of alibi at 128x over that at 1x, minus 1, at stride 1",
                lambda a: growth(_alibi_at_stride_1(a, 128), _alibi_at_stride_1(a, 1)),
                low=-0.05,
                high=0.02,
            ),
        ),
    ),
    Claim(
        "t5_drifts",
        "T5's bias is the best of the biases by distance to twice the trained length, and the "
        "worst of them at 16 times.",
        "2205.09921, table 3",
        "162M parameters, trained at 512 tokens, tested to 16384",
        ("t5", *_OTHER_BIASES),
        (
            *(less("t5", bias, x, "language") for x in (1, 2) for bias in _OTHER_BIASES),
            *(less(bias, "t5", 16, "language") for bias in _OTHER_BIASES),
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
        tuple(
            grows_less(one, other, multiple, "language")
            for one, other in (("kerple_log", "kerple_power"), ("kerple_power", "alibi"))
            for multiple in (8, 16)
        ),
    ),
    Claim(
        "sandwich_is_alibi",
        "Sandwich, which has no parameters, extrapolates as ALiBi does: the loss grows as much.",
        "2212.10356",
        "162M parameters, trained at 512 tokens, tested to 8192",
        ("sandwich", "alibi"),
        (grows_less("sandwich", "alibi", 16, "language", low=-0.05, high=0.05),),
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
        "path_degrades",
        "PaTH's loss grows in the end: products of reflections make far tokens matter less, but "
        "there are ever more of them.",
        "2606.24975",
        "a lower bound, and language models at extreme lengths",
        ("path",),
        (change("path", 16, "language", low=EQUAL),),
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
        "sinusoidal_fails",
        "With sinusoidal positions the loss explodes beyond the trained length.",
        "2108.12409, figure 1; 2205.09921, table 3",
        "162M parameters, trained at 512 tokens: perplexity 33 there, 750 at 1024 and 30046 at "
        "16384",
        ("sinusoidal",),
        tuple(rise("sinusoidal", multiple, low=0.1) for multiple in (2, 16)),
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
        "small_base",
        "A base near the trained length extrapolates better than the usual large one.",
        "2310.05209",
        "LLaMA 2 of 7B and 13B parameters, fine-tuned at 4096 tokens under bases from 500 on; "
        "larger bases than 10,000 help there too",
        ("rope",),
        (
            *(less("rope_base_128", "rope", x, "variants", "language") for x in (2, 4)),
            less("rope_base_1000", "rope", 4, "variants", "language"),
            less("rope_base_128", "rope_base_1000", 4, "variants"),
            *(less(f"rope_base_{base}", "rope", 2, "double") for base in (128, 1000)),
        ),
    ),
    Claim(
        "larger_bases",
        "A base of 64 times the trained length costs nothing there, and has a lower loss at 4 "
        "times it than a base of once the trained length.",
        "2309.16039; 2310.05209; 2405.14591",
        "LLaMA 2 of 7B parameters: 500,000 instead of 10,000 for 32,768 tokens; a lower bound of "
        "the base of about 0.042 L^1.63 for texts of L tokens (2405.14591, figure 1)",
        ("rope",),
        tuple(
            less("rope_64l", "rope_1l", multiple, study, high=high)
            for study in ("ladder/b1_bases_64", "ladder/b2_bases_256")
            for multiple, high in ((1, EQUAL), (4, 0.0))
        ),
    ),
    Claim(
        "hope_extrapolates",
        "HoPE, in which pairs of a longer period than the trained length stand still, costs "
        "nothing at that length, and has a lower loss than RoPE at 2, 4 and 8 times it.",
        "2410.21216",
        "models to 3B parameters, trained at 512 tokens, tested to 4096",
        ("hope", "rope"),
        (
            less("hope", "rope", 1, high=EQUAL),
            *(less("hope", "rope", multiple) for multiple in (2, 4, 8)),
        ),
    ),
    Claim(
        "hope_near_pairs_fail",
        "RoPE fails beyond the trained length because of pairs whose period is near or above it: "
        "at twice that length the loss is lower if those near it stand still, in training or only "
        "when the text is read, or all above it (HoPE).",
        "2410.21216",
        "models trained at 512 tokens, by its abstract: components that limit RoPE's extrapolation",
        ("rope", "hope"),
        (
            rise("rope", 2, PROBED, low=EQUAL),
            *(
                less(other, "rope", 2, PROBED)
                for other in ("rope_near_still", "rope_near_stopped", "hope")
            ),
        ),
    ),
    Claim(
        "yarn_ntk_pi",
        "Without fine-tuning YaRN is better than NTK, and NTK better than position interpolation.",
        "2309.00071",
        "LLaMA of 7B parameters, trained at 2048 tokens, at 16 times the length: YaRN holds and "
        "the others blow up; 2402.13753 finds YaRN behind PI in LLaMA 2",
        ("yarn", "ntk", "pi"),
        tuple(
            less(one, other, multiple, "language")
            for multiple in (2, 4)
            for one, other in (("yarn", "ntk"), ("ntk", "pi"))
        ),
    ),
)
