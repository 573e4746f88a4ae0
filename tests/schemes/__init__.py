"""What the tests must know of each scheme: a module for each family, read by ``common``.

To bring a new scheme under all tests, add it to ``SCHEMES`` of its family's module. Until then the
property tests take it to be ordinary, and ``test_float64`` says what is missing.
"""

import importlib
import pkgutil

from schemes.equations import NoPE, Scheme


class _Schemes(dict[str, Scheme]):
    def __missing__(self, name):
        return Scheme(NoPE(), [])


ALL = _Schemes()
for _module in pkgutil.iter_modules(__path__):
    ALL.update(getattr(importlib.import_module(f"schemes.{_module.name}"), "SCHEMES", {}))
