"""Every notebook runs from top to bottom with the `smoke` profile, in time, and is saved as a reader needs it."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
import yaml

from book_build import ROOT, TIMEOUT_S, execute_smoke, notebook_paths, run_notebook

# A minute, on any processor: pieces of `WORK`, which takes 10 CPU seconds where notebooks take 5 to 35.
MOST_WORK = 6
MOST_WIDTH = 680  # pixels of a page; a phone has 390
MOST_NAMES = 15  # of the package in a chapter
WORK = """
import torch
from pddm_utils.diffusion.network import make_network
network = make_network("laptop")
for _ in range(10):
    network(torch.zeros(16, 1, 96, 96), 499).sample.square().mean().backward()
"""
PARTS = ("## Where it fails", "## Exercises", "## Summary", "**Next:**")

pytestmark = pytest.mark.notebook
each_notebook = pytest.mark.parametrize("path", notebook_paths(), ids=lambda path: path.stem)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    """Code cells with a tag."""
    return [c for c in notebook.cells if c.cell_type == "code" and tag in c.metadata.get("tags", [])]


def check_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse names that the notebook does not have: papermill only warns of them.

    Raises:
        ValueError: an unknown name.
    """
    known = papermill.inspect_notebook(str(path))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(f"{path.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")


def execute(path: Path, output: Path, parameters: Mapping[str, Any]) -> nbformat.NotebookNode:
    """Run a notebook where it lies and write the executed copy to `output`."""
    check_parameters(path, parameters)
    return papermill.execute_notebook(
        str(path),
        str(output),
        parameters=dict(parameters),
        kernel_name="python3",
        cwd=str(path.parent),
        execution_timeout=TIMEOUT_S,
        progress_bar=False,
        log_output=False,
    )


def test_all_notebooks_are_in_the_book() -> None:
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == notebook_paths(), "in the order of their numbers"


def test_the_sidebar_has_the_numbers_of_the_chapters() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    for chapter in [chapter for part in toc["parts"] for chapter in part["chapters"]]:
        if chapter["file"].startswith("notebooks/"):
            heading = nbformat.read(ROOT / f"{chapter['file']}.ipynb", as_version=4).cells[0].source.splitlines()[0]
            number = int(chapter["file"].removeprefix("notebooks/")[:2])
            assert chapter["title"] == f"{number} {heading.removeprefix('# ')}"


@each_notebook
def test_notebook_is_saved_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_notebook_has_the_parts_of_a_chapter(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert [part for part in PARTS if part not in text] == []
    assert "**Question.**" in notebook.cells[0].source
    assert "simulated" in text
    assert len(tagged(notebook, "parameters")) == 1
    assert len(tagged(notebook, "hide-cell")) >= 3, "three exercises with hidden solutions"
    check_parameters(path, {"profile": "smoke"})


@pytest.fixture(scope="module")
def work_seconds() -> float:
    """CPU seconds of a piece of work in a process of its own, on this machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", WORK], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@each_notebook
def test_a_chapter_needs_few_names(path: Path) -> None:
    """A reader learns each before the cell that uses it."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    plain = "\n".join(line for cell in cells for line in cell.splitlines() if not line.startswith(("%", "!")))
    statements = [node for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.ImportFrom)]
    names = {name.name for one in statements if (one.module or "").startswith("pddm_utils") for name in one.names}
    assert len(names) <= MOST_NAMES, sorted(names)


@each_notebook
def test_notebook_runs(path: Path, work_seconds: float) -> None:
    output = run_notebook(path)
    executed, record = nbformat.read(output, as_version=4), json.loads(output.with_suffix(".json").read_text())
    assert executed.metadata.papermill.exception is None
    assert record["cpu_seconds"] < MOST_WORK * work_seconds
    assert record["new_files"] == [], "a notebook writes below runs/ only"
    solutions = tagged(executed, "hide-cell")
    assert all(cell.execution_count and cell.outputs for cell in solutions), "every solution runs and shows something"
    streams = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert [output.text for output in streams if output.get("name") == "stderr" and "Warning" in output.text] == []


@each_notebook
def test_pictures_are_sharp_narrow_and_described(path: Path) -> None:
    for cell in nbformat.read(run_notebook(path), as_version=4).cells:
        outputs = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        widths = [output.metadata.get("image/png", {}).get("width", 0) for output in outputs]
        assert all(0 < width <= MOST_WIDTH for width in widths), f"{cell.id}: {widths}; no width: not twice as sharp"
        text = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert not outputs or len(text.split()) >= 5, f"{cell.id}: say what is to be seen, see the contributing page"


def test_a_mistyped_parameter_is_refused(tmp_path: Path) -> None:
    path = notebook_paths()[0]
    with pytest.raises(ValueError, match="has no parameter profil; it has profile"):
        execute(path, tmp_path / "out.ipynb", {"profil": "smoke"})
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize(("name", "value"), [("profile", "smoky"), ("weights", "shiped")])
def test_a_mistyped_value_is_refused(name: str, value: str, tmp_path: Path) -> None:
    path = next(path for path in notebook_paths() if path.stem == "14_benchmark")
    with pytest.raises(papermill.PapermillExecutionError, match=f"InputError.*{value}"):
        execute(path, tmp_path / "out.ipynb", {"profile": "smoke", "runs": str(tmp_path), name: value})


def test_a_failing_cell_is_an_error(tmp_path: Path) -> None:
    broken = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        cells=[
            nbformat.v4.new_code_cell('profile = "demo"', metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell("raise RuntimeError(profile)"),
        ],
    )
    path = tmp_path / "broken.ipynb"
    nbformat.write(broken, path)
    with pytest.raises(papermill.PapermillExecutionError, match="smoke"):
        execute_smoke(path, tmp_path / "executed", tmp_path)
