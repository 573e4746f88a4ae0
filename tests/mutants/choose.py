"""Chooses errors, some for every scheme and every part, and the tests that should notice them."""

import ast
import functools
import pathlib
import random
import re

from tests.mutants.changes import Change, changes_in

from posenc_jax.registry import PATTERNS, REGISTRY

ROOT = pathlib.Path(__file__).parents[2]
PARTS = (
    "encodings",
    "attention",
    "hf",
    "pretrained",
    "model/decode.py",
    "model/cache.py",
    "lookup.py",
)
LEAST = 3  # errors in every scheme, and in every file beside the schemes
LINES = 25  # of a file beside the schemes for one error, where that is more


def chosen(seed: int) -> list[Change]:
    """Returns at least three errors in each scheme and each file, the same for each seed.

    A scheme with too little code of its own gets errors in what it calls in its file. ``nope`` gets
    none: it is the base class, whose hooks return what they are given, and has nothing to compute.
    """
    picked: list[Change] = []
    for path in files():
        rng = random.Random(f"{seed} {path}")  # no file changes what is chosen in another
        left = changes_in(path, (ROOT / path).read_bytes())
        for scope in scopes(path):
            inside = [change for change in left if change.scope == scope]
            few = rng.sample(inside, min(LEAST, len(inside)))
            others = _called(path, scope)
            called = [change for change in left if change.scope in others]
            few += rng.sample(called, min(LEAST - len(few), len(called)))
            picked += few
            left = [change for change in left if change not in few]
        lines = (ROOT / path).read_text().count("\n")
        count = max(LEAST, lines // LINES) - (LEAST * len(scopes(path)))
        picked += rng.sample(left, max(0, min(count, len(left))))
    return picked


def sample(changes: list[Change], count: int, seed: int) -> list[Change]:
    """Returns ``count`` of the errors, the same ones as long as their files stay."""

    def number(change):
        return random.Random(f"{seed} {change.path} {change.start} {change.after}").random()

    return sorted(changes, key=number)[:count]


@functools.cache
def files() -> list[str]:
    """Returns the files that are changed, as paths from the root."""
    parts = [ROOT / "posenc_jax" / part for part in PARTS]
    every = [f for part in parts for f in ([part] if part.is_file() else part.rglob("*.py"))]
    return sorted(str(f.relative_to(ROOT)) for f in every)


def scopes(path: str) -> list[str]:
    """Returns the classes and functions of a file that the registry names."""
    return sorted({attribute for _, module, attribute in _registered() if module == path})


def _called(path: str, scope: str) -> frozenset[str]:
    """Returns the other classes and functions of a file that one of them names."""
    tops = {getattr(top, "name", ""): top for top in ast.parse((ROOT / path).read_bytes()).body}
    if scope not in tops:
        return frozenset()
    names = {node.id for node in ast.walk(tops[scope]) if isinstance(node, ast.Name)}
    return frozenset(names & tops.keys() - {scope})


def schemes_of(change: Change) -> list[str]:
    """Returns the schemes that an error is in, or one of each file that imports it."""
    in_file = {name: scope for name, path, scope in _registered() if path == change.path}
    if in_file:
        return [name for name, scope in in_file.items() if scope == change.scope] or [*in_file]
    first: dict[str, str] = {}
    for name, path, _ in _registered():
        if name not in PATTERNS and change.path in _imports(path):
            first.setdefault(path, name)
    fewest = sorted((len(_imports(path)), name) for path, name in first.items())
    return [name for _, name in fewest[:4]]


def words_of(change: Change) -> list[str]:
    """Returns regular expressions; a test file is about an error if one of them matches."""
    stem = pathlib.PurePath(change.path).with_suffix("")
    module = str(stem).replace("/", ".").removesuffix(".__init__")
    parent, _, last = module.rpartition(".")
    in_file = [name for name, path, _ in _registered() if path == change.path]
    names = [rf"[\"']{re.escape(name)}[\"']" for name in in_file]
    imported = [rf"\b{re.escape(module)}\b", rf"from {re.escape(parent)} import .*\b{last}\b"]
    return [*imported, *names, *([rf"\b{change.scope}\b"] if change.scope.istitle() else [])]


def is_about(text: str, words: list[str]) -> bool:
    """Says whether the source of a test has one of the words."""
    return any(re.search(word, text) for word in words)


def takes_schemes(file: pathlib.Path) -> bool:
    """Says whether a test file runs schemes one by one."""
    return bool(re.search(r"\bSCHEMES\b|schemes\.ALL|one_of_each", file.read_text()))


@functools.cache
def _registered() -> list[tuple[str, str, str]]:
    """Returns name, path and attribute of all that is registered."""
    rows = []
    for name, target in REGISTRY.items():
        module, _, attribute = target.partition(":")
        rows.append((name, module.replace(".", "/") + ".py", attribute))
    return rows


@functools.cache
def _imports(path: str) -> frozenset[str]:
    """Returns the files of the library that a file imports, and the files that these import."""
    reached: set[str] = set()
    todo = [path]
    while todo:
        for other in _imported_by(todo.pop()) - reached:
            reached.add(other)
            todo.append(other)
    return frozenset(reached)


@functools.cache
def _imported_by(path: str) -> frozenset[str]:
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    stems = [name.replace(".", "/") for name in names if name.startswith("posenc_jax")]
    both = [form for stem in stems for form in (f"{stem}.py", f"{stem}/__init__.py")]
    return frozenset(form for form in both if (ROOT / form).is_file())
