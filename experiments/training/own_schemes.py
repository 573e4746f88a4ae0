"""Makes a scheme in a user's own file known by name, without a change to the registry."""

import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from posenc_jax import REGISTRY, Encoding


def register(names: Iterable[str]) -> None:
    """Registers each name that is not known yet as the scheme in the current folder's NAME.py.

    Raises a ValueError if the file has another kind of name or that of a scheme of the registry,
    cannot be imported, or does not define one scheme.
    """
    for name in names:
        path = Path(f"{name}.py")
        if digest(name) is not None or not path.is_file():
            continue  # ``lookup`` says which names are known
        if name in REGISTRY:
            # A file may be called ``path.py`` or ``string.py`` and have nothing to do with schemes.
            if "Encoding" in path.read_text(errors="replace"):
                raise ValueError(
                    f"{name} is a scheme of the registry, and {path} looks like another one: give "
                    "the file another name"
                )
            continue
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                f"{path} cannot be a scheme: its name must have lower-case letters, digits and _ "
                "alone, and begin with a letter"
            )
        REGISTRY[name] = f"{name}:{_scheme_in(name, path)}"


def digest(name: str) -> str | None:
    """Returns the SHA-256 of the file of a scheme that ``register`` has found; None for others."""
    if not REGISTRY.get(name, "").startswith(f"{name}:"):
        return None
    file = sys.modules[name].__file__
    assert file is not None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def register_again(name: str, before: str) -> None:
    """Registers the scheme of a run that is read back, from its file in the current folder.

    ``before`` is the digest of the file that the run was trained with. Raises a ValueError if there
    is no such file, or another one.
    """
    register([name])
    if (now := digest(name)) != before:
        there = "there is none" if now is None else "this one was changed since"
        raise ValueError(
            f"the run was trained with a scheme in a file {name}.py, and {there} in {Path.cwd()}: "
            "start the command in the folder that has the file as it was"
        )


def _scheme_in(name: str, path: Path) -> str:
    """Imports a file as the module ``name``, and returns the name of its scheme."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends by ``sys.exit`` is no scheme
        del sys.modules[name]
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    schemes = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Encoding) and value.__module__ == name
    ]
    if len(schemes) != 1:
        raise ValueError(
            f"{path} must define one scheme, a subclass of posenc_jax.Encoding, and has "
            f"{', '.join(schemes) or 'none'}"
        )
    return schemes[0]
