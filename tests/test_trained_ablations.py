"""Ablations with trainings of their own, at smoke size: real trainings, real tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from pddm_utils.benchmark.studies import study as runner
from pddm_utils.benchmark.studies.ablation_tables import read_ablation
from pddm_utils.benchmark.studies.ablations import Ablations
from pddm_utils.benchmark.studies.rebuild import Model, Rebuild, rebuild_scan
from pddm_utils.benchmark.studies.recipes import (
    MIXED_SIZES,
    RECIPES,
    MixedBoxDDPM,
    Recipe,
    fine_tuning,
    train_recipe,
)
from pddm_utils.benchmark.studies.study import looked_at
from pddm_utils.benchmark.studies.trained import (
    TRAINED_QUESTIONS,
    TrainedQuestion,
    chosen_level,
    lesioned_rows,
    run_trained_ablations,
)
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.evaluation.metrics import average_precision
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.methods.pddpm import PatchedDDPM
from pddm_utils.training.loop import read_training

SMALL = {
    "fixed grid": Recipe("smoke"),
    "mixed boxes": Recipe("smoke", made_by=MixedBoxDDPM),
    "tuned": Recipe("smoke", changes={"learning_rate": 1e-12}, start="fixed grid"),
}


class Noise:
    """Slices of 96 px without a meaning."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).uniform(0, 1, (96, 96)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Ablations:
    folder = tmp_path_factory.mktemp("trained")
    return Ablations(folder / "results", folder / "runs", subjects=1, slice_step=20)


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    for name, recipe in SMALL.items():
        monkeypatch.setitem(RECIPES, name, recipe)


def test_recipes_differ_in_what_they_say_and_nothing_else() -> None:
    plain = load_settings("methods").to_dict()
    changed = {
        name: {key for key, value in RECIPES[name].settings.to_dict().items() if value != plain[key]}
        for name in ("random boxes", "simplex noise", "the paper's")
    }
    assert changed["random boxes"] == set() and changed["simplex noise"] == {"noise", "authors_timestep"}
    assert changed["the paper's"] == {
        "noise",
        "authors_timestep",
        "timestep_power",
        "warmup_steps",
        "learning_rate",
        "learning_rate_decay",
        "ema_decay",
    }
    budgets = {name: RECIPES[name].settings.train_steps for name in ("real", "simulated", "simulated, then real")}
    assert set(budgets.values()) == {1000}
    assert RECIPES["simulated"].settings.contrast == RECIPES["real"].settings.contrast == "T1"


def test_boxes_of_every_size_are_drawn() -> None:
    batch = MixedBoxDDPM("pddpm", load_settings("smoke")).draw(Noise(), 0, range(200))
    sides = batch.mask.flatten(1).sum(1).sqrt().tolist()
    counts = {size: sides.count(size) for size in MIXED_SIZES}
    assert sum(counts.values()) == 200 and min(counts.values()) > 15
    np.testing.assert_array_equal(batch.noisy[~batch.mask], batch.clean[~batch.mask])


def test_fine_tuning_starts_from_the_trained_weights(run: Ablations) -> None:
    start = train_recipe("fixed grid", run.runs)
    settings = load_settings("smoke")
    first = fine_tuning(PatchedDDPM, start)("pddpm", settings).make_network().state_dict()
    for name, value in load_pipeline(start).unet.state_dict().items():
        torch.testing.assert_close(first[name], value.float())
    tuned = load_pipeline(train_recipe("tuned", run.runs)).unet.state_dict()  # at a rate of 1e-12 nothing moves
    assert all(torch.allclose(value.float(), first[name], atol=1e-3) for name, value in tuned.items())
    assert read_training(train_recipe("tuned", run.runs))["step"] == settings.train_steps


