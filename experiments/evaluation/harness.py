"""Runs tasks of lm-evaluation-harness on a trained model, one of ours or a published one.

    python -m experiments.evaluation.harness --model=runs/small/runs/rope/seed0 \\
        --tasks=hellaswag --limit=100
    python -m experiments.evaluation.harness --model=smollm2 --tasks=my_task --include=my_tasks \\
        --encoding='{"name": "yarn", "factor": 4.0}' --length=32768 --out=results.json

The program needs ``pip install -e '.[harness]'``.
"""

import argparse
import collections
import dataclasses
import functools
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from experiments import folder_of
from experiments.command import count, encoding, exit_status, json_object
from experiments.evaluation.batches import in_batches, rows_of_pass
from experiments.pretrained.trained import load_run, on_mesh
from experiments.progress import stage
from experiments.results.bucket import folder_at
from experiments.results.record import write_json
from experiments.training.mesh import make_mesh
from experiments.training.text import token_losses_and_hits
from posenc_jax import Transformer, generate, pretrained
from posenc_jax.encodings.wrappers.randomized import Randomized

# Widths are powers of 2 from this one on, so that few programs are compiled.
_SHORTEST = 32
_measured = jax.jit(token_losses_and_hits)


class Coder:
    """Converts text to tokens and back, by a tokenizer, or as bytes for models trained here.

    The token ``start`` is put before a text without context, and ``end`` ends a text.
    """

    def __init__(self, tokenizer: Any = None, start: int | None = None, end: int | None = None):
        self._tokenizer, self.end = tokenizer, end
        self.start = (0 if start is None else start) if tokenizer else ord("\n")

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text."""
        if self._tokenizer is None:
            return list(text.encode())
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of token ids up to the end of text."""
        if self.end in tokens:
            tokens = tokens[: tokens.index(self.end)]
        if self._tokenizer is None:
            return bytes(tokens).decode(errors="replace")
        return self._tokenizer.decode(list(tokens))


