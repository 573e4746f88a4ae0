"""Lists the small errors that can be made in a file: operators, numbers, comparisons, names.

Nothing is changed where a change could only make another error message: ``raise``, an ``if`` that
only raises, calls of ``check_*`` and ``count_of``, asserts, docstrings, annotations, decorators.
"""

import ast
import copy
import dataclasses
from collections.abc import Iterator

_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_PAIRS = [
    ("sin", "cos"),
    ("minimum", "maximum"),
    ("min", "max"),
    ("floor", "ceil"),
    ("log", "log1p"),
    ("half", "interleaved"),
    ("q_tokens", "k_tokens"),
    ("argmin", "argmax"),
]
_NAMES = dict(_PAIRS) | {second: first for first, second in _PAIRS}


@dataclasses.dataclass(frozen=True)
class Change:
    """Describes one small error: where it is, and the source before and after it."""

    path: str
    scope: str  # the class or function around it at the top of the file, or ""
    line: int
    start: int  # of the changed expression, in bytes of the file
    end: int
    before: str
    after: str

    def applied(self, source: bytes) -> bytes:
        """Returns the file with the error."""
        return source[: self.start] + f"({self.after})".encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}  {self.before}  ->  {self.after}"


def changes_in(path: str, source: bytes) -> list[Change]:
    """Returns every small error that can be made in a file."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    changes = []
    for top in ast.parse(source).body:
        scope = getattr(top, "name", "")
        for node in _expressions(top):
            begin = starts[node.lineno - 1] + node.col_offset
            assert node.end_lineno is not None and node.end_col_offset is not None
            end = starts[node.end_lineno - 1] + node.end_col_offset
            for other in _others(node):
                words = ast.unparse(node), ast.unparse(other)
                changes.append(Change(path, scope, node.lineno, begin, end, *words))
    return changes


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """Returns the expressions in which an error could change what is computed."""
    match node:
        case ast.Raise() | ast.Assert() | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return
        case ast.If(body=[ast.Raise()], orelse=rest):
            children: list = rest
        case ast.Expr(value=ast.Constant()) | ast.keyword(arg="strict"):  # of zip, a check
            return
        case ast.Expr(value=ast.Call()) | ast.Call() if _checks(node):
            return
        case ast.FunctionDef(name=name) if _is_check(name):
            return
        case ast.FunctionDef(args=arguments, body=body):
            children = [*arguments.defaults, *filter(None, arguments.kw_defaults), *body]
        case ast.ClassDef(body=body):
            children = body
        case ast.AnnAssign(value=value):
            children = [] if value is None else [value]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            yield node
            return
        case _:
            children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.expr):
        yield node
    for child in children:
        yield from _expressions(child)


def _checks(node) -> bool:
    call = node.value if isinstance(node, ast.Expr) else node
    return _is_check(getattr(call.func, "id", getattr(call.func, "attr", "")))


def _is_check(name: str) -> bool:
    return name.lstrip("_").startswith(("check", "count_of", "field", "partial", "TypeVar"))


def _others(node: ast.expr) -> Iterator[ast.expr]:
    """Returns the expressions that somebody could have written by mistake."""
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in _OPERATORS:
            yield _replaced(node, op=_OPERATORS[type(op)]())
        case ast.Compare(ops=[op]):
            yield _replaced(node, ops=[_OPERATORS[type(op)]()])
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield _replaced(node, body=orelse, orelse=body)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(_another(value))
        case ast.Constant(value=str(word)) if word in _NAMES:
            yield ast.Constant(_NAMES[word])
        case ast.Attribute(attr=word) if word in _NAMES:
            yield _replaced(node, attr=_NAMES[word])
        case ast.Call(func=ast.Name(id=("min" | "max") as word)):
            yield _replaced(node, func=ast.Name(_NAMES[word]))
        case ast.Set(elts=[_, *rest]) if rest:
            yield _replaced(node, elts=rest)
        case ast.Dict(keys=[_, *keys], values=[_, *values]) if keys:
            yield _replaced(node, keys=keys, values=values)


def _another(value: float) -> float:
    """Returns another number: twice as large, or large enough to show if it is tiny."""
    if value == 0:
        return 1.0
    return value * (2 if abs(value) > 1e-4 else 1000)


def _replaced(node, **fields):
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other
