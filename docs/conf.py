"""Sphinx configuration."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from ifujax import __version__  # noqa: E402

project = "ifujax"
author = "ifujax developers"
copyright = "2026, ifujax developers"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "myst_parser",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
suppress_warnings = ["config.cache"]  # the gallery's settings can't be kept between builds

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings give types, with shapes and units
numpydoc_show_class_members = False
numpydoc_xref_param_type = False


def figures_of_block(block, block_vars, gallery_conf):
    """Save the figures that a block of an example has made; pyplot, where the gallery would look, doesn't know them."""
    from matplotlib.figure import Figure
    from sphinx_gallery.scrapers import figure_rst

    seen = block_vars.setdefault("figures_seen", set())
    saved = []
    for value in block_vars["example_globals"].values():
        if isinstance(value, Figure) and id(value) not in seen:
            seen.add(id(value))
            saved.append(next(block_vars["image_path_iterator"]))
            value.savefig(saved[-1], dpi=100)
    return figure_rst(saved, gallery_conf["src_dir"])


sphinx_gallery_conf = {
    "image_scrapers": (figures_of_block,),
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"[\\/][0-9][0-9]_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"ifujax {__version__}"
html_static_path = ["_static"]
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False}
