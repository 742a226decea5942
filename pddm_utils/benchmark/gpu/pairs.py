"""DDPM and pDDPM at equal compute on a packed cohort: trained on the device, scored, and packed to travel back."""

from __future__ import annotations

import dataclasses
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from pddm_utils.benchmark.evaluate import choose_timesteps, score_noise_level, score_test_scans, validation_thresholds
from pddm_utils.benchmark.gpu.speed import synchronise
from pddm_utils.benchmark.scoring import scored
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file
from pddm_utils.core.settings import Settings
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.packed import PackedScans
from pddm_utils.methods.pipeline_method import PipelineMethod
from pddm_utils.methods.registry import make_method
from pddm_utils.training.device import DeviceSlices, DeviceTrainer

METHODS = ("ddpm", "pddpm")
LARGEST_FILE_MIB = 16  # that travels back
PAPER_STEPS, PAPER_BATCH, PAPER_RATE = 19_200, 32, 1e-4  # of a whole training of the paper's network
_TIMED, _FEWEST = 3, 2  # steps
_TRAINING_SHARE = 0.6  # of a pair's time; the rest is for its scores


class Pair:
    """Both methods with one network on one cohort.

    Args:
        cohort: packed; its settings are the recipe.
        network: a size of `NETWORKS`.
        large: whether this is the large network, which has the batch size and the learning rate of the paper.
    """

    def __init__(self, cohort: PackedScans, network: str, large: bool) -> None:
        self.cohort, self.network, self.large = cohort, network, large
        self.recipe = dataclasses.replace(_recipe(cohort), network=network, seeds=(0,), mixed_precision="auto")
        if large:
            batch = min(PAPER_BATCH, self.recipe.batch_size)
            self.recipe = dataclasses.replace(self.recipe, batch_size=batch, learning_rate=PAPER_RATE)

    @property
    def name(self) -> str:
        """Such as `gpu-soop-middle`."""
        return f"{self.recipe.profile}-{self.network}{'-large' if self.large else ''}"

    def settings(self, steps: int) -> Settings:
        """The recipe with so many steps, and a checkpoint after each third of them."""
        return dataclasses.replace(
            self.recipe, train_steps=steps, warmup_steps=min(100, steps // 10), checkpoint_every=max(1, steps // 3)
        )

    def rows(self, split: str, lesioned: bool) -> list[ManifestRow]:
        """Scans of a split without or with a lesion."""
        return [row for row in self.cohort.rows if row.split == split and bool(row.lesion_mask) == lesioned]

    def method(self, name: str, steps: int) -> PipelineMethod:
        """A method that has learnt nothing yet."""
        made: Any = make_method(name, self.settings(steps))
        return made

    def trainer(self, name: str, steps: int, folder: Path) -> DeviceTrainer:
        """Its training, with all healthy slices in the memory of this process's device."""
        device = PartialState().device
        train, val = (
            DeviceSlices(self.cohort.slices_of(self.rows(split, lesioned=False)), device) for split in ("train", "val")
        )
        return DeviceTrainer(self.method(name, steps), 0, train, val, folder)

    def plan(self, seconds: float, folder: Path) -> dict[str, Any]:
        """How many steps each method gets, from the measured time of a few; the same in every process.

        The recipe's `train_steps` are the most.

        Args:
            seconds: for training and scoring both.
            folder: for nothing that is kept.
        """
        trainer = self.trainer(METHODS[1], self.recipe.train_steps, folder / "timed")
        trainer.step(0)
        synchronise(PartialState().device)
        start = time.perf_counter()
        for number in range(1, 1 + _TIMED):
            trainer.step(number)
        synchronise(PartialState().device)
        each = (time.perf_counter() - start) / _TIMED
        steps = int(seconds * _TRAINING_SHARE / len(METHODS) / each)
        found = {
            "steps": min(max(steps, _FEWEST), self.recipe.train_steps),
            "seconds_a_step": each,
            "batch": self.recipe.batch_size,
            "processes": PartialState().num_processes,
        }
        if self.large:
            found |= {"whole_training_steps": PAPER_STEPS, "whole_training_hours": PAPER_STEPS * each / 3600}
        return broadcast_object_list([found])[0]

    def train(self, name: str, steps: int, folder: Path) -> Path:
        """Train a method, or go on with it; its model's folder."""
        trainer = self.trainer(name, steps, folder / f"{self.name}-{name}")
        return trainer.run()

    def score(self, name: str, steps: int, model: Path, scratch: Path) -> tuple[dict[str, Any], pd.DataFrame]:
        """Noise level and thresholds from validation scans, then every test scan that is packed.

        Returns:
            JSON-ready means by test set, and the rows of a `scores.csv`.
        """
        method, settings, cohort = self.method(name, steps), self.settings(steps), self.cohort
        method.open(model)
        lesioned, healthy = self.rows("val", lesioned=True), self.rows("val", lesioned=False)
        mapped = {level: scored(method, settings, cohort.rows, cohort, level) for level in settings.timesteps}
        selection = pd.concat(
            score_noise_level(mapped[level], lesioned, cohort, level, settings.selection_slice_step) for level in mapped
        )
        timestep = choose_timesteps(selection, settings).get(name, settings.timesteps[0])
        thresholds = validation_thresholds(mapped[timestep], lesioned + healthy, cohort, timestep)
        test = [row for row in self.cohort.rows if row.split == "test"]
        scores = score_test_scans(mapped[timestep], thresholds, test, cohort, timestep, scratch)
        scores = scores.assign(pair=self.name, method=name, seed=0, timestep=timestep, network=self.network)
        best = selection[selection.timestep == timestep].auprc.mean() if len(selection) else float("nan")
        return {
            "timestep": timestep,
            "score": settings.score,
            "validation_auprc": _number(best),
            "test": means(scores),
        }, scores


def _recipe(cohort: PackedScans) -> Settings:
    """Settings that a cohort was packed with."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in cohort.facts["settings"].items()
    }
    try:
        return Settings(**values)
    except TypeError as error:
        raise InputError(
            f"a cohort packed by another version of this package ({error}); make the bundle again"
        ) from None


def means(scores: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Mean scores of each test set over its subjects, JSON-ready; a value that does not exist there is None."""
    one_rule = scores.drop_duplicates(["dataset", "subject"])
    return {
        str(dataset): {
            "subjects": len(rows),
            **{name: _number(rows[name].mean()) for name in ("auprc", "healthy_l1", "median_l1", "seconds")},
        }
        for dataset, rows in one_rule.groupby("dataset")
    }


def _number(value: float) -> float | None:
    """Six decimals; None for what is not a number, which JSON lacks."""
    return round(float(value), 6) if value == value else None


def pack_model(model: Path, path: Path) -> str:
    """Put a model's folder into one file that is small enough to travel back.

    Returns:
        What became of it, in words.
    """
    files = sorted(file for file in model.rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files) / 2**20
    if size > LARGEST_FILE_MIB - 0.5:
        return f"not packed: {size:.0f} MiB"
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(model))
    return path.name


def add_scores(path: Path, scores: pd.DataFrame, names: Sequence[str] = ("pair", "method")) -> None:
    """Add rows to a table in one step, in the place of older ones of the same model."""
    scores = scores.drop(columns=["precisions", "cpu_seconds"])
    if path.is_file():
        old = pd.read_csv(path)
        same = pd.concat([old[name] == scores[name].iloc[0] for name in names], axis=1).all(axis=1)
        scores = pd.concat([old[~same], scores])
    with whole_file(path) as partial:
        scores.to_csv(partial, index=False)
