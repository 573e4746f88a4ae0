"""Holds the claims about screens, videos and stories."""

from typing import Any

from experiments.results.ledger import Claim, Effect
from experiments.studies.claims.effects import differs


def _more_right(study: str, one: str, other: str, condition: str, x: Any) -> Effect:
    return differs(study, one, other, "accuracy", condition, x, low=0.0)


def _smaller_error(one: str, other: str, condition: str, x: Any) -> Effect:
    return differs("story", one, other, "error in frame widths", condition, x, high=0.0)


CLAIMS: tuple[Claim, ...] = (
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
            *(_more_right("video", "videorope_pp", "videorope", "length", x) for x in (64, 128)),
            *(
                _more_right("video", "videorope_pp", "mrope", "gap, 128 frames", gap)
                for gap in (35, 106)
            ),
        ),
    ),
    Claim(
        "time_rope",
        "A model that is rotated by the time errs less than one that is rotated by the number of "
        "the frame where clips run backwards, pause or jump at random; and late in the story it "
        "errs less than a model that is told the time in its inputs.",
        "2512.05076",
        "CogVideoX of 5B parameters: 30.45 dB with Time-RoPE alone, and 23.86 dB with the number "
        "of the frame and time by cross-attention, as third parties quote it",
        ("time_rope",),
        (
            *(
                _smaller_error("time_rope", "frame_index", "warp", x)
                for x in ("reverse", "pause", "random")
            ),
            _smaller_error("time_rope", "frame_index_told", "later in the story", 256),
        ),
    ),
    Claim(
        "time_adaln",
        "Time-AdaLN makes Time-RoPE better.",
        "2512.05076",
        "CogVideoX of 5B parameters: 32.15 dB with it and 30.45 dB without, as third parties quote "
        "it",
        ("time_rope",),
        tuple(
            _smaller_error("time_rope_adaln", "time_rope", *column)
            for column in (("pace", "1x"), ("warp", "random"))
        ),
    ),
    Claim(
        "i_mrope",
        "Interleaving the axes of M-RoPE changes little by itself, and ruler tokens, which give "
        "rows and columns their numbers, help.",
        "2510.03230",
        "a model like LLaVA-NeXT on ScreenSpot-Pro: 29.2 with M-RoPE, 29.4 interleaved, 32.1 with "
        "ruler tokens too, as third parties quote it",
        ("i_mrope", "mrope"),
        (
            differs(
                "pointing", "i_mrope", "mrope", "accuracy", "place", "16 x 16", low=-0.1, high=0.1
            ),
            _more_right("pointing", "i_mrope_ruler", "i_mrope", "place", "16 x 16"),
        ),
    ),
)
