"""The manual: `uv run --group docs sphinx-build -W docs build/manual`. No network is needed to build or to read it."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
from parts import fill_in

project = "tl_lightning"
html_title = "tl_lightning"
copyright = "the authors of tl_lightning"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"  # the reader's own fonts; nothing is fetched
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 3
nitpicky = False  # our docstrings name what other packages do not document
default_role = "literal"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_use_ivar = True


def _fill_in(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = fill_in(source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx: pages take their tables of commands and settings from the code."""
    app.connect("source-read", _fill_in)
