"""The paper's profiles: what they say, and a dry run of the full-size network on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pddm_utils.core.settings import load_settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import write_manifest
from pddm_utils.data.prepare import ScanCache, prepare_all
from pddm_utils.data.slices import HealthySlices
from pddm_utils.data.sources.simulated import simulated_rows
from pddm_utils.diffusion.network import parameter_count
from pddm_utils.diffusion.pipeline import load_pipeline, make_scheduler
from pddm_utils.methods.registry import make_method
from pddm_utils.training import loop as training
from pddm_utils.training.estimate import estimate_training
from pddm_utils.training.loop import read_training
from test_training import assert_same, learning_rates, trainer

PAPER_PARAMETERS = 37_513_345


def test_paper_profile_is_the_reproduction_sheet() -> None:
    paper = load_settings("paper")
    sheet = {
        "contrast": "T2",
        "network": "paper",
        "noise": "simplex",
        "schedule": "squaredcos_cap_v2",
        "box_size": 48,
        "stride": 48,
        "timestep_power": 1,
        "train_steps": 19_200,
        "batch_size": 32,
        "learning_rate": 1e-4,
        "ema_decay": 0.0,
        "timesteps": (333,),
        "authors_timestep": 333,
    }
    assert {name: getattr(paper, name) for name in sheet} == sheet
    assert set(learning_rates(paper, 100)) == {1e-4}


def test_level_of_unit_variance_noise_is_as_strong_as_the_published_one() -> None:
    """Their simplex noise has a standard deviation of about 0.58, ours 1: equal noise-to-signal ratios."""
    alpha_bar = make_scheduler("squaredcos_cap_v2").alphas_cumprod
    ratio = ((1 - alpha_bar) / alpha_bar).sqrt()
    level = load_settings("paper").authors_timestep
    assert float(ratio[level]) == pytest.approx(0.58 * float(ratio[499]), rel=0.01)


def test_corrected_profile_trains_the_same_and_chooses_on_validation() -> None:
    paper, corrected = load_settings("paper"), load_settings("paper-corrected")
    trained = (
        "network",
        "noise",
        "schedule",
        "box_size",
        "stride",
        "train_steps",
        "batch_size",
        "learning_rate",
        "ema_decay",
        "learning_rate_decay",
    )
    assert all(getattr(paper, name) == getattr(corrected, name) for name in trained)
    assert len(corrected.timesteps) > 1 and 499 in corrected.timesteps and len(corrected.seeds) == 3


def test_estimate_changes_nothing_and_grows_with_the_work(tmp_path: Path) -> None:
    plain = trainer(tmp_path / "plain").run()
    made = trainer(tmp_path / "estimated")
    one, two = (estimate_training(made.add_gradients, made.network, 4, micro, steps=1000) for micro in (1, 4))
    assert all(p.grad is None for p in made.network.parameters())
    weights = 5 * 4 * parameter_count(made.network)
    assert weights < one.memory < two.memory and (two.memory - weights) == 4 * (one.memory - weights)
    assert one.seconds > 0 and "1000 steps" in str(one) and "GB of memory" in str(one)
    assert_same(plain, made.run())


def test_estimate_is_printed_before_a_long_training(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(training, "_ESTIMATE_FROM_STEPS", 12)
    trainer(tmp_path / "long").run()
    assert "pddpm seed 0, cpu: about" in capsys.readouterr().out
    trainer(tmp_path / "short", train_steps=11).run()
    assert "about" not in capsys.readouterr().out


@pytest.mark.slow
def test_dry_run_of_the_paper_profile(tmp_path: Path, monkeypatch) -> None:
    """Two steps of two micro-batches of two slices on the full-size network, then four slices reconstructed."""
    monkeypatch.setattr(training, "VALIDATION_DRAWS", 2)
    torch.set_num_threads(1)
    write_manifest(simulated_rows("T2", 1, 1, 0, 0), tmp_path / "scans.csv")
    settings = load_settings(
        "paper",
        {
            "manifest": str(tmp_path / "scans.csv"),
            "train_steps": 2,
            "batch_size": 4,
            "micro_batch_size": 2,
            "checkpoint_every": 2,
        },
    )
    rows, cache = cohort_rows(settings), ScanCache(tmp_path / "cache")
    prepare_all(rows, cache, progress=False)
    train, val = (HealthySlices([row for row in rows if row.split == split], cache) for split in ("train", "val"))
    made = make_method("pddpm", settings).trainer(train, val, tmp_path / "model")
    assert parameter_count(made.network) == PAPER_PARAMETERS
    folder = made.run()
    (entry,) = read_training(folder)["history"]
    assert entry["step"] == 2 and 0 < entry["loss"] < 2 and 0 < entry["validation_loss"] < 2
    scan = cache.load(rows[-1])
    image, brain_mask = scan.image[30:34], scan.brain_mask[30:34]
    reconstruction = load_pipeline(folder).reconstruct_volume(image, brain_mask)
    assert reconstruction.shape == (4, 96, 96) and np.isfinite(reconstruction).all()
    assert (reconstruction != image).any() and 0 <= reconstruction.min() <= reconstruction.max() <= 1
