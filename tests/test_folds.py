"""Cross-validation: the folds of a cohort, and the paper's profile over folds in one command."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections import Counter
from pathlib import Path

import pytest

from pddm_utils.__main__ import main
from pddm_utils.benchmark.models import model_folder
from pddm_utils.benchmark.run import Benchmark
from pddm_utils.benchmark.tables import format_summary, read_results, summary_table
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.data.cohort import cohort_rows, fold_rows
from pddm_utils.data.manifest import check_rows, write_manifest
from pddm_utils.data.sources.simulated import simulated_rows
from pddm_utils.publish.how_made import provenance_line

FOLDS = 2
TINY = [
    "network=smoke",
    "noise=gaussian",
    "train_steps=2",
    "checkpoint_every=2",
    "batch_size=2",
    "methods=[pddpm]",
    "test_subjects=1",
    "val_lesion_subjects=1",
]


def subjects(rows, split: str, lesioned: bool = False) -> set[str]:
    return {row.subject for row in rows if row.split == split and bool(row.lesion_mask) == lesioned}


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_validation_folds_partition_the_healthy_subjects(folds: int) -> None:
    rows = simulated_rows("T2", 9, 3, 2, 2)
    fixed = [row for row in rows if row.split == "test" or row.lesion_mask]
    counts: Counter[str] = Counter()
    for fold in range(folds):
        split = fold_rows(rows, fold, folds)
        check_rows(split)
        train, val = subjects(split, "train"), subjects(split, "val")
        assert not train & val and len(train | val) == 12 and len(val) in (12 // folds, 12 // folds + 1)
        assert [row for row in split if row.split == "test" or row.lesion_mask] == fixed
        assert split == fold_rows(rows, fold, folds)  # no chance in it
        counts.update(val)
    assert set(counts) == subjects(rows, "train") | subjects(rows, "val") and set(counts.values()) == {1}


def test_scans_of_a_subject_stay_together_and_lesioned_copies_out_of_training() -> None:
    rows = simulated_rows("T2", 6, 2, 0, 0)
    rows += [dataclasses.replace(row, dataset="second-visit") for row in rows]
    [ill] = [row for row in rows if row.subject == "simulated-100000" and row.dataset == "second-visit"]
    rows.append(dataclasses.replace(ill, dataset="with-tumour", lesion_mask="insert:tumour:1"))
    for fold in range(3):
        split = fold_rows(rows, fold, 3)
        check_rows(split)  # refuses a subject in two splits
        assert "simulated-100000" in subjects(split, "val") and len(subjects(split, "train")) in (4, 5)


def test_impossible_folds_are_refused(tmp_path: Path) -> None:
    rows = simulated_rows("T2", 2, 1, 1, 1)
    for fold, folds, words in [(0, 1, "at least 2"), (2, 2, "numbered from 0"), (0, 4, "4 folds of 3 healthy")]:
        with pytest.raises(InputError, match=words):
            fold_rows(rows, fold, folds)
    with pytest.raises(InputError, match="trained on one split"):
        Benchmark(load_settings("smoke"), True, tmp_path, tmp_path, folds=2)
    with pytest.raises(InputError, match=r"seeds \[3\]"):
        Benchmark(load_settings("smoke"), False, tmp_path, tmp_path, seeds=(3,), folds=3)


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    """The paper's profile over two folds of a tiny simulated manifest, in a network of the smoke size."""
    folder = tmp_path_factory.mktemp("folds")
    rows = [row for row in simulated_rows("T2", 2, 1, 1, 1) if row.dataset != "simulated-t2-ms"]
    write_manifest(rows, folder / "scans.csv")
    settings = [f"--set={item}" for item in (f"manifest={folder / 'scans.csv'}", *TINY)]
    return [
        "benchmark",
        "--profile",
        "paper",
        "--folds",
        str(FOLDS),
        "--runs",
        str(folder / "runs"),
        "--results",
        str(folder / "results"),
        "--jobs",
        "1",
        *settings,
    ]


@pytest.fixture(scope="module")
def printed(command) -> str:
    """What the command prints when it is run for the first time."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(command) == 0
    return out.getvalue()


def test_one_command_trains_scores_and_merges_the_folds(command, printed) -> None:
    results = Path(command[command.index("--results") + 1])
    scores, run = read_results(results)
    keys = ["dataset", "subject", "rule"]
    by_fold = [part.set_index(keys).auprc.dropna() for _, part in scores.groupby("seed")]
    assert len(by_fold) == FOLDS and by_fold[0].index.equals(by_fold[1].index)  # the same test scans
    assert (by_fold[0] != by_fold[1]).all()
    assert run["folds"] == FOLDS and "--profile paper --folds 2" in provenance_line(run)

    overrides = {name: value for name, value in run["settings"].items() if name != "profile"}
    settings = load_settings("paper", overrides)
    for fold in range(FOLDS):
        here, elsewhere = (
            model_folder(settings, "pddpm", fold, results, fold_rows(cohort_rows(settings), seen, FOLDS)).name
            for seen in (fold, (fold + 1) % FOLDS)
        )
        assert run["models"][f"pddpm-seed{fold}"]["folder"] == here != elsewhere  # each fold saw its own scans

    summary = summary_table(scores, "auprc")
    cell = format_summary(summary, "simulated-t2-tumour", "pddpm")
    assert summary.seeds.tolist() == [FOLDS] and " ± " in cell and cell in printed


@pytest.mark.usefixtures("printed")
def test_a_second_run_trains_nothing(command) -> None:
    folder = Path(command[command.index("--runs") + 1])

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for name in ("models", "parts") for path in (folder / name).rglob("*")}

    before = written()
    assert before and main(command) == 0 and written() == before
