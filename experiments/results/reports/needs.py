"""Lists the needs for which the guide chooses a scheme."""

import dataclasses

NONE = "none yet"
_WINDOW = "RoPE through a window of the trained length"


@dataclasses.dataclass(frozen=True)
class Need:
    """Describes a need for which a scheme is to be chosen.

    Attributes:
      title: the need, in words.
      asked: the questions that decide, as topics and multiples of the trained length; the multiple
        is 0 where a topic says all. The last one is shown as the evidence.
      remains: what is left to choose where no scheme is better than the baselines.
      chapter: what the chapter that this project starts from recommends, in words.
      recommended: the schemes that the chapter means.
    """

    title: str
    asked: tuple[tuple[str, float], ...]
    remains: str = NONE
    chapter: str = ""
    recommended: tuple[str, ...] = ()


def _each(topics: str, *multiples: float) -> tuple[tuple[str, float], ...]:
    return tuple((topic, multiple) for topic in topics.split("; ") for multiple in multiples)


NEEDS = (
    Need(
        "Text no longer than in training",
        _each("text", 1),
        "RoPE",
        "RoPE, below 8K tokens",
        ("rope",),
    ),
    Need(
        "Text of 4 to 16 times the trained length",
        _each("text", 4, 16),
        _WINDOW,
        "RoPE with YaRN to 128K tokens, LongRoPE or HoPE to 2M",
        ("yarn", "longrope", "hope"),
    ),
    Need("More context than in training, made use of", _each("gain", 4, 16)),
    Need(
        "A trained model made longer, without tuning",
        _each("made longer, 0 steps", 2, 8),
        _WINDOW,
        "RoPE with YaRN to 128K tokens, LongRoPE to 2M",
        ("yarn", "longrope"),
    ),
    Need(
        "A trained model made longer, with 100 steps of tuning",
        _each("made longer, 100 steps", 8, 32),
        _WINDOW,
    ),
    Need("Finding what was told, in longer rows", _each("passkey; needles; recall", 4)),
    Need("The last value that was written, in longer rows", _each("flip_flop", 4)),
    Need("A value that is told through other values", _each("variable_tracking", 1)),
    Need("Algorithms on longer rows", _each("copy; reverse; addition; sort; parity", 2)),
    Need(
        "Images", _each("images, 28", 0), chapter="SeqPE for several media", recommended=("seqpe",)
    ),
    Need("Images, rescaled to more pixels", _each("images, rescaled 84", 0)),
    Need(
        "Videos of more frames",
        _each("video, 128 frames", 0),
        chapter="VideoRoPE++ or Time-RoPE",
        recommended=("videorope_pp",),
    ),
    Need(
        "Stories with times",
        _each("story time, 4x; story time, backwards; story time, from time 256", 0),
        chapter="Time-RoPE",
        recommended=("time_rope",),
    ),
    Need(
        "Places on larger screens",
        _each("pointing, place, 16 x 16", 0),
        chapter="I-MRoPE",
        recommended=("i_mrope", "i_mrope_ruler"),
    ),
)
