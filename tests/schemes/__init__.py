"""Holds what the tests know of each scheme: a module for each family, read by ``common``.

To compare a new scheme with its paper's equation, add it to ``SCHEMES`` of a module here, its
family's or a new one. Until then the property tests take it to be ordinary and test no keyword of
its own, and ``test_float64`` says what is missing.
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
