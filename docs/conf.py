"""Configures Sphinx, which builds the site from the pages of this folder: ``make site``."""

import importlib.util
import logging
import os
import sys
from pathlib import Path

from jupyter_client.manager import KernelManager

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import posenc_jax  # noqa: E402

project = "posenc_jax"
author = "the authors of posenc_jax"
version = release = posenc_jax.__version__
copyright = f"{author}, Apache 2.0"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docs.site.extension",
]
exclude_patterns = ["site"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

# Tutorials run, and a cell that fails stops the build; a page that has not changed runs once. Their
# kernels import from this checkout, and keep to the CPU.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 180
nb_merge_streams = True
os.environ["PYTHONPATH"] = str(ROOT)
logging.getLogger("traitlets").setLevel(logging.WARNING)  # says nothing of each page that runs
# A kernel whose connection is not encrypted would warn of that at every page.
KernelManager.transport_encryption.default_value = "auto"

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of dataclasses are members already
napoleon_custom_sections = [("Class attributes", "params_style")]

# MathJax comes with a package of the index, as one file that draws SVG: a browser does not load
# fonts from the folder above a page that is opened as a file.
_MATHJAX = importlib.util.find_spec("sphinx-mathjax-offline")
assert _MATHJAX is not None and _MATHJAX.origin is not None
html_static_path = ["_static", str(Path(_MATHJAX.origin).parent / "static/mathjax/tex-svg.js")]
mathjax_path = "tex-svg.js"
mathjax3_config = {"svg": {"fontCache": "global"}, "options": {"enableMenu": False}}

html_theme = "furo"
html_title = "posenc_jax"
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
# A summary would be read from the pages by requests, which a browser refuses to files.
html_show_search_summary = False
html_theme_options = {"navigation_with_keys": True}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
