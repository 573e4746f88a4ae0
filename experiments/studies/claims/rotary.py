"""Holds the claims about the loss on text of RoPE, and of RoPE with other channel pairs."""

from experiments.results.ledger import Claim, Effect
from experiments.studies.claims.effects import (
    EQUAL,
    PROBED,
    less,
    rung_change,
    rung_growth,
    rung_less,
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "rope_blow_up",
        "RoPE's loss explodes beyond the trained length.",
        "2205.09921, table 3; 2306.15595",
        "162M parameters, trained at 512 tokens: perplexity 24 there, 111 at 4096; LLaMA 7B",
        ("rope",),
        (rung_growth("rope", 4, low=0.1),),
    ),
    Claim(
        "few_rotary_channels",
        "An eighth of the channels is enough to rotate.",
        "2603.11611, about a tenth",
        "language models of several sizes, by its abstract; an eighth of a head is 2 pairs here",
        ("rope",),
        (less("rope_eighth", "rope", 1, of="variants", high=EQUAL),),
        # Four pairs turn within 2048 tokens if a tenth of 128 channels is rotated.
        needs=(
            Effect(
                "channel pairs that turn within the trained length, rope_eighth",
                lambda a: a.turning_pairs("variants", "rope_eighth"),
                low=3.5,
            ),
        ),
        scale_needed="heads of 128 channels and texts of 2048 tokens, where four pairs or more of "
        "an eighth of the channels make a turn",
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
        "larger_bases",
        "A base of 64 times the trained length costs nothing there, and has a lower loss at 4 "
        "times it than a base of once the trained length.",
        "2309.16039; 2310.05209; 2405.14591",
        "LLaMA 2 of 7B parameters: 500,000 instead of 10,000 for 32,768 tokens (2309.16039, as "
        "third parties quote it); a lower bound of the base of about 0.042 L^1.63 for texts of L "
        "tokens (2405.14591, figure 1)",
        ("rope",),
        tuple(
            rung_less("rope_64l", "rope_1l", multiple, study, high=high)
            for study in ("b1_bases_64", "b2_bases_256")
            for multiple, high in ((1, EQUAL), (4, 0.0))
        ),
    ),
    Claim(
        "hope_extrapolates",
        "HoPE, in which pairs of a longer period than the trained length stand still, costs "
        "nothing at that length, and has a lower loss than RoPE at 2, 4 and 8 times it.",
        "2410.21216",
        "models to 3B parameters, trained at 512 tokens: perplexity 13.03 at 4096, where RoPE's "
        "explodes, as third parties quote it",
        ("hope", "rope"),
        (
            rung_less("hope", "rope", 1, high=EQUAL),
            *(rung_less("hope", "rope", multiple) for multiple in (2, 4, 8)),
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
        tuple(
            rung_less(other, "rope", 2, PROBED)
            for other in ("rope_near_still", "rope_near_stopped", "hope")
        ),
        needs=(rung_change("rope", 2, PROBED, low=EQUAL),),
        scale_needed="training in which RoPE fails at twice the trained length",
        note="rope_near_still was trained with these pairs still, and rope_near_stopped is the "
        "trained rope, read with these pairs stopped.",
    ),
)
