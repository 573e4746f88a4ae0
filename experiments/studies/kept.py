"""Makes the tables of docs/data and the figures of docs/figures again, without training.

    python -m experiments.studies.kept
    python -m experiments.studies.kept --studies=ladder,claims

Each archive of docs/data is restored into build/results, and the report of its experiment is
written there, as ``launch.py --report`` does. Of the report, docs/data gets the results as
``NAME.csv.gz``, the mean over texts and without losses by position, and the comparisons as
``NAME_comparisons.csv.gz``; and docs/figures the figure ``NAME.svg``, where a page
shows one.
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from experiments.command import exit_status
from experiments.registry import make_experiment
from experiments.results import table
from experiments.results.archive import restore
from experiments.results.record import write_files
from experiments.settings import names_in

DATA, FIGURES, WORKDIR = Path("docs/data"), Path("docs/figures"), Path("build/results")


_SHOWN = ("results", "loss_vs_length")  # figures of reports that pages may show


class Kept(NamedTuple):
    """Describes the results of one experiment.

    Attributes:
      config: the config and its preset.
      archives: the archives that it needs, by the folder of the workdir where they are restored.
      folder: its workdir within the shared one.
    """

    config: str
    archives: dict[str, str]
    folder: str = ""


def _alone(name: str) -> Kept:
    return Kept(f"{name}:small", {name: name}, name)


_CLAIMED = {"": "answers", "ladder": "ladder", "learned": "learned", "video": "video"}
KEPT = {
    "long": Kept("extrapolation:long", {"long": "extrapolation_long"}, "long"),
    "atlas": Kept("atlas:small", {"": "answers"}),
    "claims": Kept("claims:small", _CLAIMED),
    **{
        name: _alone(name)
        for name in ("ladder", "learned", "phases", "images", "pointing", "story", "video")
    },
}


def write(name: str, console: Console) -> None:
    """Writes the tables and figures of one experiment."""
    kept = KEPT[name]
    for folder, archive in kept.archives.items():
        restore(DATA / f"{archive}.tar.xz", WORKDIR / folder)
    file, preset = kept.config.split(":")
    config = importlib.import_module(f"configs.{file}").get_config(preset)
    experiment = make_experiment(config, WORKDIR / kept.folder, Console(quiet=True))
    command = f"python launch.py --config=configs/{file}.py:{preset} --workdir=runs/{name}"
    folder = experiment.write_report(command).parent
    frame = table.read(folder / table.FILE)
    files = {f"{name}.csv.gz": table.packed(shortened(frame))}
    for path in sorted(folder.glob("*.csv")):
        files[f"{name}_{path.name}.gz"] = table.packed(pd.read_csv(path, keep_default_na=False))
    write_files(DATA, files)
    drawn = [path for path in sorted(folder.glob("*.svg")) if path.stem in _SHOWN]
    figures = {f"{name}.svg": path.read_bytes() for path in drawn}
    figures = {file: drawing for file, drawing in figures.items() if (FIGURES / file).exists()}
    write_files(FIGURES, figures)
    console.print(f"{name}: {len(frame)} numbers; {', '.join([*files, *figures])}")


def shortened(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean over texts, without losses by position in a text."""
    return table.by_seed(frame[frame["measure"] != "position"])


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", default=",".join(KEPT), help="some of them, by their names")
    for name in names_in("--studies", parser.parse_args().studies, KEPT):
        write(name, Console())


if __name__ == "__main__":
    sys.exit(main())
