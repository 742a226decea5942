"""Sphinx extension: the address of a page that is now part of another leads there."""

from __future__ import annotations

import posixpath
from pathlib import Path

from sphinx.application import Sphinx

MOVED = {"book/leaderboard": "book/results.html#every-run"}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Moved</title><meta http-equiv="refresh" content="0; url={target}"></head>
<body><p>This page is now part of <a href="{target}">another one</a>.</p></body>
</html>
"""


def write_signposts(app: Sphinx, error: Exception | None) -> None:
    """Put a page with one link at each old address."""
    if error is not None or app.builder.format != "html":
        return
    for old, new in MOVED.items():
        target = posixpath.relpath(new, posixpath.dirname(old))
        path = Path(app.outdir) / f"{old}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGE.format(target=target), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hook."""
    app.connect("build-finished", write_signposts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
