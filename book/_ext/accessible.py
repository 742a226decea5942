"""Sphinx extension: mends markup that a screen reader would stumble over."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx

# Docutils calls a bibliography a list, though it holds no list items; its entries have a role of their own.
BEFORE, AFTER = '<div role="list" class="citation-list">', '<div class="citation-list">'


def drop_list_role(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Mend the bibliography of a page."""
    if "body" in context:
        context["body"] = context["body"].replace(BEFORE, AFTER)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hook."""
    app.connect("html-page-context", drop_list_role)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
