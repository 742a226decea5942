"""The benchmark as a Snakemake workflow: its units, and that it ends in the tables of a plain run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book_build import ROOT

SNAKEFILE = ROOT / "pddm_utils" / "workflow" / "Snakefile"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PDDM_DATA": "",
                            "PYTHONPATH": str(ROOT)}
TINY = """\
extends: smoke
train_subjects: 2
val_subjects: 1
train_steps: 4
extra_seed_steps: 2
checkpoint_every: 2
timesteps: [499]
lesion_kinds: [tumour]
methods: [intensity, pddpm]
"""


def snakemake(folder: Path, *words: str) -> str:
    """What a run over the profile in `folder` prints."""
    command = [sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE), *words, "--config", "profile=tiny.yaml",
               "runs=runs", "results=results"]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def test_dry_run_lists_every_unit(folder: Path) -> None:
    text = snakemake(folder, "--dry-run", "--quiet", "rules")
    counts = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()
              if len(line.split()) == 2 and line.split()[1].isdigit()}
    assert counts == {"prepare": 1, "train": 2, "choose": 1, "score": 4, "tables": 1, "total": 9}
    assert not (folder / "runs").exists()


def test_unit_notebook_is_saved_clean() -> None:
    notebook = nbformat.read(SNAKEFILE.with_name("unit.ipynb"), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_workflow_ends_in_the_tables_of_a_plain_run(folder: Path) -> None:
    snakemake(folder, "-c2")
    words = ["-m", "pddm_utils", "benchmark", "--profile", "tiny.yaml", "--jobs", "1", "--runs", "plain-runs",
             "--results", "plain"]
    subprocess.run([sys.executable, *words], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    for name in ("scores.csv", "selection.csv"):
        assert (folder / "results" / name).read_bytes() == (folder / "plain" / name).read_bytes()
    assert "Nothing to be done" in snakemake(folder, "-c2")
