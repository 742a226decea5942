"""The benchmark as a Snakemake workflow: its units, and that it ends in the tables of a plain run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book_build import ROOT

SNAKEFILE = ROOT / "pddm_utils" / "benchmark" / "workflow" / "Snakefile"
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PDDM_DATA": "",
    "PYTHONPATH": str(ROOT),
}
TINY = """\
extends: smoke
train_subjects: 2
val_subjects: 1
train_steps: 4
extra_seed_steps: 2
checkpoint_every: 2
timesteps: [499]
noise_levels: [validation, authors]
lesion_kinds: [tumour]
methods: [intensity, pddpm]
"""


def snakemake(folder: Path, *words: str, **config: int) -> str:
    """What a run over the profile in `folder` prints."""
    more = [f"{name}={value}" for name, value in config.items()]
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        str(SNAKEFILE),
        *words,
        "--config",
        "profile=tiny.yaml",
        "runs=runs",
        "results=results",
        *more,
    ]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def unit_counts(printed: str) -> dict[str, int]:
    """Jobs by rule in the table of a dry run."""
    return {
        line.split()[0]: int(line.split()[1])
        for line in printed.splitlines()
        if len(line.split()) == 2 and line.split()[1].isdigit()
    }


def test_dry_run_lists_every_unit(folder: Path) -> None:
    counts = unit_counts(snakemake(folder, "--dry-run", "--quiet", "rules"))
    assert counts == {"prepare": 1, "train": 2, "choose": 1, "score": 4, "tables": 1, "total": 9}
    assert not (folder / "runs").exists()


def test_a_cross_validation_has_a_unit_for_every_fold(folder: Path) -> None:
    counts = unit_counts(snakemake(folder, "--dry-run", "--quiet", "rules", folds=3))
    # A score of each fold, one more at the authors' level, and that of intensity.
    assert counts == {"prepare": 1, "train": 3, "choose": 1, "score": 5, "tables": 1, "total": 11}


def test_unit_notebook_is_saved_clean() -> None:
    notebook = nbformat.read(SNAKEFILE.with_name("unit.ipynb"), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
@pytest.mark.parametrize("folds", [0, 3])
def test_workflow_ends_in_the_tables_of_a_plain_run(folder: Path, folds: int) -> None:
    snakemake(folder, "-c2", folds=folds)
    words = [
        "-m",
        "pddm_utils",
        "benchmark",
        "--profile",
        "tiny.yaml",
        "--jobs",
        "1",
        "--runs",
        "plain-runs",
        "--results",
        "plain",
        "--folds",
        str(folds),
    ]
    subprocess.run([sys.executable, *words], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    for name in ("scores.csv", "selection.csv"):
        assert (folder / "results" / name).read_bytes() == (folder / "plain" / name).read_bytes()
    assert "Nothing to be done" in snakemake(folder, "-c2", folds=folds)
