"""How the documentation is built: `sphinx-build -W -b html docs docs/_build/html`."""

import tomllib
from pathlib import Path

with (Path(__file__).parent.parent / "pyproject.toml").open("rb") as file:
    package = tomllib.load(file)["project"]

project = package["name"]
release = version = package["version"]
author = f"The authors of {project}"
copyright = author

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True
default_role = "code"
primary_domain = "py"
add_module_names = False
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 60

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_favicon = "_static/once.svg"
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_logo": "once.svg",
    "dark_logo": "once.svg",
    "light_css_variables": {
        "color-brand-primary": "#0b6b53",
        "color-brand-content": "#0b6b53",
        "color-brand-visited": "#0b6b53",
        "color-api-name": "#0b6b53",
        "color-api-pre-name": "#4f7d70",
    },
    "dark_css_variables": {
        "color-brand-primary": "#5fd0ae",
        "color-brand-content": "#5fd0ae",
        "color-brand-visited": "#5fd0ae",
        "color-api-name": "#5fd0ae",
        "color-api-pre-name": "#8fb8ab",
    },
}
