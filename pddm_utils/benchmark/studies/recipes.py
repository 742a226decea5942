"""Trainings of the ablations: what each changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from pddm_utils.benchmark.models import healthy_rows, is_trained, train_method
from pddm_utils.benchmark.store import key_of
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings, load_settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, prepare_all
from pddm_utils.data.simulation.randomised_slices import RandomisedSlices
from pddm_utils.data.slices import HealthySlices
from pddm_utils.diffusion.boxes import BoxGrid, random_grid_boxes
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.methods.pddpm import PatchedDDPM
from pddm_utils.methods.pipeline_method import PipelineMethod
from pddm_utils.methods.registry import method_class, training_key
from pddm_utils.training.samples import SliceSource

MIXED_SIZES = (16, 24, 32, 48, 64, 96)  # pixels; the last is the whole slice
_SIMPLEX_LEVEL = 333  # of unit variance: the noise-to-signal ratio of the authors' 499, whose noise has less
_PAPER = {
    "noise": "simplex",
    "timestep_power": 1,
    "warmup_steps": 0,
    "learning_rate": 1e-4,
    "learning_rate_decay": "none",
    "ema_decay": 0.0,
    "authors_timestep": _SIMPLEX_LEVEL,
}
_SIMULATED_T1 = {
    "cohort": "simulated",
    "train_subjects": 100,
    "val_subjects": 10,
    "val_lesion_subjects": 8,
    "test_subjects": 20,
    "extra_test_sets": [],
}


class MixedBoxDDPM(PatchedDDPM):
    """pDDPM trained on boxes of every size at once, so that sizes can be compared without a mismatch at test time."""

    def boxes(self, count: int, generators: list[torch.Generator]) -> torch.Tensor:
        """A cell of the grid of a drawn size, among those of `MIXED_SIZES` that fit the slice; `(B, 4)` rows."""
        side = min(self.grid.image_size)
        grids = [BoxGrid(self.grid.image_size, size) for size in MIXED_SIZES if size <= side]
        drawn = [
            (grids[int(torch.randint(len(grids), (1,), generator=generator))], generator) for generator in generators
        ]
        return torch.cat([random_grid_boxes(1, grid, [generator]) for grid, generator in drawn])


@dataclass(frozen=True)
class Recipe:
    """One training; its seed is the first of the profile.

    Attributes:
        profile: settings to start from.
        method: of the catalogue.
        changes: settings that differ from the profile's.
        made_by: how it learns, where not as the method itself does.
        start: recipe whose weights it starts from; random ones when empty.
        slices: what it sees of the healthy scans.
    """

    profile: str
    method: str = "pddpm"
    changes: Mapping[str, Any] = field(default_factory=dict)
    made_by: type[PipelineMethod] | None = None
    start: str = ""
    slices: Callable[[Sequence[ManifestRow], ScanCache], SliceSource] = HealthySlices

    @property
    def settings(self) -> Settings:
        """Of the training and of the cohort (`InputError` for a bad change)."""
        return load_settings(self.profile, dict(self.changes))


RECIPES = {
    "fixed grid": Recipe("methods"),
    "random boxes": Recipe("methods", "pddpm-random"),
    "simplex noise": Recipe("methods", changes={"noise": "simplex", "authors_timestep": _SIMPLEX_LEVEL}),
    "whole slice": Recipe("methods", "ddpm"),
    "whole slice, simplex noise": Recipe(
        "methods", "ddpm", changes={"noise": "simplex", "authors_timestep": _SIMPLEX_LEVEL}
    ),
    "the paper's": Recipe("methods", changes=_PAPER),
    "the paper's, whole slice": Recipe("methods", "ddpm", changes=_PAPER),
    "mixed boxes": Recipe("methods", made_by=MixedBoxDDPM),
    "simulated": Recipe("real", changes=_SIMULATED_T1),
    "real": Recipe("real"),
    "simulated, then real": Recipe("real", start="simulated"),
    "domain-randomised": Recipe("real", slices=RandomisedSlices),
    "domain-randomised, then real": Recipe("real", start="domain-randomised"),
}


def fine_tuning(made_by: type[PipelineMethod], start: Path) -> type[PipelineMethod]:
    """The method with the trained weights in `start` instead of random first ones."""

    class FineTuning(made_by):  # type: ignore[valid-type, misc]  # no checker follows a class that is chosen
        def make_network(self) -> torch.nn.Module:
            network = super().make_network()
            network.load_state_dict(load_pipeline(start).unet.state_dict())
            return network

    return FineTuning


def train_recipe(name: str, runs: Path) -> Path:
    """Train a recipe and those it starts from, or go on; what is finished is kept. Plain ones are the benchmark's.

    Args:
        name: of one of `RECIPES`.
        runs: folder of models, checkpoints and prepared scans.

    Returns:
        Folder of the finished pipeline.

    Raises:
        InputError: an unknown name, or no data.
    """
    if name not in RECIPES:
        raise InputError(f"recipe {name!r}; choose among {', '.join(RECIPES)}")
    recipe, settings = RECIPES[name], RECIPES[name].settings
    rows, seed, cache = cohort_rows(settings), settings.seeds[0], ScanCache(runs / "cache")
    if recipe.made_by is None and not recipe.start and recipe.slices is HealthySlices:
        return train_method(settings, recipe.method, seed, runs, cache.folder, rows)
    made_by, start = recipe.made_by or cast(type[PipelineMethod], method_class(recipe.method)), None
    if recipe.start:
        start = train_recipe(recipe.start, runs)
        made_by = fine_tuning(made_by, start)
    train, val = (healthy_rows(rows, split) for split in ("train", "val"))
    made = [
        training_key(settings, recipe.method, seed),
        recipe.made_by and recipe.made_by.__name__,
        recipe.slices.__name__,
    ]
    folder = runs / "models" / f"ablation-{recipe.method}-seed{seed}-{key_of(made, train + val, start)}"
    if is_trained(folder):
        return folder
    prepare_all(train + val, cache)
    made_by(recipe.method, settings, seed).fit(recipe.slices(train, cache), recipe.slices(val, cache), folder)
    return folder
