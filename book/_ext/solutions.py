"""Sphinx extension: the solution of an exercise is one fold that holds its code, its output and its words.

In the section "Exercises" of a chapter, all from a cell with the tag `hide-cell` to the next exercise is a solution.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

NUMBER = re.compile(r"\d+\.")
FOLD = re.compile(r"</?details>|<summary>.*</summary>|\s")  # Jupyter's fold of the words; here they are in the solution


class Solution(nodes.Element):
    """The fold."""


def open_fold(self: HTML5Translator, node: Solution) -> None:
    """Its first tags."""
    self.body.append('<details class="solution"><summary>Solution</summary>\n')


def close_fold(self: HTML5Translator, node: Solution) -> None:
    """Its last tag."""
    self.body.append("</details>\n")


def is_exercise(node: nodes.Node) -> bool:
    """Whether a paragraph begins with a number in bold type."""
    words = [child for child in node.children if child.astext().strip()] if isinstance(node, nodes.paragraph) else []
    first = words[0] if words else None
    return isinstance(first, nodes.strong) and bool(NUMBER.fullmatch(first.astext()))


def is_fold(node: nodes.Node) -> bool:
    """Whether it is nothing but the tags of a fold."""
    return isinstance(node, nodes.raw) and not FOLD.sub("", node.astext())


def fold_solutions(app: Sphinx, doctree: nodes.document) -> None:
    """Put each solution of a page into its fold."""
    for section in list(doctree.findall(nodes.section)):
        if section[0].astext() != "Exercises":
            continue
        solution = None
        for node in list(section.children):
            if is_exercise(node) or isinstance(node, nodes.section):
                solution = None
            elif solution is None and "tag_hide-cell" in node.get("classes", ()):
                solution = Solution()
                node.replace_self(solution)
                solution.append(node)
            elif solution is not None:
                section.remove(node)
                solution.append(node)
            if "hide_mode" in getattr(node, "attributes", {}):
                node["hide_mode"] = None
        for solution in section.findall(Solution):
            solution[:] = [node for node in solution.children if not is_fold(node)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the fold."""
    app.add_node(Solution, html=(open_fold, close_fold))
    app.connect("doctree-read", fold_solutions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