@dataclasses.dataclass(eq=False)
class Harness:
    """Answers the three kinds of requests that lm-evaluation-harness makes.

    Attributes:
      length: the most tokens of context; longer requests lose their beginning.
      batch_tokens: tokens of one forward pass, or of all prompts and answers generated together.
    """

    model: Transformer
    coder: Coder
    _: dataclasses.KW_ONLY
    length: int
    batch_tokens: int
    mesh: Mesh
    console: Console

    @functools.cached_property
    def _draws(self) -> bool:
        """Returns whether positions are drawn for a batch, whose rows must have one length."""
        parts = (part for encoding in self.model.distinct() for part in encoding.parts())
        return any(isinstance(part, Randomized) for part in parts)

    def loglikelihood(self, requests) -> list[tuple[float, bool]]:
        """Returns the log-probability of each continuation, and whether it is the greedy one."""
        rows, counts = [], []
        for context, continuation in (request.args for request in requests):
            # Spaces belong to the word that follows them, as in the harness itself.
            start = len(context.rstrip())
            before = self.coder.encode(context[:start])
            after = self.coder.encode(context + continuation)[len(before) :]
            self._check(len(after), "a continuation")
            rows.append(((before or [self.coder.start]) + after)[-self.length - 1 :])
            counts.append(len(after))
        # The first token of a row has no score.
        ends = (
            row[len(row) - count :]
            for row, count in zip(self._scored(rows, "continuations"), counts, strict=True)
        )
        return [(-float(end[:, 0].sum()), bool(end[:, 1].all())) for end in ends]

    def loglikelihood_rolling(self, requests) -> list[float]:
        """Returns the log-probability of each whole text, piece by piece of ``length`` tokens.

        Each token is scored once. The last piece begins within the piece before it, so that its
        tokens have as much context as possible.
        """
        rows, counts, texts = [], [], []
        for number, (text,) in enumerate(request.args for request in requests):
            tokens = [self.coder.start, *self.coder.encode(text)]
            for end in range(1, len(tokens), self.length):
                last = min(end - 1 + self.length, len(tokens) - 1)
                rows.append(tokens[max(last - self.length, 0) : last + 1])
                counts.append(last - end + 1)
                texts.append(number)
        sums = [0.0] * len(requests)
        scored = zip(self._scored(rows, "texts"), counts, texts, strict=True)
        for row, last, number in scored:
            sums[number] -= float(row[-last:, 0].sum())
        return sums

    def generate_until(self, requests) -> list[str]:
        """Returns the greedy continuation of each context, up to a stop text or the end of text."""
        prompts, sizes = [], []
        for context, options in (request.args for request in requests):
            most = options.get("max_gen_toks", min(256, self.length))
            self._check(most, "max_gen_toks")
            prompt = self.coder.encode(context) or [self.coder.start]
            prompts.append(prompt[most - self.length :] if most < self.length else prompt[-1:])
            # Slots of padding hold no position, so they may be more than ``length``.
            sizes.append((self._width(len(prompts[-1])), most))
        answers = [""] * len(prompts)
        with stage("generating", len(prompts), self.console) as advance:
            for (width, most), numbers in _by_size(sizes):
                size = min(len(numbers), max(1, self.batch_tokens // (width + most)))
                for some in (numbers[i : i + size] for i in range(0, len(numbers), size)):
                    # Padded with its first prompt, a short batch runs through the same program.
                    full = some + some[:1] * (size - len(some))
                    new = self._continued([prompts[number] for number in full], width, most)
                    for number, tokens in zip(some, new, strict=False):
                        answer = self.coder.decode(tokens.tolist())
                        until = requests[number].args[1].get("until") or []
                        for stop in [until] if isinstance(until, str) else until:
                            answer = answer.split(stop)[0]
                        answers[number] = answer
                    advance("", steps=len(some))
        return answers

    def _continued(self, prompts: list[list[int]], width: int, most: int) -> np.ndarray:
        """Returns the greedy continuations of prompts, ``[B, most]``."""
        tokens = generate(
            self.model,
            _table(prompts, width),
            jax.random.key(0),
            max_new_tokens=most,
            lengths=list(map(len, prompts)),
            stop_token=self.coder.end,
        )
        return np.asarray(tokens)

    def _check(self, count: int, what: str) -> None:
        if count > self.length:
            raise ValueError(
                f"{what} has {count} tokens, and the model reads {self.length}; give a longer "
                "--length, under an encoding that reaches as far"
            )

    def _width(self, count: int) -> int:
        """Returns the width that rows of about ``count`` tokens share, few widths in all."""
        return count if self._draws else max(_SHORTEST, 1 << (count - 1).bit_length())

    def _scored(self, rows: list[list[int]], what: str) -> list[np.ndarray]:
        """Returns the losses and hits of each row's tokens but the first, ``[L - 1, 2]``."""
        scores = [np.empty(0)] * len(rows)
        widths = [min(self._width(len(row) - 1), self.length) for row in rows]

        def compute(batch):
            return _measured(self.model, batch["tokens"], batch["length"])

        with stage(what, len(rows), self.console) as advance:
            for width, numbers in _by_size(widths):
                # Padding after a row changes no score in it, as attention is causal, and a scheme
                # that adapts to the length is told the row's.
                table = {
                    "tokens": _table([rows[number] for number in numbers], width + 1),
                    "length": np.array([[len(rows[number]) - 1] for number in numbers], np.int32),
                }
                size = rows_of_pass(self.batch_tokens, width, self.mesh)
                left = iter(numbers)
                for batch in in_batches(compute, table, size, self.mesh):
                    for measured, number in zip(batch, left, strict=False):
                        scores[number] = measured[: len(rows[number]) - 1]
                    advance("", steps=len(batch))
        return scores


def _by_size(sizes: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """Returns the numbers of rows of each size, the largest size first."""
    numbers: dict[Any, list[int]] = collections.defaultdict(list)
    for number, size in enumerate(sizes):
        numbers[size].append(number)
    return sorted(numbers.items(), reverse=True)


def _table(rows: list[list[int]], width: int) -> np.ndarray:
    """Returns rows of tokens as one array ``[len(rows), width]``, with zeros after each row."""
    tokens = np.zeros((len(rows), width), np.int32)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    return tokens


def load(path: str, encoding: dict[str, Any] | None, mesh: Mesh) -> tuple[Transformer, Coder, int]:
    """Returns a model, its conversion of text to tokens, and the length it was trained for.

    ``path`` is the folder of a run, or what ``posenc_jax.pretrained.load`` takes. ``encoding``, a
    name and keywords, replaces the rotation of a published model. Raises a ValueError if there is
    no such model, or it cannot tokenize text.
    """
    if (folder_at(path) / "run.json").exists():
        if encoding:
            raise ValueError("--encoding is for published models; tune the run under another one")
        state, config = load_run(folder_at(path), mesh)
        if len(state.model.embedding) != 256:
            raise ValueError(
                f"the run in {path} does not read bytes, and has no tokenizer for text; give one "
                "that was trained on a corpus of bytes, such as stdlib or files:"
            )
        # The length of the last training: a model tuned at a greater length reads that many tokens.
        return state.model, Coder(), config["train"]["length"]
    loaded = pretrained.load(path, shardings=on_mesh(mesh), scan=True)
    if loaded.tokenizer is None:
        raise ValueError(f"{path} has no tokenizer; add its tokenizer.json to the folder")
    model = loaded.under(**encoding) if encoding else loaded.model
    end = loaded.config.get("eos_token_id")
    end = end[0] if isinstance(end, list) else end
    start = loaded.config.get("bos_token_id")
    return model, Coder(loaded.tokenizer, end if start is None else start, end), loaded.length


def evaluate(
    harness: Harness,
    tasks: list[str],
    include: str | None = None,
    metadata: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Returns the results of lm-evaluation-harness.

    ``include`` is a folder with further tasks, and ``metadata`` what tasks ask for that make their
    own texts, as those of RULER do.
    """
    folder_of("lm_eval", "harness", "experiments.evaluation.harness")
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Adapter(LM):
        loglikelihood: Callable = staticmethod(harness.loglikelihood)
        loglikelihood_rolling: Callable = staticmethod(harness.loglikelihood_rolling)
        generate_until: Callable = staticmethod(harness.generate_until)

    manager = TaskManager(include_path=include, metadata=metadata)
    check_tasks(tasks, manager.all_tasks)
    return lm_eval.simple_evaluate(Adapter(), tasks=tasks, task_manager=manager, **options)


def check_tasks(tasks: list[str], known: Collection[str]) -> None:
    """Raises a ValueError unless each task is one of the known ones, or a file that defines one."""
    unknown = [task for task in tasks if task not in known and not Path(task).is_file()]
    if unknown:
        raise ValueError(
            f"--tasks has {', '.join(map(repr, unknown))}, which lm-evaluation-harness does not "
            "know: give names that `lm_eval ls tasks` prints, or of tasks in the folder --include"
        )


@exit_status
def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the tasks and prints the table."""
    parser = argparse.ArgumentParser("posenc harness", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a run, weights, or a name")
    parser.add_argument("--tasks", required=True, help="tasks of the harness, with commas")
    parser.add_argument("--include", help="folder with tasks of your own")
    parser.add_argument("--metadata", type=json_object, help="JSON: what tasks ask for")
    parser.add_argument("--encoding", type=encoding, help="JSON: a name and its keywords")
    parser.add_argument("--length", type=count, help="most tokens of context (default: as trained)")
    parser.add_argument("--batch_tokens", type=count, default=8192, help="tokens of a forward pass")
    parser.add_argument("--num_fewshot", type=int, help="examples before each question")
    parser.add_argument("--limit", type=count, help="questions of each task")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    args = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    mesh = make_mesh()
    model, text, trained = load(args.model, args.encoding, mesh)
    options = {"length": args.length or trained, "batch_tokens": args.batch_tokens}
    harness = Harness(model, text, **options, mesh=mesh, console=console)
    limits = {"num_fewshot": args.num_fewshot, "limit": args.limit}
    answers = evaluate(harness, args.tasks.split(","), args.include, args.metadata, **limits)
    from lm_eval.utils import make_table

    console.print(make_table(answers))
    if args.out:
        how = {name: getattr(args, name) for name in ("model", "encoding", "metadata")}
        write_json(args.out, {"results": answers["results"]} | how | options | limits)


if __name__ == "__main__":
    sys.exit(main())
