"""What the tests must know of each scheme: a module for each family, read by ``common``.

To bring a new scheme under the tests, add it to ``SCHEMES`` of its family's module.
"""

import importlib
import pkgutil

from schemes.equations import Scheme

ALL: dict[str, Scheme] = {}
for _module in pkgutil.iter_modules(__path__):
    ALL |= getattr(importlib.import_module(f"schemes.{_module.name}"), "SCHEMES", {})
