"""Sphinx configuration of the site. build.py collects the sources."""

import llmlab

project = "llmlab"
author = "the llmlab authors"
copyright = "the llmlab authors, Apache-2.0"  # noqa: A001 - Sphinx's own name
version = release = llmlab.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"llmlab {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"},
    "dark_css_variables": {"color-brand-primary": "#79b8ff", "color-brand-content": "#79b8ff"},
}
pygments_style, pygments_dark_style = "tango", "github-dark"

# The notebooks are already executed (build.py); Sphinx runs none.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # no external scripts: the site works offline
nb_merge_streams = True
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline", "attrs_block"]
# Records have their own MIME type next to the displayed text; the type `bytes` is also the name of two attributes.
suppress_warnings = ["mystnb.unknown_mime_type", "ref.python"]
highlight_language = "text"

# Docstrings: Google style, with `names` in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = False  # signatures generated at run time have no defaults in the source
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_preprocess_types = False

# Every reference in the pages must resolve. Types in signatures are names in the code, linked if possible.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r".*")]
