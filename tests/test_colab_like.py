"""Every notebook on a machine like Colab's: it has torch and the notebook, whose set-up cell installs the package.

Slow, and the one test that needs a package index: versions are resolved from the ranges in `pyproject.toml`, not from
the lock; the package comes from a local git repository in the place of GitHub's. PyTorch is taken as in the Makefile,
from TORCH_INDEX_URL where that is set. PDDM_COLAB_NOTEBOOKS names single chapters (stems with commas between) where the
time for all is too long.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.version import Version

from book_build import ROOT, notebook_paths
from published import machine, published_repository

INSTALL_TIMEOUT_S = 3600
# What a Colab machine has before the first cell runs, as far as it matters here. NumPy is older than the newest that
# the package accepts: an installer that is asked for ranges leaves it alone.
PREINSTALLED = ("numpy<2.4", "ipykernel")
# What would let this checkout or its environment shine through.
HIDDEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PDDM_DATA", "PDDM_PROFILE")

pytestmark = [pytest.mark.slow, pytest.mark.notebook]


@dataclass(frozen=True)
class Colab:
    """A Python of its own with a Jupyter kernel, the environment of what runs there, and the project on "GitHub"."""

    python: Path
    environment: dict[str, str]
    repository: Path

    def run(self, *command: str | Path, cwd: Path | None = None, timeout: int = INSTALL_TIMEOUT_S) -> str:
        """The output of a command; its error text where it fails."""
        words = [str(part) for part in command]
        options = {"capture_output": True, "text": True, "check": False}
        done = subprocess.run(words, env=self.environment, cwd=cwd, timeout=timeout, **options)
        assert done.returncode == 0, f"{' '.join(words[:6])}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def versions(self) -> dict[str, Version]:
        """Installed packages, as pip sees them."""
        listed = json.loads(self.run(self.python, "-m", "pip", "list", "--format", "json"))
        return {entry["name"].lower(): Version(entry["version"]) for entry in listed}

    def run_notebook(self, name: str, folder: Path) -> None:
        """A notebook alone in an empty folder, run from outside as by Colab's page, with the `smoke` profile."""
        folder.mkdir()
        shutil.copy2(self.repository / "notebooks" / name, folder)
        command = [sys.executable, "-m", "papermill", name, "out.ipynb", "--kernel", "colab", "--no-progress-bar"]
        self.run(*command, "--execution-timeout", str(INSTALL_TIMEOUT_S), cwd=folder, timeout=2 * INSTALL_TIMEOUT_S)
        executed = json.loads((folder / "out.ipynb").read_text())
        assert executed["metadata"]["papermill"]["exception"] is None


def torch_requirement() -> list[str]:
    """Arguments that install PyTorch as `make env` does."""
    pinned = re.search(r"^torch==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE).group()
    index = os.environ.get("TORCH_INDEX_URL")
    return [pinned, *(["--index-url", index] if index else [])]


def chosen_notebooks() -> list[str]:
    """File names of all chapters, or of those that PDDM_COLAB_NOTEBOOKS names."""
    chosen = [f"{name}.ipynb" for name in os.environ.get("PDDM_COLAB_NOTEBOOKS", "").split(",") if name]
    return chosen or [path.name for path in notebook_paths()]


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Colab]:
    """A machine without the package."""
    home = tmp_path_factory.mktemp("colab")
    venv.create(home / "venv", with_pip=True)
    python, kernel = home / "venv" / "bin" / "python", home / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Colab", "language": "python"}))
    repository = published_repository(home / "repository")
    settings = {"JUPYTER_PATH": str(home / "jupyter"), "PDDM_PROFILE": "smoke", "OMP_NUM_THREADS": "1"}
    made = Colab(python, machine(repository, *HIDDEN) | settings, repository)
    for wanted in (torch_requirement(), list(PREINSTALLED)):
        made.run(python, "-m", "pip", "install", "--quiet", *wanted)
    yield made
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def installed(colab: Colab, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """The machine's packages before and after the first chapter, which installs the package and goes on."""
    before = colab.versions()
    colab.run_notebook(chosen_notebooks()[0], tmp_path_factory.mktemp("first") / "content")
    return before, colab.versions()


def test_what_was_there_stays(installed: tuple[dict, dict]) -> None:
    before, after = installed
    assert {"torch", "numpy", "ipykernel"} <= set(before) and "pddm-utils" not in before
    assert "pddm-utils" in after
    assert {name: after.get(name) for name in ("torch", "numpy")} == {name: before[name] for name in ("torch", "numpy")}
    lower = {name: (old, after.get(name)) for name, old in before.items() if after.get(name, Version("0")) < old}
    assert lower == {}, "gone or downgraded"


def test_models_and_results_came_with_the_package(colab: Colab, installed: tuple[dict, dict], tmp_path: Path) -> None:
    code = "import pddm_utils as p, pddm_utils.core.shipped as w; print(p.__file__, w.weights_root(), w.results_root())"
    told = colab.run(colab.python, "-c", code, cwd=tmp_path)
    assert all(Path(path).is_relative_to(colab.python.parents[1]) and Path(path).exists() for path in told.split())


@pytest.mark.parametrize("name", chosen_notebooks()[1:])
def test_the_other_notebooks_run_there(name: str, colab: Colab, installed: tuple[dict, dict], tmp_path: Path) -> None:
    colab.run_notebook(name, tmp_path / "content")
