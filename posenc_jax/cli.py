"""Runs the commands of a checkout under one name, ``posenc``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

# What a command runs in the checkout, and a sentence about it.
COMMANDS = {
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
    "convert": (
        ["-m", "posenc_jax.pretrained.__main__"],
        "Saves published weights under another encoding.",
    ),
    "probe": (["-m", "experiments.evaluation.probes"], "Shows what the heads of a run look at."),
    "harness": (["-m", "experiments.evaluation.harness"], "Runs lm-evaluation-harness on a model."),
    "gallery": (["-m", "experiments.studies.gallery"], "Draws what each encoding does."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command in the place of this process, or returns the exit status of an error."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: posenc has no command {name!r}: choose one of {known}", file=sys.stderr)
        return 2
    root = _checkout()
    if root is None:
        print(
            f"error: posenc {name} needs a checkout of posenc_jax, which has the experiments; run "
            "it in one, or install one with: pip install -e '.[experiments]'",
            file=sys.stderr,
        )
        return 2
    command = [sys.executable, *(_in(root, word) for word in COMMANDS[name][0]), *rest]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    sys.stdout.flush()
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": path})


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
    lines = [
        "usage: posenc COMMAND [FLAGS]",
        "",
        *(f"  {name:<10}{sentence}" for name, (_, sentence) in COMMANDS.items()),
        "",
        "A later flag replaces an earlier one: `posenc compare --workdir=FOLDER`. Any field of",
        "a config can be set, as in `posenc compare --config.schemes=rope,alibi`. Each command has",
        "more flags: `posenc COMMAND --help`.",
    ]
    return "\n".join(lines)
