"""Sphinx extension: Open Graph tags, so that a shared link shows title, description and picture."""

from __future__ import annotations

from html import escape
from urllib.parse import urljoin

from docutils import nodes
from sphinx.application import Sphinx

PICTURE = "_static/social.png"
PICTURE_TEXT = "A simulated brain scan, the scan with noise in a box, its reconstruction and the anomaly map"
LONGEST = 200  # characters of a description


def describe(doctree: nodes.document) -> str:
    """The first paragraph of a page that is more than links, as plain text, cut after a word."""
    text = next((node.astext() for node in doctree.findall(nodes.paragraph) if not is_links(node)), "")
    words = " ".join(text.replace("$", "").split())
    return words if len(words) <= LONGEST else words[:LONGEST].rsplit(" ", 1)[0] + " …"


def is_links(paragraph: nodes.paragraph) -> bool:
    """Whether there are only links in it, as in a chapter's badges."""
    return all(isinstance(node, nodes.reference) or not node.astext().strip() for node in paragraph.children)


def add_tags(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Tags of one page. Addresses are absolute where the site's own is known, as previews need them."""
    if doctree is None:
        return
    base = app.config.html_baseurl
    description = describe(doctree)
    tags = {
        "og:type": "article",
        "og:site_name": app.config.html_title or app.config.project,
        "og:title": app.env.titles[page].astext(),
        "og:description": description,
        "og:image": urljoin(base, PICTURE) if base else context["pathto"](PICTURE, resource=True),
        "og:image:alt": PICTURE_TEXT,
        "og:image:width": "1200",
        "og:image:height": "630",
    }
    if base:
        tags["og:url"] = urljoin(base, f"{page}.html")
    lines = [f'<meta property="{name}" content="{escape(value)}" />' for name, value in tags.items()]
    lines += [
        '<meta name="twitter:card" content="summary_large_image" />',
        f'<meta name="description" content="{escape(description)}" />',
    ]
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hook."""
    app.connect("html-page-context", add_tags)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
