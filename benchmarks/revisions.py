"""Times training steps of this revision against those of another, interleaved.

    python -m benchmarks.revisions --base=PATH_OF_A_CLONE
    python -m benchmarks.revisions --base=PATH_OF_A_CLONE --schemes=rope --shapes=8x256 --rounds=60

Each revision runs in a process of its own, with the packages of this interpreter. A round times one
step of each revision, in an order that alternates between rounds; the figure is the median over
rounds of this revision's time over the other's, so that a busy machine slows both. Below 1 this
revision is faster.

Only ``benchmarks/ours.py`` of the other revision is used: its ``jax_step``, ``random_tokens`` and
``shape_parser``.
"""

import argparse
import importlib
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


class Revision:
    """Runs training steps of the revision in ``folder``, in a process of its own."""

    def __init__(self, folder: Path, batch: int, length: int):
        # -P keeps the folder of this file out of sys.path.
        command = [sys.executable, "-P", str(Path(__file__).resolve())]
        command += [f"--worker={batch}x{length}"]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def ask(self, **question: str) -> float:
        """Compiles the step of a scheme, or runs it once and returns how long it takes."""
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process for {question} ended: see above")
        return json.loads(answer)


def serve(shape: str) -> None:
    """Compiles and times steps of the revision in the current folder, as JSON on stdin asks."""
    # This revision's, because the module may lie elsewhere in the other.
    runpy.run_path(str(HERE / "experiments/training/host.py"))["keep_freed_memory"]()
    ours = importlib.import_module("benchmarks.ours")
    if Path.cwd() not in Path(ours.__file__).parents:
        raise RuntimeError(f"{ours.__file__} is not of the revision in {Path.cwd()}")
    batch, length = map(int, shape.split("x"))
    args = ours.shape_parser("A worker.", batch=batch, length=length).parse_args([])
    tokens, steps = ours.random_tokens(args), {}
    for line in sys.stdin:
        question, answer = json.loads(line), 0.0
        if scheme := question.get("compile"):
            steps[scheme], _ = ours.jax_step(args, scheme, tokens)
            for _ in range(3):
                steps[scheme]()
        else:
            start = time.perf_counter()
            steps[question["run"]]()
            answer = time.perf_counter() - start
        print(json.dumps(answer), flush=True)


def compare(schemes: list[str], shape: str, base: Path, rounds: int) -> None:
    """Prints a row of the table for each scheme at one shape."""
    batch, length = map(int, shape.split("x"))
    revisions = [Revision(folder, batch, length) for folder in (HERE, base)]
    for scheme in schemes:
        for revision in revisions:
            revision.ask(compile=scheme)
    times: dict[str, list[list[float]]] = {scheme: [] for scheme in schemes}
    for number in range(rounds):
        order = 1 if number % 2 else -1
        for scheme in schemes:
            seconds = [revision.ask(run=scheme) for revision in revisions[::order]]
            times[scheme].append(seconds[::order])
    for revision in revisions:
        revision.end()
    for scheme, pairs in times.items():
        ours, theirs = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"| `{scheme}` | {batch} x {length} | {ours:.0f} | {theirs:.0f} | {ratio:.2f} |")
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, help="folder of a clone of the other revision")
    parser.add_argument("--schemes", default="rope,t5,kerple_log,alibi")
    parser.add_argument("--shapes", default="8x256,2x1024,1x4096", help="batch x length")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(args.worker)
        return
    if args.base is None or not (args.base / "benchmarks/ours.py").exists():
        parser.error(f"--base={args.base} must be the folder of a clone of this repository")
    for shape in args.shapes.split(","):
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", shape):
            parser.error(f"--shapes={args.shapes} must be BATCHxLENGTH, such as 8x256,2x1024")
    if args.rounds < 1:
        parser.error(f"--rounds={args.rounds} must be at least 1")
    from posenc_jax import REGISTRY  # not above, because a worker is of its own revision

    if unknown := {*args.schemes.split(",")} - {*REGISTRY}:
        parser.error(f"--schemes={args.schemes} must be names of the registry, not {unknown}")
    print("| scheme | batch x length | this revision, ms | the other, ms | ratio |")
    print("|---|---|---|---|---|", flush=True)
    for shape in args.shapes.split(","):
        compare(args.schemes.split(","), shape, args.base.resolve(), args.rounds)


if __name__ == "__main__":
    main()
