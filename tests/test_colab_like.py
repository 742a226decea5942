"""Every notebook in a fresh environment made the way Colab's is: torch is there, the package comes from a wheel.

Slow, and the one test that needs a package index: versions are resolved from the ranges in `pyproject.toml`, not from
the lock. PyTorch is taken as in the Makefile, from TORCH_INDEX_URL where that is set. PDDM_COLAB_NOTEBOOKS names single
chapters (stems with commas between) where the time for all is too long.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.version import Version

from book_build import ROOT, TIMEOUT_S, notebook_paths
from test_notebooks import setup_cell

INSTALL_TIMEOUT_S = 3600
# What a Colab machine has before the first cell runs, as far as it matters here. NumPy is older than the newest that
# the package accepts: an installer that is asked for ranges leaves it alone.
PREINSTALLED = ("numpy<2.4", "ipykernel")

pytestmark = [pytest.mark.slow, pytest.mark.notebook]


def run(*command: str | Path, timeout: int = INSTALL_TIMEOUT_S, **options) -> str:
    """The output of a command; its error text where it fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=timeout, **options
    )
    assert done.returncode == 0, f"{' '.join(map(str, command[:6]))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def clean_environment(**more: str) -> dict[str, str]:
    """Without what would let this checkout or its environment shine through."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PDDM_REPOSITORY", "PDDM_DATA", "PDDM_PROFILE")
    return {key: value for key, value in os.environ.items() if key not in hidden} | more


def versions(python: Path) -> dict[str, Version]:
    """Installed packages of an environment, as pip sees them."""
    listed = run(python, "-m", "pip", "list", "--format", "json", env=clean_environment())
    return {entry["name"].lower(): Version(entry["version"]) for entry in json.loads(listed)}


def torch_requirement() -> list[str]:
    """Arguments that install PyTorch as `make env` does."""
    pinned = re.search(r"^torch==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE).group()
    index = os.environ.get("TORCH_INDEX_URL")
    return [pinned, *(["--index-url", index] if index else [])]


def chosen_notebooks() -> list[Path]:
    """All chapters, or those that PDDM_COLAB_NOTEBOOKS names."""
    names = [name for name in os.environ.get("PDDM_COLAB_NOTEBOOKS", "").split(",") if name]
    by_stem = {path.stem: path for path in notebook_paths()}
    return [by_stem[name] for name in names] if names else list(by_stem.values())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as one file, made with the build tools that are here."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> tuple[Path, dict, dict]:
    """A Python with torch in which the set-up cell has run, and its packages before and after."""
    home = tmp_path_factory.mktemp("colab")
    venv.create(home / "venv", with_pip=True)
    python = home / "venv" / "bin" / "python"
    for wanted in (torch_requirement(), list(PREINSTALLED)):
        run(python, "-m", "pip", "install", "--quiet", *wanted, env=clean_environment())
    before = versions(python)
    # The notebooks' own cell. Only here the address is a wheel: neither a folder nor a git repository.
    cell, git = setup_cell(notebook_paths()[0]), 'f"git+{address}"'
    assert cell.count(git) == 1
    environment = clean_environment(PDDM_REPOSITORY=str(wheel))
    run(python, "-c", cell.replace(git, "address"), env=environment, cwd=home)
    yield python, before, versions(python)
    shutil.rmtree(home)


def test_what_was_there_stays(colab: tuple[Path, dict, dict]) -> None:
    _, before, after = colab
    assert {"torch", "numpy", "ipykernel"} <= set(before) and "pddm-utils" not in before
    assert "pddm-utils" in after
    assert {name: after.get(name) for name in ("torch", "numpy")} == {name: before[name] for name in ("torch", "numpy")}
    lower = {name: (old, after.get(name)) for name, old in before.items() if after.get(name, Version("0")) < old}
    assert lower == {}, "gone or downgraded"


def test_the_package_is_that_of_the_wheel(colab: tuple[Path, dict, dict], tmp_path: Path) -> None:
    python, *_ = colab
    told = run(
        python,
        "-c",
        "import pddm_utils, pddm_utils.core.shipped as w; "
        "print(pddm_utils.__file__, w.weights_root(), w.results_root())",
        env=clean_environment(),
        cwd=tmp_path,
    )
    assert all(Path(path).is_relative_to(python.parents[1]) and Path(path).exists() for path in told.split())


@pytest.mark.parametrize("path", chosen_notebooks(), ids=lambda path: path.stem)
def test_notebook_runs_far_from_the_checkout(path: Path, colab: tuple[Path, dict, dict], tmp_path: Path) -> None:
    """The notebook alone in an empty folder, as Colab opens it, with the `smoke` profile."""
    python, *_ = colab
    folder = tmp_path / "content"
    folder.mkdir()
    shutil.copy2(path, folder)
    run(
        python,
        "-m",
        "papermill",
        path.name,
        "out.ipynb",
        "-p",
        "profile",
        "smoke",
        "--kernel",
        "python3",
        "--execution-timeout",
        str(TIMEOUT_S),
        "--no-progress-bar",
        cwd=folder,
        env=clean_environment(PDDM_PROFILE="smoke", OMP_NUM_THREADS="1"),
        timeout=2 * TIMEOUT_S,
    )
    executed = json.loads((folder / "out.ipynb").read_text())
    assert executed["metadata"]["papermill"]["exception"] is None
