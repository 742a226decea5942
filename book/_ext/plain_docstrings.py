"""Sphinx extension: docstrings are written to be read in a terminal, so bars around a residual are only bars."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

# reStructuredText takes |x - y| for the name of a substitution.
BARS = re.compile(r"(?<![`|])\|([^|`\n]+)\|(?![`|])")


def quote_bars(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn `|x - y|` outside of code into code."""
    lines[:] = [BARS.sub(r"``|\1|``", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before napoleon, which splits the docstring into parts."""
    app.connect("autodoc-process-docstring", quote_bars, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
