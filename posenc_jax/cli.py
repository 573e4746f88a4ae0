"""Runs the commands of this project under one name, ``posenc``."""

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Commands of the library, by the function here that is called, and a sentence about each.
OF_LIBRARY = {
    "schemes": "Lists the names of all schemes, with a sentence about each.",
    "describe": "Shows what a scheme is, and its keywords: posenc describe yarn.",
    "convert": "Saves published weights under another encoding.",
}
# What a command runs in a checkout, which has the experiments, and a sentence about it.
IN_CHECKOUT = {
    "compare": (
        ["launch.py", "--config=configs/extrapolation.py:small", "--workdir=runs/small"],
        "Trains fifteen schemes short, tests them long, and writes a report.",
    ),
    "extend": (
        ["launch.py", "--config=configs/extension.py:small", "--workdir=runs/extension"],
        "Makes a trained model longer by every method; --config.checkpoint=FOLDER for your own.",
    ),
    "run": (["launch.py"], "Runs an experiment: --config=configs/FILE.py:PRESET --workdir=FOLDER."),
    "status": (["launch.py", "--status"], "Shows the state of each run: --config and --workdir."),
    "report": (["launch.py", "--report"], "Writes the report of finished runs: same flags."),
    "export": (["-m", "experiments.pretrained.export"], "Saves a run for transformers."),
    "probe": (["-m", "experiments.evaluation.probes"], "Shows what the heads of a run look at."),
    "harness": (["-m", "experiments.evaluation.harness"], "Runs lm-evaluation-harness on a model."),
    "gallery": (["-m", "experiments.studies.gallery"], "Draws what each encoding does."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command, one of a checkout in the place of this process; returns the exit status."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        from posenc_jax import __version__

        print(f"posenc_jax {__version__}")
        return 0
    if name in OF_LIBRARY:
        run = {"schemes": _schemes, "describe": _describe, "convert": _convert}[name]
        try:
            status = run(rest)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 0
        return status
    if name not in IN_CHECKOUT:
        known = ", ".join([*OF_LIBRARY, *IN_CHECKOUT])
        return _refused(f"posenc has no command {name!r}: choose one of {known}")
    root = _checkout()
    if root is None:
        return _refused(
            f"posenc {name} needs a checkout of posenc_jax, which has the experiments; run it in "
            "one, or install one with: pip install -e '.[experiments]'"
        )
    # With -P, no file of the current folder is imported in the place of a package.
    command = [sys.executable, "-P", *(_in(root, word) for word in IN_CHECKOUT[name][0]), *rest]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    sys.stdout.flush()
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": path})


def _schemes(rest: list[str]) -> int:
    if rest:
        return _refused(f"posenc schemes takes no {rest[0]!r}")
    from posenc_jax.registry import REGISTRY, lookup

    for name in REGISTRY:
        print(f"{name:<22}{(lookup(name).__doc__ or '').splitlines()[0]}")
    return 0


def _describe(rest: list[str]) -> int:
    if len(rest) != 1 or rest[0].startswith("-"):
        return _refused("posenc describe takes the name of one scheme, such as yarn")
    from posenc_jax.registry import lookup, signature

    (name,) = rest
    try:
        build, keywords = lookup(name), signature(name)
    except ValueError as error:
        return _refused(str(error))
    print(f"make({name!r}, ...), which is {build.__module__}.{build.__name__}{keywords}\n")
    print(inspect.getdoc(build))
    return 0


def _convert(rest: list[str]) -> int:
    return importlib.import_module("posenc_jax.pretrained.__main__").main(rest)


def _refused(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


def _checkout() -> Path | None:
    """Returns the checkout around the current folder, or the one that is installed."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[1]):
        if (root / "launch.py").is_file() and (root / "experiments").is_dir():
            return root
    return None


def _in(root: Path, argument: str) -> str:
    argument = argument.replace("--config=", f"--config={root}/")
    return str(root / argument) if argument == "launch.py" else argument


def _help() -> str:
    sentences = OF_LIBRARY | {name: sentence for name, (_, sentence) in IN_CHECKOUT.items()}
    lines = [
        "usage: posenc COMMAND [FLAGS], or posenc --version",
        "",
        *(f"  {name:<10}{sentence}" for name, sentence in sentences.items()),
        "",
        "A later flag replaces an earlier one: `posenc compare --workdir=FOLDER`. Any field of",
        "a config can be set, as in `posenc compare --config.schemes=rope,alibi`. Each command has",
        "more flags: `posenc COMMAND --help`.",
    ]
    return "\n".join(lines)
