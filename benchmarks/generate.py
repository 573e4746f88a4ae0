"""Compares greedy generation with transformers on PyTorch's SDPA: first token, and all tokens.

    python -m benchmarks.generate --cases=1024+64,4096+32 --batches=1,8

A Llama of SmolLM2-135M's size with random weights continues random prompts in float32. Both
libraries must return the same tokens. Each round times one after the other in one process. A time
is the median over rounds; a ratio is the median of their time over ours: above 1 ours is faster.
"""

import argparse
import functools
import itertools
import sys
import tempfile

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import numpy as np
import torch
import transformers

from benchmarks.common import about, interleaved, ratios, table
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


def time_case(functions, prompt_BT, count, rounds) -> list[str]:
    """Returns the cells of a row: times of both sides for one token and for all, with ratios."""
    np.testing.assert_array_equal(*(function(prompt_BT, count) for function in functions))
    calls = {
        (side, new): functools.partial(function, prompt_BT, new)
        for side, function in zip(("ours", "theirs"), functions, strict=True)
        for new in (1, count)
    }
    times, cells = interleaved(calls, rounds, warm_up=1), []
    median = times.median()
    for new in (1, count):
        ratio = ratios(times, ("ours", new))["theirs", new]
        cells += [f"{median['ours', new]:.2f}", f"{median['theirs', new]:.2f}", f"{ratio:.2f}"]
    for side in ("ours", "theirs"):
        cells.append(f"{1e3 * (median[side, count] - median[side, 1]) / (count - 1):.0f}")
    return cells


def cases(text: str) -> list[tuple[int, int]]:
    """Reads ``PROMPT+NEW``, separated by commas, as a ``type`` of argparse."""
    pairs = [tuple(map(count, pair.split("+"))) for pair in text.split(",")]
    if any(len(case) != 2 or case[1] < 2 for case in pairs):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be tokens of a prompt and at least 2 new ones, such as 1024+64"
        )
    return pairs


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", type=cases, default="1024+64,4096+32", help="prompt and new tokens"
    )
    parser.add_argument("--batches", type=counts, default="1,8")
    parser.add_argument("--rounds", type=count, default=3)
    args = parser.parse_args()
    rng, functions, rows = np.random.default_rng(0), sides(), []
    for batch, (length, new) in itertools.product(args.batches, args.cases):
        prompt = rng.integers(3, VOCAB, (batch, length)).astype(np.int32)
        rows.append([batch, length, new, *time_case(functions, prompt, new, args.rounds)])
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{about(args)}, {versions}, {torch.get_num_threads()} threads")
    both = ["transformers", "ratio"]
    heads = ["batch", "prompt", "new", "first token, s", *both, "all, s", *both]
    print(table([*heads, "ms a token", "transformers"], rows))


if __name__ == "__main__":
    sys.exit(main())
