"""Says how many of many small errors the tests notice, and lists the others.

    python -m tests.mutants --sample=40 --seed=1

Errors are put into the schemes, attention, decoding and the importer of Hugging Face's configs, at
least three into every scheme but ``nope``, which computes nothing. Each is tried in a copy of the
tree, where the tests of its scheme run first, then those of its file, then the library's others,
until one fails. Slow tests are left out.
"""

import argparse
import concurrent.futures
import pathlib
import queue
import tempfile

from tests.mutants import choose, trial
from tests.mutants.reasons import reason_of


def main() -> None:
    options = _options()
    changes = [c for c in choose.chosen(options.seed) if options.only in c.path]
    if options.sample:
        changes = choose.sample(changes, options.sample, options.seed)
    if options.list:
        print(*changes, f"{len(changes)} errors", sep="\n")
        return
    survivors = []
    for result in _results(changes, options.jobs):
        by = f"noticed by {result.noticed_by}" if result.noticed_by else "NOT NOTICED"
        print(f"{result.seconds:4.0f} s  {result.change}  {by}", flush=True)
        if not result.noticed_by:
            survivors.append(result.change)
    noticed = len(changes) - len(survivors)
    print(f"\n{noticed} of {len(changes)} errors are noticed, {noticed / len(changes):.1%}.")
    for change in survivors:
        print(f"  {change}\n      {reason_of(change)}")


def _options():
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--sample", type=int, help="number of errors to try, instead of all")
    parser.add_argument("--seed", type=int, default=0, help="which errors are chosen")
    parser.add_argument("--only", default="", help="part of the path of the files to change")
    parser.add_argument("--jobs", type=int, default=2, help="how many errors are tried at a time")
    parser.add_argument("--list", action="store_true", help="only list the errors")
    return parser.parse_args()


def _results(changes, jobs):
    """Returns the results as they come, from ``jobs`` copies of the tree."""
    with tempfile.TemporaryDirectory() as folder:
        trees: queue.Queue[pathlib.Path] = queue.Queue()
        for number in range(jobs):
            trees.put(trial.copy_of_tree(pathlib.Path(folder) / str(number)))

        def run(change):
            tree = trees.get()
            try:
                return trial.tried(change, tree)
            finally:
                trees.put(tree)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            waiting = [pool.submit(run, change) for change in changes]
            for done in concurrent.futures.as_completed(waiting):
                yield done.result()


if __name__ == "__main__":
    main()
