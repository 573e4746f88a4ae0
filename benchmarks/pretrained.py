"""Compares prefill of a published model with transformers on PyTorch's SDPA, in time and memory.

    python -m benchmarks.pretrained --model=smollm2 --lengths=1024,4096,8192

Both libraries read the same prompt in float32, fill a cache with its keys and values, and return
the logits of its last token, which must agree. Each round times one after the other in one process;
the figure is the median over rounds of their time over ours: above 1 ours is faster.

Memory is the peak resident size of a process that loads one of the two models from safetensors and
reads one prompt, less its size before loading. The budget is one and a half times the weights, plus
the cache.
"""

import argparse
import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import numpy as np
import pandas as pd
import torch
import transformers

from benchmarks.ours import interleaved, ratios
from experiments.command import count, counts, exit_status
from posenc_jax import Cache
from posenc_jax.pretrained import load, save

SIDES = ("ours", "transformers")


@functools.partial(jax.jit, static_argnames="chunk")
def prefill(model, ids_1T, chunk):
    """Returns the logits of the last token, and a cache that holds the whole prompt."""
    length = ids_1T.shape[1]
    cache = Cache.empty(model, 1, length)
    for start in range(0, length, chunk):
        x_1TD, cache = model.extend(ids_1T[:, start : start + chunk], cache)
    return model.unembed(x_1TD[:, -1:]), cache


def reader(side: str, folder: Path, chunk: int):
    """Returns a function from a prompt to the logits of its last token, and the cache's bytes."""
    if side == "ours":
        model = load(folder, scan=True).model

        def read(ids_1T):
            logits, cache = prefill(model, ids_1T, chunk)
            jax.block_until_ready(cache)
            size = sum(x.nbytes for x in jax.tree.leaves(cache.layers))
            return np.asarray(logits[0, -1]), size

        return read
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="sdpa", dtype=torch.float32
    )

    def read_theirs(ids_1T):
        with torch.inference_mode():
            ids = torch.from_numpy(ids_1T).long()
            output = theirs(ids, use_cache=True, logits_to_keep=1)
        layers = output.cache.layers
        size = sum(array.nbytes for layer in layers for array in (layer.keys, layer.values))
        return output.logits[0, -1].numpy(), size

    return read_theirs


def resident(key: str) -> float:
    """Returns the resident MiB of this process now (VmRSS) or at their peak (VmHWM), on Linux.

    The peak of ``resource.getrusage`` would include that of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s*(\d+) kB", status)[1]) / 1024


def memory(side, folder, ids_1T, chunk) -> str:
    """Returns the MiB that loading and one prompt take in this process, and the cache's MiB."""
    before = resident("VmRSS")
    _, size = reader(side, folder, chunk)(ids_1T)
    return f"{resident('VmHWM') - before:.0f} {size / 2**20:.0f}"


def memory_apart(side, args, folder, length) -> tuple[float, float]:
    """Returns the two numbers of ``memory``, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pretrained", f"--here={side}"]
    command += [f"--model={folder}", f"--lengths={length}", f"--chunk={args.chunk}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    used, cache = done.stdout.split()[-2:]
    return float(used), float(cache)


def time_rounds(readers, ids_1T, rounds) -> pd.DataFrame:
    """Returns the seconds of each side in each round, once both have the same logits."""
    ours, theirs = (read(ids_1T)[0] for read in readers)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-2)
    calls = [functools.partial(read, ids_1T) for read in readers]
    return interleaved(dict(zip(SIDES, calls, strict=True)), rounds, warm_up=0)


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="as posenc_jax.pretrained takes it")
    parser.add_argument("--lengths", type=counts, default="1024,4096,8192")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--chunk", type=count, default=2048, help="tokens ours reads at a time")
    parser.add_argument("--here", choices=SIDES, help="memory of one side, in this process")
    args = parser.parse_args()
    lengths, rng = args.lengths, np.random.default_rng(0)
    prompts = [rng.integers(3, 1000, (1, length)).astype(np.int32) for length in lengths]
    if args.here:
        print(memory(args.here, Path(args.model), prompts[0], args.chunk))
        return
    with tempfile.TemporaryDirectory() as parent:
        published, folder = load(args.model), Path(parent) / "model"
        save(folder, published.model, published.config)
        weights = sum(p.nbytes for p in jax.tree.leaves(published.model)) / 2**20
        del published
        readers, lines = [reader(side, folder, args.chunk) for side in SIDES], []
        for ids_1T in prompts:
            times = time_rounds(readers, ids_1T, args.rounds)
            lines.append([*times.median(), ratios(times, "ours")["transformers"]])
        del readers
        for line, length in zip(lines, lengths, strict=True):
            for side in SIDES:
                used, cache = memory_apart(side, args, folder, length)
                line.append(used)
            line.append(1.5 * weights + cache)
    print(
        f"{args.model}, {weights:.0f} MiB of weights, {args.rounds} rounds (jax {jax.__version__}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{torch.get_num_threads()} threads)"
    )
    print("| tokens | ours, s | transformers, s | ratio | ours, MiB | transformers, MiB | budget |")
    print("|---|---|---|---|---|---|---|")
    for length, line in zip(lengths, lines, strict=True):
        ours, theirs, ratio, our_memory, their_memory, budget = line
        print(
            f"| {length} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} | {our_memory:.0f} | "
            f"{their_memory:.0f} | {budget:.0f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
