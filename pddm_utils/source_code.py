"""The version of the code that a result was computed by: a hash of its meaning, blind to comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
_NAME = _PACKAGE.name
# They name, print, read and write, and leave the numbers alone. Values of settings, rows and files have hashes of
# their own.
_WITHOUT_EFFECT = {
    f"{_NAME}.{name}"
    for name in ("methods.registry", "data.manifest", "core.errors", "training.estimate", "core.files", "core.settings")
}


@lru_cache
def code_version(*modules: str) -> str:
    """Hash of the source of these modules and of all modules of the package that they import, directly or not.

    Comments, docstrings and layout are no part of it, nor is the version of Python.

    Args:
        modules: such as `pddm_utils.methods.dae`; they are read, not imported.

    Returns:
        Twelve hexadecimal digits.

    Example:
        >>> len(code_version("pddm_utils.evaluation.metrics"))
        12
    """
    sources = {module: _meaning(_tree(module)) for module in imported_modules(*modules)}
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:12]


def imported_modules(*modules: str) -> list[str]:
    """These modules and the modules of the package that they import, sorted, without those that change no number."""
    found, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found and module not in _WITHOUT_EFFECT:
            found.add(module)
            waiting += _imports(_tree(module))
    return sorted(found)


def _file(module: str) -> Path:
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@lru_cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _NAME:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from {name if _file(name).is_file() else node.module for name in names}
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == _NAME)


def _meaning(node: Any) -> Any:
    """A syntax tree as JSON; empty fields are left out, because each version of Python adds some."""
    if isinstance(node, list):
        return [_meaning(item) for item in node if not _is_text(item)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {
        name: _meaning(value)
        for name, value in ast.iter_fields(node)
        if name != "kind" and value is not None and value != []
    }
    return [type(node).__name__, fields]


def _is_text(node: Any) -> bool:
    """A text that stands by itself: a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
