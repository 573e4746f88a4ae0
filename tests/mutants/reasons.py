"""Says of errors that no test notices why that is right."""

from tests.mutants import choose
from tests.mutants.changes import Change

# Part of the path, and of the line that has the error, with the reason.
REASONS: list[tuple[str, str, str]] = [
    (
        "frequencies/hope.py",
        "turns_in(self.train_length, inv_freq) > self.cut_cycles",
        "no pair makes exactly that many turns, since 2 pi is irrational",
    ),
    (
        "frequencies/resonance.py",
        "inv_freq.where(is_rotated, 1.0)",
        "what is computed of a pair that does not rotate is dropped in the next line",
    ),
    (
        "wrappers/short_conv.py",
        'reach=count_of("width", width, 2) - 1',
        "with a larger reach more earlier tokens are found than the convolution reads",
    ),
    (
        "encodings/lib/one_by_one.py",
        "start = jnp.zeros_like(term(",
        "only the shape of a term is used, and all have the same",
    ),
    (
        "lib/by_distance.py",
        "between_first = ",
        "a row of consecutive positions is alone, and JAX reads it at an index beyond it too",
    ),
    (
        "content/path.py",
        "tile.k_tokens.index is None",
        "keys have an index only where queries have one, and sorting keys in order changes nothing",
    ),
    (
        "attention/__init__.py",
        "T < _FEW_QUERIES",
        "it chooses the faster of two implementations, at one length",
    ),
    (
        "model/cache.py",
        "return encoding.observe(jnp.zeros((1, 1, width)), encoding.tokens(text(1)))[1]",
        "only whether there is a state is asked, and not for how many tokens",
    ),
    (
        "attention/sinks.py",
        "sinks_BTH + zeros",
        "zeros give the sinks a shape and a sharding, and may be subtracted as well",
    ),
    (
        "attention/cpu.py",
        "queries > _FEW",
        "it chooses the faster of two forms of the same product",
    ),
    (
        "attention/cpu.py",
        "_LEAST_ROWS, _MOST_ROWS, _MOST_LOGITS, _ROWS = ",
        "the limits choose the fastest of three implementations, which have the same results",
    ),
    (
        "attention/cpu.py",
        "sinks.shape[1] > 1",
        "one block has both of two queries, so that nothing is cut off their sinks",
    ),
    (
        "attention/blockwise.py",
        "MOST_LOGITS // (B * H * S)",
        "it chooses a size of tiles, which bounds memory, and every size gives the same sums",
    ),
    (
        "attention/blockwise.py",
        "512 < max(T, S) <= 1024 and has_one_core()",
        "it chooses a size of tiles, and every size gives the same sums",
    ),
    (
        "pallas/kernels.py",
        "(j + 1) * self.size + self.rule.window - 2",
        "a tile more is visited, and the mask hides all of it",
    ),
    (
        "pallas/program.py",
        "summed == 1",
        "the other forms multiply over one number too, though not on every device",
    ),
    (
        "pallas/lookup.py",
        "axis=0, keepdims=False",
        "a row with one more axis of size 1 is broadcast to the same result",
    ),
    (
        "model/cache.py",
        "model.embedding.shape[-1]",
        "the embedding has two axes, so its last is its second",
    ),
    (
        "model/decode.py",
        "np.ceil(last)",
        "no scheme has both a largest position and fractional ones",
    ),
    (
        "pretrained/write.py",
        "math.nextafter(fraction, 1)",
        "the next number toward 2 is the next toward 1",
    ),
    (
        "pretrained/__main__.py",
        "description=__doc__.splitlines()",
        "only a line of --help is another, and no test asks for words",
    ),
    (
        "pretrained/encoding.py",
        "rngs=nnx.Rngs(0)",
        "what the key draws is replaced by the weights of the checkpoint",
    ),
    (
        "pretrained/weights.py",
        "_ALIGNMENT = 64",
        "with another alignment JAX copies an array, and its numbers are the same",
    ),
    (
        "pretrained/models.py",
        "_SHARD_BYTES = 4 * 2**30",
        "weights may be split into files of any size; the tests split at smaller ones",
    ),
]


def reason_of(change: Change) -> str:
    """Returns why an error goes unnoticed, as far as somebody has found out."""
    line = (choose.ROOT / change.path).read_text().splitlines()[change.line - 1]
    for path, text, reason in REASONS:
        if path in change.path and text in line:
            return reason
    return "no reason is known: a test is missing"
