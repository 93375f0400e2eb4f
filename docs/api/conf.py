"""Sphinx's settings for the pages of the Python interface: `make docs`."""

import ion_d2

project = "ion_d2"
author = "The ion_d2 authors"
release = ion_d2.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
html_theme = "alabaster"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # or else fields of tuples stand there twice