def test_trained_once_and_by_name(run: Ablations) -> None:
    folder = train_recipe("mixed boxes", run.runs)
    stamp = (folder / "training.json").stat().st_mtime_ns
    assert train_recipe("mixed boxes", run.runs) == folder and (folder / "training.json").stat().st_mtime_ns == stamp
    assert folder != train_recipe("fixed grid", run.runs)
    with pytest.raises(InputError, match="fixed grid"):
        train_recipe("foxed grid", run.runs)


def test_the_level_is_the_best_on_validation_scans(run: Ablations) -> None:
    settings, folder = load_settings("smoke", {"selection_slice_step": 8}), train_recipe("fixed grid", run.runs)
    model = Model("pddpm", load_pipeline(folder), 499, folder)
    (row, *others) = lesioned_rows(run, settings, "val", 8, settings.val_lesion_subjects, ["-tumour", "-ms"])
    values = {}
    for level in (100, 499, 900):
        scans = [looked_at(run.runs, one, 8) for one in (row, *others)]
        maps = [anomaly_map(x.image, rebuild_scan(model, x, Rebuild(level=level)).image, x.brain_mask) for x in scans]
        auprc = [average_precision(one, x.lesion_mask) for one, x in zip(maps, scans, strict=True)]
        kinds = {x.dataset for x in scans}
        by_kind = [[a for a, x in zip(auprc, scans, strict=True) if x.dataset == kind] for kind in kinds]
        values[level] = np.mean([np.mean(part) for part in by_kind])
    assert values[chosen_level(run, "fixed grid", model, settings, (100, 499, 900), 48)] == max(values.values())


def test_tables_hold_every_variant_level_and_box(run: Ablations, tmp_path: Path, monkeypatch) -> None:
    run = dataclasses.replace(run, results=tmp_path)
    monkeypatch.setitem(TRAINED_QUESTIONS, "box_placement_in_training", TrainedQuestion(("fixed grid", "tuned")))
    monkeypatch.setitem(
        TRAINED_QUESTIONS, "box_size_in_training", TrainedQuestion(("mixed boxes",), box_sizes=(48, 96), levels=(818,))
    )
    names = ["box_placement_in_training", "box_size_in_training"]
    assert [path.stem for path in run_trained_ablations(run, names)] == names
    choices, made = read_ablation(run.results, "box_placement_in_training")
    assert set(choices.variant) == {"fixed grid", "tuned"} == set(made["settings"]["models"])
    assert set(choices.noise_level) == {"validation", "authors"}
    assert (choices[choices.noise_level == "authors"].timestep == 499).all()
    assert choices.groupby(["variant", "noise_level"]).subject.nunique().eq(1).all()
    boxes, _ = read_ablation(run.results, "box_size_in_training")
    assert sorted(boxes.box_size.unique()) == [48, 96]
    assert boxes.groupby("box_size").passes.mean()[48] > boxes.groupby("box_size").passes.mean()[96]
    assert run_trained_ablations(run, names) == []


def test_a_killed_run_keeps_the_models_it_has_scored(run: Ablations, tmp_path: Path, monkeypatch) -> None:
    run = dataclasses.replace(run, results=tmp_path)
    monkeypatch.setitem(TRAINED_QUESTIONS, "box_placement_in_training", TrainedQuestion(("fixed grid", "tuned")))
    run_trained_ablations(run, ["box_placement_in_training"])
    table = run.results / "box_placement_in_training.csv"
    before = table.read_text()
    table.unlink()
    scored = []
    monkeypatch.setattr(runner, "Rebuilds", lambda *arguments: scored.append(arguments))
    assert run_trained_ablations(run, ["box_placement_in_training"]) == [table]
    assert scored == [] and table.read_text() == before


def test_an_unknown_question_is_refused_before_anything_is_trained(run: Ablations) -> None:
    empty = Ablations(run.results, Path(run.runs, "never"))
    with pytest.raises(InputError, match="simulated_to_real"):
        run_trained_ablations(empty, ["simulated_to_mars"])
    assert not Path(run.runs, "never").exists()
