"""Writes the types of ``make``, with the keywords of every scheme, for editors and type checkers.

    python -m docs.site.stub

writes posenc_jax/registry.pyi anew. A test compares that file with the registry.
"""

import ast
import inspect
import re
from pathlib import Path
from typing import Any, get_type_hints

from posenc_jax import registry
from posenc_jax.encoding import Encoding

PATH = Path(registry.__file__).with_suffix(".pyi")
_HEAD = """# Written by `python -m docs.site.stub`.
from collections.abc import Sequence
from typing import Literal, overload
import jax
"""


def stub() -> str:
    """Returns the stub: the module without bodies, with one ``make`` for each scheme."""
    body: list[ast.stmt] = []
    for statement in ast.parse(Path(registry.__file__).read_text()).body:
        match statement:
            case ast.Import() | ast.ImportFrom():
                body.append(statement)
            case ast.FunctionDef(name="make"):
                body += _makes()
            case ast.FunctionDef() if not statement.name.startswith("_"):
                body.append(_without_body(statement))
            case ast.ClassDef():
                body.append(_without_body(statement))
            case ast.Assign() | ast.AnnAssign():
                body += _declared(statement)
    return _HEAD + ast.unparse(ast.Module(body, [])) + "\n"


def _makes() -> list[ast.stmt]:
    """Returns a ``make`` for each scheme, and one for names that are known at run time only.

    The last one has sizes and no other keyword, and returns Any: with any keyword it would take
    misspelt ones.
    """
    classes = {_made(name) for name in registry.REGISTRY}
    lines = sorted(f"from {made.__module__} import {made.__name__}" for made in classes)
    for name in registry.REGISTRY:
        accepted = registry.signature(name).parameters
        arguments = [_argument(parameter) for parameter in accepted.values()]
        arguments += [
            f"{size}: int | None = ..." for size in registry.SIZES if size not in accepted
        ]
        arguments += [] if "rngs" in accepted else ["rngs: nnx.Rngs | None = ..."]
        lines += ["@overload", _make(f"Literal[{name!r}]", arguments, _made(name).__name__)]
    sizes = [f"{size}: int | None = ..." for size in registry.SIZES]
    lines += ["@overload", _make("str", [*sizes, "rngs: nnx.Rngs | None = ..."], "Any")]
    return ast.parse("\n".join(lines)).body


def _make(name: str, arguments: list[str], made: str) -> str:
    return f"def make(name: {name}, *, {', '.join(arguments)}) -> {made}: ..."


def _made(name: str) -> type:
    """Returns the class of what ``make(name)`` builds."""
    build: Any = registry.lookup(name)
    if not isinstance(build, type):
        return get_type_hints(build)["return"]
    return build if issubclass(build, Encoding) else registry.RoPE


def _argument(parameter: inspect.Parameter) -> str:
    """Returns a keyword as it is declared; ``over`` also takes names and mappings."""
    kind = parameter.annotation
    text = kind.__name__ if isinstance(kind, type) else str(kind)
    text = re.sub(r"\b[\w.]+\.(?=\w)", "", text).replace("Array", "jax.Array")
    text = text.replace("Rngs", "nnx.Rngs | None")
    if parameter.name == "over":
        text = "Encoding | str | Mapping[str, Any]"
    is_needed = parameter.default is inspect.Parameter.empty
    return f"{parameter.name}: {text}" + ("" if is_needed else " = ...")


def _without_body(statement: ast.FunctionDef | ast.ClassDef) -> ast.stmt:
    """Returns a function without its code, or a class with its fields and methods alone."""
    if isinstance(statement, ast.ClassDef):
        statement.body = [
            _without_body(part) if isinstance(part, ast.FunctionDef) else part
            for part in statement.body
            if isinstance(part, ast.FunctionDef | ast.AnnAssign)
        ]
    else:
        statement.body = [ast.Expr(ast.Constant(...))]
    return statement


def _declared(statement: ast.Assign | ast.AnnAssign) -> list[ast.stmt]:
    """Returns the declaration of a public name."""
    if isinstance(statement, ast.Assign):
        (target,) = statement.targets
        name = ast.unparse(target)
        kinds = {"REGISTRY": "dict[str, str]", "SIZES": "tuple[str, ...]"}
        return ast.parse(f"{name}: {kinds[name]}").body if name in kinds else []
    statement.value = None
    return [] if ast.unparse(statement.target).startswith("_") else [statement]


if __name__ == "__main__":
    PATH.write_text(stub())
