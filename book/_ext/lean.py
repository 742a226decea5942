"""Sphinx extension: a page loads only what it uses. The theme sends every page all icons twice, and the search index.

Icons stay those of the theme's style sheet; its font keeps the ones that some page shows. Formulas are set only where
there are formulas, or outputs of a notebook, which may hold some.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx

MATHS = (nodes.math, nodes.math_block)
EVERYWHERE = r"\s*<script[^>]*scripts/fontawesome\.js[^>]*></script>"
BUT_SEARCH = r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>'
ICON_RULE = re.compile(r'(?:\.fa-[a-z0-9-]+:before,?)+\{content:"(\\[0-9a-f]+|[^"]*)"\}')
MADE_BY_SCRIPTS = {"fa-xmark"}
PRIVATE_USE = ("\ue000", "\uf8ff")  # where icons are; the style sheet holds those of notes as they are
FONTS = Path("_static/vendor/fontawesome/webfonts")
STYLE = Path("_static/styles/pydata-sphinx-theme.css")


def drop_maths(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Leave MathJax out of a page without formulas."""
    notebook = doctree is not None and Path(app.env.doc2path(page)).suffix == ".ipynb"
    if notebook or (doctree is not None and any(True for kind in MATHS for _ in doctree.findall(kind))):
        return
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "mathjax" not in str(getattr(script, "filename", script))
        and "MathJax" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]


def trimmed_style(style: str, used: set[str]) -> tuple[str, set[int]]:
    """The style sheet with the rules of these icons only, and the characters that it still draws with."""

    def kept(match: re.Match) -> str:
        names = set(re.findall(r"fa-[a-z0-9-]+", match[0]))
        return match[0] if names & used else ""

    style = ICON_RULE.sub(kept, style)
    named = {int(code, 16) for code in re.findall(r"\\([0-9a-f]{2,5})", style)}
    return style, named | {ord(sign) for sign in style if PRIVATE_USE[0] <= sign <= PRIVATE_USE[1]}


def small_font(source: Path, characters: set[int]) -> None:
    """Replace a TrueType font by its part that draws these characters."""
    font = TTFont(source)
    options = subset.Options(notdef_outline=True, layout_features=[])
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=characters)
    chosen.subset(font)
    font.save(source)


def make_lean(app: Sphinx, error: Exception | None) -> None:
    """Take out of the built pages and of the theme's files what no page uses."""
    out = Path(app.outdir)
    if error is not None or app.builder.format != "html" or not (out / STYLE).is_file():
        return
    used = set(MADE_BY_SCRIPTS)
    for path in out.rglob("*.html"):
        text = old = path.read_text(encoding="utf-8")
        used |= set(re.findall(r"\bfa-[a-z0-9-]+", text))
        text = re.sub(EVERYWHERE, "", text)
        if path.name != "search.html":
            text = re.sub(BUT_SEARCH, "", text)
        if text != old:
            path.write_text(text, encoding="utf-8")
    style, characters = trimmed_style((out / STYLE).read_text(encoding="utf-8"), used)
    style = re.sub(r'url\(\.\./vendor/fontawesome/webfonts/fa-solid-900\.woff2\) format\("woff2"\),', "", style)
    (out / STYLE).write_text(style, encoding="utf-8")
    small_font(out / FONTS / "fa-solid-900.ttf", characters)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks; the files are changed after all others were written."""
    app.connect("html-page-context", drop_maths, priority=950)
    app.connect("build-finished", make_lean, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
