"""The contributing page's examples work as they stand there: a method and a data set, a file and a line each."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from book_build import ROOT
from pddm_utils.core.settings import PROFILE_FOLDER
from pddm_utils.data.manifest import read_manifest

PAGE = (ROOT / "book" / "contributing.md").read_text(encoding="utf-8")
SMALL = {
    "train_subjects": 1,
    "train_steps": 2,
    "batch_size": 2,
    "seeds": "[0]",
    "selection_slice_step": 16,
}


def examples(heading: str) -> tuple[str, str]:
    """The file and the line that a section of the page shows."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    file, line, *_ = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    assert line.count("\n") == 1
    return file, line


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the package in it; models and results are not needed."""
    shutil.copytree(ROOT / "pddm_utils", tmp_path / "pddm_utils", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def add_line(table: Path, mark: str, line: str) -> None:
    """Put a line behind the one that opens a table."""
    text = table.read_text(encoding="utf-8")
    assert text.count(mark) == 1
    table.write_text(text.replace(mark, mark + line), encoding="utf-8")


def run(folder: Path, *words: str) -> str:
    """Run a command of the package that lies in a folder."""
    command = [sys.executable, "-m", "pddm_utils", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_method_is_one_file_and_one_line(copy: Path) -> None:
    file, line = examples("Add a method")
    (copy / "pddm_utils" / "methods" / "pixel_dae.py").write_text(file, encoding="utf-8")
    add_line(copy / "pddm_utils" / "methods" / "registry.py", "METHODS: dict[str, MethodFacts] = {\n", line)
    options = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    words = ["--methods", "intensity,pixel-dae", "--datasets", "simulated-t2-tumour", "--jobs", "1", *options]
    printed = run(copy, "benchmark", "--profile", "smoke", *words)
    assert "DAE, pixel noise" in printed
    scores = pd.read_csv(copy / "results" / "smoke" / "scores.csv")
    assert set(scores.method) == {"intensity", "pixel-dae"} and scores.auprc.between(0, 1).all()
    assert PROFILE_FOLDER.is_relative_to(ROOT)  # the project's own copy was not the one that ran
    (model,) = (copy / "runs" / "models").glob("pixel-dae-seed0-*/model.safetensors")
    assert model.stat().st_size > 0


def test_a_data_set_is_one_file_and_one_line(copy: Path, write_nifti, stripped_head) -> None:
    file, line = examples("Add a data set")
    sources = copy / "pddm_utils" / "data" / "sources"
    (sources / "toy.py").write_text(file, encoding="utf-8")
    add_line(sources / "registry.py", "SOURCES: dict[str, Source] = {\n", line)
    mark = "from pddm_utils.data.sources.mslub_archive import mslub_archive_rows\n"
    add_line(sources / "registry.py", mark, "from pddm_utils.data.sources.toy import toy_rows\n")
    for folder in ("scans", "out"):
        (copy / folder).mkdir()
    for name in ("anna_T2", "bert_T2"):
        write_nifti(f"scans/{name}.nii.gz", stripped_head)
    write_nifti("scans/bert_lesion.nii.gz", stripped_head > 199)
    assert "a toy data set" in run(copy, "sources")
    run(copy, "manifest", "toy", "scans", "--out", "out/scans.csv")
    table = pd.read_csv(copy / "out" / "scans.csv", keep_default_na=False)
    assert dict(zip(table.subject, table.dataset, strict=True)) == {"anna": "toy-t2-healthy", "bert": "toy-t2"}
    assert (table.lesion_mask != "").tolist() == [False, True]
    assert {row.subject for row in read_manifest(copy / "out" / "scans.csv")} == {"anna", "bert"}
