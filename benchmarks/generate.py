"""Compares greedy generation with transformers on PyTorch's SDPA: first token, and all tokens.

    python -m benchmarks.generate --cases=1024+64,4096+32 --batches=1,8

A Llama of SmolLM2-135M's size with random weights continues random prompts in float32. Both
libraries must return the same tokens. Each round times one after the other in one process. A time
is the median over rounds; a ratio is the median of their time over ours: above 1 ours is faster.
"""

import argparse
import functools
import sys
import tempfile

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import numpy as np
import torch
import transformers

from benchmarks.ours import interleaved, ratios
from experiments.command import count, counts, exit_status
from posenc_jax import generate
from posenc_jax.pretrained import load

VOCAB = 49152
SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rope_theta=100_000.0,
    tie_word_embeddings=True,
)


def sides():
    """Returns our function and theirs, from a prompt and a count to the tokens that follow it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, attn_implementation="sdpa")
    theirs = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        # Larger than at the start of training, so that the most likely token is clear.
        theirs.model.embed_tokens.weight.mul_(20)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        model = load(folder).model

    def run(ids_BT, count):
        return np.asarray(
            generate(model, ids_BT, jax.random.key(0), max_new_tokens=count, prefill_chunk=2048)
        )

    def run_theirs(ids_BT, count):
        ids = torch.from_numpy(ids_BT).long()
        options = dict(max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
        with torch.inference_mode():
            output = theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return output[:, ids_BT.shape[1] :].numpy()

    return run, run_theirs


def time_case(functions, prompt_BT, count, rounds) -> list[float]:
    """Returns the median seconds of both sides for one token and for all, and the two ratios."""
    np.testing.assert_array_equal(*(function(prompt_BT, count) for function in functions))
    calls = {
        f"{side}, {new} tokens": functools.partial(function, prompt_BT, new)
        for new in (1, count)
        for side, function in zip(("ours", "transformers"), functions, strict=True)
    }
    times = interleaved(calls, rounds, warm_up=1)
    first, their_first, every, their_every = times
    return [*times.median(), ratios(times, first)[their_first], ratios(times, every)[their_every]]


def cases(text: str) -> list[tuple[int, int]]:
    """Reads ``PROMPT+ANSWER``, separated by commas, as a ``type`` of argparse."""
    pairs = [tuple(map(count, pair.split("+"))) for pair in text.split(",")]
    if any(len(case) != 2 or case[1] < 2 for case in pairs):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be tokens of prompt and answer, at least 2, such as 1024+64"
        )
    return pairs


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", type=cases, default="1024+64,4096+32", help="prompt+answer, in tokens"
    )
    parser.add_argument("--batches", type=counts, default="1,8")
    parser.add_argument("--rounds", type=count, default=3)
    args = parser.parse_args()
    rng, functions, lines = np.random.default_rng(0), sides(), []
    for batch in args.batches:
        for length, new in args.cases:
            prompt = rng.integers(3, VOCAB, (batch, length)).astype(np.int32)
            timings = time_case(functions, prompt, new, args.rounds)
            lines.append((batch, length, new, timings))
    print(
        f"{args.rounds} rounds (jax {jax.__version__}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {torch.get_num_threads()} threads)"
    )
    print(
        "| batch | prompt | new | first token, s | transformers | ratio | all, s | transformers | "
        "ratio | ms a token | transformers |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for batch, length, new, timings in lines:
        first, their_first, every, their_every, first_ratio, ratio = timings
        a_token = 1e3 * (every - first) / (new - 1)
        their_token = 1e3 * (their_every - their_first) / (new - 1)
        print(
            f"| {batch} | {length} | {new} | {first:.2f} | {their_first:.2f} | {first_ratio:.2f} "
            f"| {every:.2f} | {their_every:.2f} | {ratio:.2f} | {a_token:.0f} | {their_token:.0f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
