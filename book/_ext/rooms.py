"""Sphinx extension: `{room} NAME` documents every public module of a room, so that a new module needs no line here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

PACKAGE = Path(find_spec("pddm_utils").origin).parent
SECTION = """## `{short}`

```{{eval-rst}}
.. automodule:: {name}
   :members:
```

"""


def public_modules(room: str) -> list[str]:
    """Dotted names of a room's modules, those in its folders last."""
    files = [path for path in (PACKAGE / room).rglob("*.py") if not path.name.startswith("_")]
    files.sort(key=lambda path: (len(path.parts), path))
    return [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files]


class Room(Directive):
    """A section for each public module of a room."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse one `automodule` a module, as if the page held them."""
        modules = public_modules(self.arguments[0])
        if not modules:
            raise self.error(f"no room {self.arguments[0]!r} with public modules")
        text = "".join(SECTION.format(name=name, short=name.split(".", 1)[1]) for name in modules)
        container = nodes.section()
        lines = StringList(text.splitlines(), source=self.state.document["source"])
        self.state.nested_parse(lines, self.content_offset, container, match_titles=True)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("room", Room)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
