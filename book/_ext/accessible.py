"""Sphinx extension: mends markup that a screen reader would stumble over."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# Docutils calls a bibliography a list, though it holds no list items, and gives its entries a role that is withdrawn.
_ROLES = re.compile(r'(?<=<div) role="list"(?= class="citation-list")| role="doc-biblioentry"')
# The corner of a table with names on both sides.
_EMPTY_HEADER = re.compile(r"<th([^>]*)>\s*(?:<p>\s*</p>|&nbsp;|\xa0)?\s*</th>")


def mend_body(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Mend the bibliography and the tables of a page."""
    if "body" in context:
        context["body"] = _EMPTY_HEADER.sub(r"<td\1></td>", _ROLES.sub("", context["body"]))


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
    app.connect("html-page-context", mend_body)
    app.connect("html-page-context", name_toggles, priority=900)  # after the theme has put its function there
    return {"parallel_read_safe": True, "parallel_write_safe": True}
