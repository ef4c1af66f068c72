"""Sphinx's settings. Nothing here needs a network, and neither do the pages."""

import shutil
from importlib.metadata import files
from pathlib import Path

from numpydoc.xref import DEFAULT_LINKS

import pymc_isomix

project = "pymc-isomix"
author = "The pymc-isomix developers"
copyright = author
version = release = pymc_isomix.__version__

extensions = [
    "myst_parser",
    "numpydoc",  # unlike napoleon it keeps the numbered references of several docstrings apart
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = True  # a reference without a target fails the build
nitpick_ignore_regex = [  # base classes without a page
    ("py:.*", r"pymc\.(variational|\w+$).*"),
    ("py:class", r"pymc_isomix\.interface\.approximation\.Fitted"),
]
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types and shapes

# The few names that the docstrings link to; inventories in text, since the build has no network.
INVENTORIES = {
    "arviz_plots": "https://python.arviz.org/projects/plots/en/stable",
    "numpy": "https://numpy.org/doc/stable",
    "pymc": "https://www.pymc.io/projects/docs/en/stable",
    "xarray": "https://docs.xarray.dev/en/stable",
}
intersphinx_mapping = {
    name: (address, f"_inventories/{name}.txt") for name, address in INVENTORIES.items()
}
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"  # words such as "optional"; types are linked by these aliases
numpydoc_xref_aliases = {
    "DataTree": "xarray.DataTree",
    "Diagnostics": "pymc_isomix.results.verdict.Diagnostics",
    "Generator": "numpy.random.Generator",
    "IsotropicMixture": "pymc_isomix.IsotropicMixture",
    "JoinedMixture": "pymc_isomix.JoinedMixture",
    "Mixture": "pymc_isomix.family.mixture.Mixture",
    "PlotCollection": "arviz_plots.PlotCollection",
    "PlotMatrix": "arviz_plots.PlotMatrix",
    "pymc.Model": "pymc.model.core.Model",
    "xarray.DataTree": ".xarray.DataTree",  # a target equal to its name would not be linked
}
DEFAULT_LINKS.clear()  # numpydoc's own, of int and str, to Python's documentation

copybutton_prompt_text = ">>> |\\.\\.\\. "
copybutton_prompt_is_regexp = True
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"  # not what code prints

html_theme = "furo"
html_title = f"pymc-isomix {release}"
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
