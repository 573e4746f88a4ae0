"""Measures memory and time of a long document under every scheme, by its last chunk.

    python -m benchmarks.long_document --length=131072

The model of ``configs/extrapolation.py:small``, untrained, reads the last chunk after a cache that
holds all tokens before it: no other chunk of ``experiments.evaluation.long_document`` takes more
memory or time. A pattern of layers needs ``--layers`` of at least its own number of layers. Every
scheme runs in a process of its own; memory is the peak resident size of that process, Python and
JAX included, or the most that an accelerator has held.
"""

import argparse
import dataclasses
import functools
import re
import subprocess
import sys

import jax
import numpy as np
from rich.console import Console

from benchmarks.ours import VOCAB, seconds_of
from configs.extrapolation import get_config
from experiments.command import count, exit_status, schemes
from experiments.evaluation.long_document import read_chunk
from experiments.progress import stage
from experiments.training.host import peak_memory
from experiments.training.text import make_model, spec_of
from posenc_jax import REGISTRY, Cache, positions


def last_chunk(name: str, length: int, chunk: int, layers: int) -> tuple[float, float]:
    """Returns the seconds that the last chunk takes, and the MiB of ``peak_memory``."""
    config = get_config("small")
    config.model.num_layers = layers
    encoding = {"name": name} | config.encodings[name].to_dict()
    spec = spec_of(encoding, config.model.to_dict(), vocab_size=VOCAB)
    make = functools.partial(make_model, spec=spec, length=config.train.length)
    model = jax.jit(make)(jax.random.key(0))
    cache = Cache.empty(model, 1, length, length=length)
    cache = dataclasses.replace(
        cache, positions=positions.text(length), count=np.int32(length - chunk)
    )
    tokens = np.zeros((1, chunk + 1), np.int32)
    compiled = read_chunk.lower(model, tokens, cache).compile()
    seconds = seconds_of(lambda: compiled(model, tokens, cache))
    return seconds, peak_memory() / 2**20


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", type=schemes, default=",".join(REGISTRY))
    parser.add_argument("--length", type=count, default=131072)
    parser.add_argument("--chunk", type=count, default=512)
    parser.add_argument("--layers", type=count, default=2)
    parser.add_argument("--here", action="store_true", help="one scheme, in this process")
    args = parser.parse_args()
    names = args.schemes
    if args.here:
        seconds, mebibytes = last_chunk(names[0], args.length, args.chunk, args.layers)
        print(f"| `{names[0]}` | {seconds:.2f} | {mebibytes:.0f} |")
        return
    lines = []
    with stage("last chunks", len(names), Console(stderr=True)) as advance:
        for name in names:
            command = [sys.executable, "-m", "benchmarks.long_document", "--here"]
            command += [f"--{key}={getattr(args, key)}" for key in ("length", "chunk", "layers")]
            command += [f"--schemes={name}"]
            done = subprocess.run(command, capture_output=True, text=True)
            reason = re.findall(r"^\w+Error: .*", done.stderr, re.M) or [f"exit {done.returncode}"]
            lines.append(
                done.stdout.strip() if done.returncode == 0 else f"| `{name}` | {reason[-1]} | |"
            )
            advance(lines[-1])
    print(f"{args.length} tokens, the last {args.chunk} timed, {args.layers} layers", end=" ")
    print(f"(jax {jax.__version__})")
    print("| scheme | last chunk, s | most memory, MiB |\n|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
