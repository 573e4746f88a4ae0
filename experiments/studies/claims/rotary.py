"""Holds the claims about RoPE and its channel pairs."""

from experiments.results.ledger import Claim, Effect
from experiments.studies.claims.effects import EQUAL, change, less

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "rope_blow_up",
        "RoPE's loss explodes beyond the trained length.",
        "2205.09921, table 3; 2306.15595",
        "162M parameters, trained at 512 tokens: perplexity 24 there, 111 at 4096; LLaMA 7B",
        ("rope",),
        (change("rope", 4, low=0.1),),
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
)
