"""The package's structure as it stands: `python tests/rooms.py` prints rooms, lines and imports, and what is amiss.

Rooms are the folders of the package in their order; each imports only rooms before its own. `python tests/rooms.py
FOLDER` measures another checkout.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "pddm_utils"
ORDER = (
    "core",
    "evaluation",
    "data",
    "training",
    "diffusion",
    "methods",
    "show",
    "detection",
    "benchmark",
    "publish",
)
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
ANYWHERE = {"__init__", "__main__"}  # names that say nothing about what a file holds
ALIKE = {"registry", "figures"}  # the table of its kind; what draws


def modules(root: Path = ROOT) -> list[Path]:
    """The package's Python files, relative to its folder."""
    package = root / PACKAGE
    return sorted(path.relative_to(package) for path in package.rglob("*.py"))


def room_of(path: Path) -> str:
    """The room that a file lies in; empty for the root of the package."""
    return path.parts[0] if len(path.parts) > 1 else ""


def imports(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Rooms that a file imports, also inside functions; its own is among them."""
    for node in ast.walk(ast.parse((root / PACKAGE / path).read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == PACKAGE and rest:
                yield rest.split(".")[0]


def against_the_order(root: Path = ROOT) -> list[str]:
    """Files that import a room which does not come before their own."""
    wrong = []
    for path in modules(root):
        room = room_of(path)
        allowed = set(ORDER[: ORDER.index(room) + 1]) if room in ORDER else set(ORDER)
        wrong += [f"{path} imports {other}" for other in sorted(set(imports(path, root)) - allowed)]
    return wrong


def homonyms(root: Path = ROOT) -> dict[str, list[str]]:
    """Names that several files of the package have, without those that mean the same in each."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in modules(root):
        found[path.stem].append(str(path))
    return {name: paths for name, paths in found.items() if len(paths) > 1 and name not in ANYWHERE | ALIKE}


def too_long(root: Path = ROOT) -> list[str]:
    """Files and functions over their limits; a function's docstring does not count."""
    found = []
    for path in modules(root):
        text = (root / PACKAGE / path).read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > LONGEST_FILE:
            found.append(f"{path}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                first = node.body[0]
                start = first.end_lineno if ast.get_docstring(node) else node.lineno
                if node.end_lineno - (start or node.lineno) > LONGEST_FUNCTION:
                    found.append(f"{path}: {node.name} has {node.end_lineno - (start or node.lineno)} lines")
    return found


def table(root: Path = ROOT) -> str:
    """Files, lines and imported rooms of every room."""
    rows = [f"{'room':<12}{'files':>6}{'lines':>7}  imports"]
    total = 0
    found = modules(root)
    for room in [*ORDER, *sorted({room_of(path) for path in found} - set(ORDER) - {""}), ""]:
        files = [path for path in found if room_of(path) == room]
        lines = sum((root / PACKAGE / path).read_text(encoding="utf-8").count("\n") for path in files)
        others = {other for path in files for other in imports(path, root)} - {room}
        known = [other for other in ORDER if other in others]
        total += lines
        rows.append(f"{room or '(root)':<12}{len(files):>6}{lines:>7}  {', '.join(known)}")
    return "\n".join([*rows, f"{'all':<12}{len(found):>6}{total:>7}"])


def contents(root: Path = ROOT) -> str:
    """Every file with the first line of its docstring."""
    rows = []
    for path in modules(root):
        text = ast.get_docstring(ast.parse((root / PACKAGE / path).read_text(encoding="utf-8"))) or ""
        if path.stem not in ANYWHERE:
            rows.append(f"{str(path):<44} {text.splitlines()[0] if text else ''}")
    return "\n".join(rows)


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    print(f"{contents(where)}\n\n{table(where)}")
    for what, names in (
        ("against the order", against_the_order(where)),
        ("one name, several files", [f"{name}: {', '.join(paths)}" for name, paths in homonyms(where).items()]),
        ("long", too_long(where)),
    ):
        print(f"\n{what}: {len(names)}")
        print("\n".join(f"  {name}" for name in names))
