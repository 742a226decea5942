"""Sphinx extension: the built site needs no network and carries no script it does not use."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

MATHJAX_FILES = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put MathJax, its fonts and its TeX extensions into the site's static files."""
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "mathjax"
    with as_file(files("mathjax") / "static" / "mathjax" / "es5") as source:
        for name in MATHJAX_FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name, dirs_exist_ok=True)
            else:
                shutil.copy2(source / name, target / name)


def disconnect_thebe(app: Sphinx, config: Any) -> None:
    """Jupyter Book always loads sphinx-thebe, whose scripts point at a content delivery network."""
    for name, listeners in app.events.listeners.items():
        app.events.listeners[name] = [
            listener for listener in listeners if not listener.handler.__module__.startswith("sphinx_thebe")
        ]


def name_remote_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Pictures of other sites, such as a notebook's badges, become their text."""
    for image in [node for node in doctree.findall(nodes.image) if "://" in node["uri"]]:
        image.replace_self(nodes.Text(image.get("alt", image["uri"])))


def drop_unused(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Leave out thebe's style and the state of live widgets: pages show each widget's self-contained HTML."""
    context["css_files"] = [
        style for style in context.get("css_files", []) if "sphinx-thebe" not in str(style.filename)
    ]
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if getattr(script, "attributes", {}).get("type") != "application/vnd.jupyter.widget-state+json"
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks."""
    app.connect("config-inited", disconnect_thebe, priority=0)
    app.connect("doctree-read", name_remote_pictures)
    app.connect("html-page-context", drop_unused, priority=900)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
