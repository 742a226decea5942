"""A copy of the project with an address, as it would lie on GitHub, and a git that finds it there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nbformat

from book_build import ROOT
from pddm_utils.publish.address import set_address
from test_project import tracked_files

ADDRESS = "https://github.com/someone/book"


def setup_cell(notebook: Path) -> str:
    """The cell that installs the package where it is missing: the first code cell."""
    return next(cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code")


def published_repository(folder: Path) -> Path:
    """A git repository of the project's files as they are now, with ADDRESS written into them."""
    for path in tracked_files():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    set_address(folder, ADDRESS)
    author = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
    for command in (("init", "--quiet"), ("add", "--all"), (*author, "commit", "--quiet", "-m", "all")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def machine(repository: Path, *hidden: str) -> dict[str, str]:
    """The environment of a machine whose git fetches ADDRESS from `repository`, without the `hidden` variables."""
    git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf"}
    rest = {key: value for key, value in os.environ.items() if key not in hidden}
    return rest | git | {"GIT_CONFIG_VALUE_0": ADDRESS}
