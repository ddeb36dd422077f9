"""The documentation site: `./run docs` builds it into docs/_build/html, with every warning an error."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

import upweight  # noqa: E402

project = "upweight"
author = "the upweight developers"
copyright = "the upweight developers, Apache-2.0"
version = release = upweight.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "site_pages.extension",
]
exclude_patterns = ["_build", "site_pages", "README.md"]
suppress_warnings = ["ref.python"]  # several classes have an attribute of the same name
default_role = "code"
smartquotes = False  # --json is an option, not a dash

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # links to headings, as GitHub makes their names
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# The objects of a page are not in the navigation: every page carries all of it, which takes a third of a build.
toc_object_entries = False
python_maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = "upweight"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
templates_path: list[str] = []
