"""Fills the templates of pages, which lie in the folder of this name."""

from pathlib import Path
from typing import Any

import jinja2


def fill(name: str, **values: Any) -> str:
    """Returns the template ``name`` with these values; text in them is escaped for HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_suffix("")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(name).render(values)
