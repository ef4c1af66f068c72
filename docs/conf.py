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
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types and shapes

html_theme = "furo"
html_title = f"pymc-isomix {release}"
