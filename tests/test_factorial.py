"""The factorial of trainings at smoke size: real trainings, real scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pddm_utils.benchmark.studies import factorial
from pddm_utils.benchmark.studies.factorial import CELLS, DRAWS, FLOORS, RATES, Cell, Factorial, run_factorial
from pddm_utils.core.settings import load_settings
from pddm_utils.data.prepare import load_scan
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.training.loop import read_training, snapshot_folder

CELL = Cell("pddpm", "simplex", "even", "1e-4 constant", steps=2, network="smoke")
TINY = {"train_subjects": 2, "batch_size": 2, "selection_slice_step": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Factorial:
    folder = tmp_path_factory.mktemp("factorial")
    return Factorial(load_settings("smoke", TINY), folder / "results", folder / "runs")


@pytest.fixture(scope="module")
def table(run) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factorial, "LEVELS", (100, 499))
        patch.setattr(factorial, "SNAPSHOTS", (1,))
        patch.setattr(factorial, "SNAPSHOT_LEVELS", (499,))
        return pd.read_csv(run_factorial(run, [CELL]))


def test_a_row_for_each_snapshot_level_and_validation_scan(run, table) -> None:
    rows = table[table.method == "pddpm"]
    assert len(rows) == (2 + 1) * len(run.val)
    assert set(rows.step) == {1, 2} and set(rows.timestep) == {100, 499}
    lesioned = rows.dataset.str.endswith("tumour")
    assert rows[lesioned][["auprc", "auprc_signed", "auprc_z"]].notna().all(axis=None)
    assert rows[lesioned].healthy_l1.isna().all() and rows[~lesioned].healthy_l1.notna().all()


def test_no_test_scan_is_looked_at(run, table) -> None:
    names = {row.subject for row in run.rows}
    assert set(table.subject) <= names and {row.split for row in run.rows} == {"train", "val"}


def test_floors_are_in_the_table(run, table) -> None:
    floors = table[table.method.isin(FLOORS)]
    assert set(floors.method) == set(FLOORS)
    healthy = run.scan(next(row for row in run.val if not row.lesion_mask))
    inside = healthy.image[healthy.brain_mask]
    found = floors[(floors.method == "brain median") & floors.healthy_l1.notna()].healthy_l1
    assert found.item() == pytest.approx(np.abs(inside - np.median(inside)).mean(), rel=1e-4)


def test_a_snapshot_is_the_shorter_training_where_the_rate_is_constant(run, table, tmp_path: Path) -> None:
    kept = load_pipeline(snapshot_folder(factorial.cell_folder(run, CELL), 1)).unet.state_dict()
    short = dataclasses.replace(run, runs=tmp_path)
    shorter = factorial.train_cell(short, dataclasses.replace(CELL, steps=1))
    for name, value in load_pipeline(shorter).unet.state_dict().items():
        torch.testing.assert_close(kept[name], value, rtol=1e-3, atol=1e-5)


def test_done_again_it_trains_nothing(run, table) -> None:
    record = factorial.cell_folder(run, CELL) / "training.json"
    before = record.stat().st_mtime_ns
    factorial.train_cell(run, CELL)
    assert record.stat().st_mtime_ns == before


def test_cells_differ_in_training_alone() -> None:
    profile = load_settings("laptop")
    settings = [cell.settings(profile) for cell in CELLS]
    assert len({cell.name for cell in CELLS}) == len(CELLS) == len(DRAWS) * len(RATES) * 2 * 2 / 2
    same = {
        dataclasses.replace(
            one, **{name: getattr(profile, name) for name in ("noise", "timestep_power", *RATES["1e-3 cosine"])}
        )
        for one in settings
    }
    assert len(same) == 1


def test_the_map_of_a_perfect_model_is_the_lesion(run) -> None:
    scan = load_scan(next(row for row in run.val if row.lesion_mask), run.cache)
    without = np.where(scan.lesion_mask, 0, scan.image).astype(np.float32)
    scores = factorial.map_scores(scan, without, factorial.HealthyPlaces())
    assert scores["auprc"] == scores["auprc_signed"] > 0.5
    wrong = factorial.map_scores(scan, scan.image + scan.lesion_mask, factorial.HealthyPlaces())
    assert wrong["auprc_signed"] < 0.2 < wrong["auprc"]


def test_the_record_says_what_was_trained(run, table) -> None:
    assert read_training(factorial.cell_folder(run, CELL))["settings"]["noise"] == "simplex"
