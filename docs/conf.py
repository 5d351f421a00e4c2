"""How Sphinx makes the documentation site: ``sphinx-build -W -b html docs public``."""

import sys
from pathlib import Path

import fastconv

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

project = "fastconv"
author = "the fastconv developers"
version = release = fastconv.__version__

extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc",
    "sphinx_copybutton", "site_pages",
]  # fmt: skip
templates_path = ["_templates"]
exclude_patterns = ["public", "_build"]
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "furo"
html_title = f"fastconv {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"
html_show_copyright = False
