"""How Sphinx builds the documentation: ``sphinx-build -W -b html docs docs/_build/html``."""

from acclimate import __version__

project = "acclimate"
author = "the acclimate authors"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
add_module_names = False

html_theme = "furo"
html_title = f"acclimate {release}"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["page.css"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"
