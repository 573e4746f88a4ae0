"""Measures what a model gains from far context: the same targets after three kinds of text.

    python -m experiments.evaluation.context --model=runs/small/runs/rope/seed0 --context=512
    python -m experiments.evaluation.context --model=smollm2 --corpus=files:books/*.txt \\
        --context=4096 --documents=8

The targets are the last tokens of a text. They are scored after the text's own context, after that
of the next document, and after none. A model that uses its context has the lowest loss after its
own; one that only needs many tokens before the targets has the same loss after another's.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from experiments.command import count, encoding, exit_status
from experiments.evaluation.harness import load
from experiments.evaluation.lengths import Scorer
from experiments.progress import stage
from experiments.results.record import write_json
from experiments.results.statistics import mean_and_margin, number
from experiments.results.table import Table
from experiments.training.corpus import tokenised
from experiments.training.data import load_corpus
from experiments.training.mesh import make_mesh
from experiments.training.windows import eval_windows

OWN, OTHER, NONE = "own context", "another's", "none"


def measure(score: Scorer, texts_NL: np.ndarray, targets: int) -> dict[str, np.ndarray]:
    """Returns the mean loss of the targets of each text in bits, float64 ``[N]``, by context.

    Texts are int ``[N, L + 1]``, and the targets are the last tokens of each.
    """
    ends_NL = texts_NL[:, -targets - 1 :]
    before_NL = np.roll(texts_NL[:, : -targets - 1], 1, axis=0)
    kinds = {OWN: texts_NL, OTHER: np.concatenate([before_NL, ends_NL], axis=1), NONE: ends_NL}
    return {
        kind: score(rows_NL, None)[:, -targets:].mean(axis=1) / math.log(2)
        for kind, rows_NL in kinds.items()
    }


def table(losses: dict[str, np.ndarray], context: int, targets: int) -> Table:
    """Returns the losses, and how much higher they are than after the text's own context."""
    rows = {}
    for kind, losses_N in losses.items():
        mean, _, _ = mean_and_margin(losses_N)
        more, margin, _ = mean_and_margin(losses_N - losses[OWN])
        words = "" if kind == OWN else f"{number(more)} ± {number(margin, more)}"
        rows[kind] = {"bits a token": number(mean), "more than after its own": words}
    shown = pd.DataFrame(rows).T.rename_axis("context")
    title = f"The last {targets} tokens of {len(losses[OWN])} texts, after {context} tokens"
    return Table(title, shown, "± is half of the 95 % interval over texts, each with itself.")


@exit_status
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m experiments.evaluation.context", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", required=True, help="folder of a run, weights, or a name")
    parser.add_argument("--encoding", type=encoding, help="JSON: a name and its keywords")
    parser.add_argument("--corpus", default="stdlib", help="as in configs; default: stdlib")
    parser.add_argument("--split", default="test", help="documents to read; default: test")
    parser.add_argument("--context", type=count, required=True, help="tokens before the targets")
    parser.add_argument("--targets", type=count, default=64, help="tokens that are scored")
    parser.add_argument("--documents", type=count, default=32, help="most texts")
    parser.add_argument("--batch_tokens", type=count, default=16384, help="of a forward pass")
    parser.add_argument("--out", type=Path, help="file for the losses, as JSON")
    args = parser.parse_args(arguments)
    mesh, console = make_mesh(), Console(highlight=False, markup=False)
    model, coder, _ = load(args.model, args.encoding, mesh)
    length, vocab_size = args.context + args.targets, len(model.embedding)
    corpus = load_corpus(args.corpus)
    if vocab_size != 256:
        corpus = tokenised(corpus, coder.encode, vocab_size, length + 1)
    texts_NL = eval_windows(corpus, args.split, length=length + 1, count=args.documents)
    if len(texts_NL) < 2:
        raise ValueError(f"--split={args.split} has one text of {length} tokens; two are needed")
    tokens = len(texts_NL) * (2 * length + args.targets)
    with stage("context", tokens, console) as advance:
        losses = measure(Scorer(model, mesh, args.batch_tokens, advance), texts_NL, args.targets)
    console.print(table(losses, args.context, args.targets).rich())
    if args.out:
        how: dict[str, Any] = {key: str(value) for key, value in vars(args).items()}
        write_json(args.out, how | {kind: losses_N.tolist() for kind, losses_N in losses.items()})


if __name__ == "__main__":
    sys.exit(main())
