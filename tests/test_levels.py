"""Noise levels by family of lesions: chosen, scored and shown for each, healthy scans at the same level."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pddm_utils.benchmark.levels import family_levels, label_noise_levels, levels_of_sets, sets_by_level
from pddm_utils.benchmark.run import Benchmark, run_benchmark
from pddm_utils.benchmark.tables import healthy_twin, scan_auroc_table
from pddm_utils.core.settings import load_settings, profile_names
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.publish.how_made import timestep_line

SETS = ["x-healthy", "x-tumour", "x-ms", "mslub-t2"]


@pytest.fixture
def selection() -> pd.DataFrame:
    """Tumours are found best at 818, by far; MS lesions at 499."""
    rows = [("x-tumour", 499, 0.1), ("x-tumour", 818, 0.5), ("x-ms", 499, 0.02), ("x-ms", 818, 0.01)]
    return pd.DataFrame(
        [
            {"method": "ddpm", "dataset": dataset, "timestep": level, "subject": name, "auprc": auprc}
            for dataset, level, auprc in rows
            for name in "ab"
        ]
    )


def test_each_family_has_its_own_level_where_the_profile_says_so(selection):
    mean = levels_of_sets(selection, load_settings("smoke"), SETS)
    assert set(mean.values()) == {818} and len(mean) == len(SETS)
    family = levels_of_sets(selection, load_settings("smoke", {"level_choice": "family"}), SETS)
    assert [family["ddpm", name] for name in SETS] == [818, 818, 499, 818]
    assert sets_by_level(family, "ddpm") == {499: ["x-healthy", "x-ms"], 818: ["x-healthy", "x-tumour", "mslub-t2"]}
    assert family_levels(selection) == {("ddpm", "x-tumour"): 818, ("ddpm", "x-ms"): 499}


def test_a_family_is_held_against_healthy_scans_at_its_own_level(selection):
    settings = load_settings("smoke", {"level_choice": "family"})
    chosen = levels_of_sets(selection, settings, SETS)
    facts = {"method": "ddpm", "seed": 0, "rule": DEFAULT_RULE, "threshold": 0.1}
    records = []
    for number in range(6):
        for dataset, level, score in (("x-healthy", 818, 9.0), ("x-healthy", 499, 0.1), ("x-ms", 499, 0.2)):
            person = f"{dataset}{number}"
            records.append({**facts, "dataset": dataset, "timestep": level, "subject": person, "scan_score": score})
    scores = label_noise_levels(pd.DataFrame(records), chosen, settings)
    healthy = scores[scores.dataset == "x-healthy"].groupby("timestep").noise_level.unique()
    assert healthy[818].tolist() == ["validation"] and healthy[499].tolist() == ["family"]
    assert scan_auroc_table(scores).set_index("dataset").auroc["x-ms"] == 1.0
    assert timestep_line(scores) == "DDPM, whole image: timestep 818 on x-healthy, 499 on x-ms"


def test_the_healthy_twin_of_every_family():
    assert {healthy_twin(f"ixi-t1-{kind}") for kind in ("tumour", "ms", "real-shape", "real-ms", "mass-effect")} == {
        "ixi-t1-healthy"
    }
    assert healthy_twin("soop-flair-small") == "soop-flair-free"


@pytest.mark.parametrize("name", sorted({"families", "soop", "methods", "paper-corrected"} & set(profile_names())))
def test_seeds_of_one_table_have_equal_steps(name):
    settings = load_settings(name)
    assert len({settings.steps_for(seed) for seed in settings.seeds}) == 1


def test_a_run_scores_each_family_at_its_level_and_the_restoration_of_inserted_lesions(tmp_path: Path):
    """The smallest run; where levels differ by chance they are scored apart, and in any case nothing is lost."""
    settings = load_settings(
        "smoke",
        {"level_choice": "family", "lesion_kinds": ["tumour", "ms"], "methods": ["intensity", "ddpm"], "seeds": [0]},
    )
    settings = replace(settings, train_subjects=1, train_steps=2, checkpoint_every=2, timesteps=(100, 818))
    run = Benchmark(settings, False, tmp_path / "runs", tmp_path / "results")
    scores = run_benchmark(run)
    chosen = levels_of_sets(
        pd.read_csv(tmp_path / "results" / "selection.csv").query("timestep >= 0"), settings, run.test_sets
    )
    ddpm = scores[(scores.method == "ddpm") & (scores.noise_level == "validation")]
    assert {dataset: rows.timestep.unique().tolist() for dataset, rows in ddpm.groupby("dataset")} == {
        dataset: [level] for (_, dataset), level in chosen.items()
    }
    healthy = scores[(scores.method == "ddpm") & scores.dataset.str.endswith("-healthy")]
    assert set(healthy.timestep) == set(chosen.values())
    lesioned = ~scores.dataset.str.endswith("-healthy")
    for column in ("restoration_l1", "lesion_l1"):
        assert scores[column].notna().eq(lesioned).all()
    assert (scores[lesioned].lesion_l1 > 0).all()
    assert np.allclose(scores[lesioned].groupby("subject").lesion_l1.nunique(), 1), "the same for every method"
