"""Makes a page in Markdown of the results of ``benchmarks/tpu_check.py``.

python -m benchmarks.tpu_report docs/data/tpu_check.csv.gz > docs/data/tpu_check.md
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.command import exit_status
from experiments.results.reports.markdown import markdown_table

_PAGE = """# Programs compiled for TPUs

`python -m benchmarks.tpu_report docs/data/tpu_check.csv.gz` made this page of the {count:,}
programs in [tpu_check.csv.gz](tpu_check.csv.gz), which `make tpu-check` compiled without a TPU
([how](../launching.md#compiled-for-a-tpu-pod-without-a-tpu)). What is not in the tables has not
been compiled yet.

- A program is *compiled*, *too large* for the compiler, or *refused* by this library with a reason.
  `pallas` refuses [some schemes](../how-to/attention.md), and is too large where the keys and
  values of a head do not fit into VMEM.
- A step of 7B uses `rope` and sequences of 4,096 tokens, one row on each part of `data` and `fsdp`.
  Training and evaluation have float32 parameters; decoding has bfloat16 parameters and a cache of
  4,096 slots.
- Operations are counted in matrix products, with dense attention.
- *Not known* means that this jaxlib cannot read the program that libtpu has written.

"""


def page(rows: list[dict[str, Any]]) -> str:
    """Returns the tables below a heading and the explanation of their words."""
    return _PAGE.format(count=len(rows)) + tables(rows)


def tables(rows: list[dict[str, Any]]) -> str:
    """Returns a table for each part: of steps, of attention, and of temporaries by length."""
    of_part: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of_part.setdefault(row["part"], []).append(row)
    makers = {"steps": _steps, "attention": _attention, "lengths": _lengths}
    parts = [make(of_part[part]) for part, make in makers.items() if part in of_part]
    return "\n".join(parts)


def _steps(rows) -> str:
    """Returns the table of memory, bytes sent and operations, a row for each program."""
    lines = []
    for row in rows:
        memory = f"{float(row['memory_gib']):.2f} GiB" if row["memory_gib"] else row["outcome"]
        fits = {"True": "fits", "False": "does not fit"}.get(str(row["fits"]), "")
        sent = (
            "; ".join(
                f"{kind} {axes} {float(size) / 1024:.2f}"
                for kind, axes, size in map(str.split, row["sent_mib_a_chip"].split("; "))
                if float(size) >= 10
            )
            if row["sent_mib_a_chip"]
            else ""
        )
        chips = f"{row['chips']} x {row['chip']}"
        flops = f"{float(row['gigaflops_a_chip']) / 1000:.3g}" if row["gigaflops_a_chip"] else ""
        what = f"{row['what']}, {row['program']}"
        unknown = row["outcome"] == "compiled" and row["reason"]
        sent = sent or ("not known" if unknown else "-")
        lines.append((what, chips, row["mesh"] or "-", memory, fits, sent, flops))
    titles = ("step", "chips", "mesh", "a chip needs", "", "a chip sends, GiB", "teraflops a chip")
    return markdown_table(titles, lines)


def _attention(rows) -> str:
    """Returns the table of outcomes by scheme and implementation, forward and backward.

    Schemes under which every program compiles share the last row.
    """
    programs = pd.DataFrame(rows)
    programs["column"] = [
        f"{row['program'].split()[0]}, {row['chips']} x {row['chip']}" for row in rows
    ]
    outcomes = programs.groupby(["what", "column"], sort=False)["outcome"].unique().map(" / ".join)
    cells = outcomes.unstack("column", sort=False, fill_value="-")
    compiled = (cells == "compiled").all(axis=1)
    lines = [(f"`{row[0]}`", *row[1:]) for row in cells[~compiled].itertuples()]
    if compiled.any():
        lines.append((f"{compiled.sum()} more", *("compiled" for _ in cells)))
    return markdown_table(("scheme", *cells), lines)


def _lengths(rows) -> str:
    """Returns the table of temporaries in MiB by length."""
    cells: dict[str, dict[str, str]] = {}  # by length, by scheme and implementation
    for row in rows:
        implementation, _, length = row["program"].split()
        size = row["temporaries_gib"]
        words = f"{1024 * float(size):,.1f}" if size else row["outcome"]
        cells.setdefault(length, {})[f"`{row['what']}`, {implementation}"] = words
    lines = pd.DataFrame(cells).fillna("-").itertuples()
    return markdown_table(("temporaries, MiB", *(f"{int(n) // 1024}k" for n in cells)), lines)


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a table of programs, with all fields as texts."""
    return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="a tpu_check.csv, which may be compressed")
    print(page(read(parser.parse_args().table)), end="")


if __name__ == "__main__":
    sys.exit(main())
