"""Makes tables of the records of a run."""

from collections.abc import Iterable, Sequence
from typing import Any


def tables(records: list[dict[str, Any]]) -> str:
    """Returns all tables in Markdown."""
    of_kind: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        of_kind.setdefault(record["kind"], []).append(record)
    about = of_kind["about"][0]
    parts = [f"# {about['device']} ({about['platform']}), jax {about['jax']}"]
    parts += _attention(of_kind.get("attention", []))
    parts += _steps(of_kind.get("step", []))
    parts += _checks(of_kind.get("check", []))
    parts += _list("What others could not do", of_kind.get("absent", []), ("scheme", "who"))
    parts += _list("Errors", of_kind.get("error", []), ("item",))
    return "\n\n".join(parts) + "\n"


def _attention(records) -> list[str]:
    of_shape: dict[tuple, dict[tuple[str, str], str]] = {}
    for r in records:
        shape = r["length"], r["head_dim"], r["heads"], r["batch"], r["pass"]
        cells = of_shape.setdefault(shape, {})
        cells[r["scheme"], r["who"]] = f"{r['ms']} ({r['teraflops']})"
    return [
        f"## Attention over {length} tokens, {which}: ms (teraflops a second)\n\n"
        f"batch {batch}, {heads} heads of {head_dim}, bfloat16, causal\n\n{_by_scheme(cells)}"
        for (length, head_dim, heads, batch, which), cells in of_shape.items()
    ]


def _steps(records) -> list[str]:
    if not records:
        return []
    rows = [
        [
            f"`{r['scheme']}`",
            f"{r['parameters'] / 1e6:.1f}M",
            f"{r['batch']} x {r['length']}",
            r["ms"],
            f"{r['tokens_per_second']:,}",
            "" if r["mfu"] is None else f"{100 * r['mfu']:.1f} %",
        ]
        for r in records
    ]
    names = ["scheme", "parameters", "batch", "ms", "tokens a second", "MFU"]
    return ["## Training step\n\n" + _table(names, rows)]


def _checks(records) -> list[str]:
    if not records:
        return []
    cells = {(r["scheme"], r["implementation"]): _verdict(r) for r in records}
    title = "## Largest distance from exact attention, values and gradients\n\n"
    return [title + _by_scheme(cells)]


def _by_scheme(cells: dict[tuple[str, str], str]) -> str:
    """Returns a table of cells, which are given by scheme and column, in the order of the cells."""
    schemes, columns = (dict.fromkeys(names) for names in zip(*cells, strict=True))
    rows = [
        [f"`{name}`", *(cells.get((name, column), "") for column in columns)] for name in schemes
    ]
    return _table(["scheme", *columns], rows)


def _verdict(record) -> str:
    if record["is_ok"] is None:
        return "refused"
    if "distance" not in record:
        return "**error**"
    figure = f"{record['distance']:.1e}"
    return figure if record["is_ok"] else f"**{figure}**"


def _list(title, records, names) -> list[str]:
    lines = [f"- {', '.join(str(r[name]) for name in names)}: {r['reason']}" for r in records]
    return [f"## {title}\n\n" + "\n".join(dict.fromkeys(lines))] if lines else []


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table in Markdown."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
