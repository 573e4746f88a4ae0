"""Times this revision of the library against another one, interleaved.

    python -m benchmarks.revisions --base=PATH_OF_A_CLONE
    python -m benchmarks.revisions --base=PATH_OF_A_CLONE --schemes=rope --shapes=8x256 --rounds=4

For each scheme and shape it measures

    step       the loss and its gradients
    prompt     reading a prompt, up to the first new token
    token      each new token after that prompt
    compiling  the first call of a step and of ``generate``

Each revision runs in a process of its own, with the packages of this interpreter. A round asks one
revision after the other, in an order that alternates between rounds; a ratio is the median over
rounds of this revision's time over the other's, so that a busy machine slows both. Below 1 this
revision is faster. Ratios differ between pairs of processes by up to a tenth, so the table has the
mean over ``--processes`` pairs and half of its 95 % interval.

The other revision needs only ``make``, ``Transformer``, ``generate``, ``cross_entropy`` and
``positions.text`` of ``posenc_jax``, as this file uses them.
"""

import argparse
import collections
import functools
import json
import os
import re
import runpy
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SIZES = {"num_heads": 4, "model_dim": 256, "num_layers": 4}
VOCAB, NEW = 256, 33


def calls(scheme: str, batch: int, length: int):
    """Returns functions that run a training step, and generate one new token and ``NEW`` tokens."""
    import jax
    import numpy as np
    from flax import nnx

    import posenc_jax

    folder = Path(posenc_jax.__file__).parents[1]
    if folder != Path.cwd():
        raise RuntimeError(f"posenc_jax is of {folder}, not of the revision in {Path.cwd()}")
    rngs, head_dim = nnx.Rngs(0), SIZES["model_dim"] // SIZES["num_heads"]
    reach = length + NEW
    encoding = posenc_jax.make(scheme, rngs=rngs, head_dim=head_dim, train_length=reach, **SIZES)
    if isinstance(encoding, posenc_jax.Layers):
        encoding = encoding.over(SIZES["num_layers"])
    model = posenc_jax.Transformer(encoding, vocab_size=VOCAB, rngs=rngs, **SIZES)
    tokens = np.random.default_rng(0).integers(0, VOCAB, (batch, length + 1)).astype(np.int32)

    @jax.jit
    @jax.value_and_grad
    def gradient(model):
        x_BTD = model.hidden(tokens[:, :-1], posenc_jax.positions.text(length))
        return posenc_jax.cross_entropy(x_BTD, model.output_table, tokens[:, 1:]).mean()

    def generate(count):
        new = posenc_jax.generate(model, tokens[:, :-1], max_new_tokens=count)
        return jax.block_until_ready(new)

    def step():
        return jax.block_until_ready(gradient(model))

    return step, functools.partial(generate, 1), functools.partial(generate, NEW)


def serve(shape: str) -> None:
    """Measures the revision in the current folder: a line of stdin asks for a line of stdout."""
    # Before JAX starts threads; of this revision, because the other may lack it.
    runpy.run_path(str(HERE / "experiments/training/host.py"))["keep_freed_memory"]()
    import jax

    batch, length = map(int, shape.split("x"))
    made = {}
    for line in sys.stdin:
        scheme, is_first = json.loads(line)
        if scheme not in made:
            made[scheme] = calls(scheme, batch, length)
        if is_first:
            jax.clear_caches()
        step, prompt, every = map(_seconds_of, made[scheme])
        answer = {"step": step, "prompt": prompt, "token": (every - prompt) / (NEW - 1)}
        answer = {"compiling": step + prompt + every} if is_first else answer
        print(json.dumps(answer), flush=True)


def _seconds_of(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Revision:
    """Asks the revision in ``folder``, which runs in a process of its own."""

    def __init__(self, folder: Path, shape: str):
        # -P keeps the folder of this file out of sys.path.
        command = [sys.executable, "-P", str(Path(__file__).resolve()), f"--worker={shape}"]
        settings = {"PYTHONPATH": str(folder), "JAX_ENABLE_COMPILATION_CACHE": "false"}
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process = subprocess.Popen(command, cwd=folder, env=os.environ | settings, **pipes)

    def ask(self, scheme: str, is_first: bool) -> dict[str, float]:
        """Returns the seconds of one round."""
        self._process.stdin.write(json.dumps([scheme, is_first]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process for {scheme} ended: see above")
        return json.loads(answer)

    def end(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def compare(args: argparse.Namespace, shape: str) -> None:
    """Prints a row of the table for each scheme and measure at one shape."""
    from experiments.results.statistics import mean_and_margin  # which a worker's revision may lack

    ratios, times = collections.defaultdict(list), collections.defaultdict(list)
    for number in range(args.processes):
        print(f"{shape}, processes {number + 1} of {args.processes}", file=sys.stderr, flush=True)
        for (scheme, what), pairs in _measured(args, shape).items():
            ratios[scheme, what].append(statistics.median(here / there for here, there in pairs))
            times[scheme, what] += pairs
    for (scheme, what), pairs in times.items():
        here, there = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
        mean, margin, _ = mean_and_margin(ratios[scheme, what])
        ratio = f"{mean:.2f} | {margin:.2f}"
        print(f"| `{scheme}` | {shape} | {what} | {here:.1f} | {there:.1f} | {ratio} |", flush=True)


def _measured(args, shape) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Returns the seconds of this revision and the other, by scheme and measure, of all rounds."""
    revisions = [Revision(folder, shape) for folder in (HERE, args.base.resolve())]
    measured = collections.defaultdict(list)
    for scheme in args.schemes.split(","):
        for number in range(args.compilations + args.rounds):
            order = 1 if number % 2 else -1
            answers = [one.ask(scheme, number < args.compilations) for one in revisions[::order]]
            for what in answers[0]:
                here, there = (answer[what] for answer in answers[::order])
                measured[scheme, what].append((here, there))
    for one in revisions:
        one.end()
    return measured


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, help="folder of a clone of the other revision")
    parser.add_argument("--schemes", default="rope,t5,kerple_log,alibi")
    parser.add_argument("--shapes", default="8x256,2x1024,1x4096", help="batch x length")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--compilations", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(args.worker)
        return
    if args.base is None or not (args.base / "posenc_jax").is_dir():
        parser.error(f"--base={args.base} must be the folder of a clone of this repository")
    if not all(re.fullmatch(r"[1-9]\d*x[1-9]\d*", shape) for shape in args.shapes.split(",")):
        parser.error(f"--shapes={args.shapes} must be BATCHxLENGTH, such as 8x256,2x1024")
    if min(args.processes, args.rounds, args.compilations) < 1:
        parser.error("--processes, --rounds and --compilations must be at least 1")
    print("| scheme | batch x length | measure | this revision, ms | the other, ms | ratio | ± |")
    print(f"|{'---|' * 7}", flush=True)
    for shape in args.shapes.split(","):
        compare(args, shape)


if __name__ == "__main__":
    main()
