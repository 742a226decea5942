"""Every notebook runs from top to bottom with the `smoke` profile, in time."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import pytest
from book import notebook_paths, run_notebook

SECONDS = 60

pytestmark = [pytest.mark.notebook, pytest.mark.xdist_group("book")]


@pytest.mark.parametrize("path", notebook_paths(), ids=lambda path: path.stem)
def test_notebook_takes_a_profile(path: Path) -> None:
    assert "profile" in papermill.inspect_notebook(str(path))


@pytest.mark.parametrize("path", notebook_paths(), ids=lambda path: path.stem)
def test_notebook_runs_in_time(path: Path) -> None:
    executed = nbformat.read(run_notebook(path), as_version=4)
    assert executed.metadata.papermill.exception is None
    assert executed.metadata.papermill.duration < SECONDS


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
        run_notebook(path)
