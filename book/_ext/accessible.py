"""Sphinx extension: mends markup that a screen reader would stumble over."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# Docutils calls a bibliography a list, though it holds no list items; its entries have a role of their own.
BEFORE, AFTER = '<div role="list" class="citation-list">', '<div class="citation-list">'


def drop_list_role(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Mend the bibliography of a page."""
    if "body" in context:
        context["body"] = context["body"].replace(BEFORE, AFTER)


def name_toggles(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Give the arrows that unfold a part of the sidebar a name; they hold nothing but a picture."""
    make = context.get("generate_toctree_html")
    if make is None:
        return

    def make_named(*args: Any, **options: Any) -> str:
        return str(make(*args, **options)).replace("<summary>", '<summary aria-label="pages of this part">')

    context["generate_toctree_html"] = make_named


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks."""
    app.connect("html-page-context", drop_list_role)
    app.connect("html-page-context", name_toggles, priority=900)  # after the theme has put its function there
    return {"parallel_read_safe": True, "parallel_write_safe": True}
