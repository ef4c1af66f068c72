"""Sphinx's settings. Nothing here needs a network, and neither do the pages."""

import shutil
from importlib.metadata import files
from pathlib import Path

import pymc_isomix

project = "pymc-isomix"
author = "The pymc-isomix developers"
copyright = author
version = release = pymc_isomix.__version__

extensions = [
    "myst_parser",
    "numpydoc",  # unlike napoleon it keeps the numbered references of several docstrings apart
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = True  # a reference without a target fails the build; those of others are not looked up
nitpick_ignore_regex = [("py:.*", r"(arviz_plots|pymc)\..*")]
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types and shapes

html_theme = "furo"
html_title = "pymc-isomix"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
pygments_dark_style = "github-dark"
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {
        "color-brand-primary": "#2a6fc9",
        "color-brand-content": "#2a6fc9",
    },
    "dark_css_variables": {
        "color-brand-primary": "#6aa9f4",
        "color-brand-content": "#6aa9f4",
    },
}
mathjax_path = "mathjax.js"  # MathJax with its fonts in one file, from a package
mathjax4_config = {"output": {"linebreaks": {"inline": False}}}


def copy_mathjax(app):
    """Lay MathJax beside the pages, so that formulas need no network."""
    if app.builder.format == "html":
        (script,) = (
            f for f in files("sphinx-mathjax-offline") if f.match("mathjax/tex-svg-full.js")
        )
        target = Path(app.outdir, "_static", mathjax_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(script.locate(), target)


def setup(app):
    """Called by Sphinx."""
    app.connect("builder-inited", copy_mathjax)
