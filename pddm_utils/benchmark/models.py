"""Trains or loads the methods of a benchmark run."""

from __future__ import annotations

from pathlib import Path

import torch

from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.prepare import ScanCache, prepare_all
from pddm_utils.data.slices import HealthySlices
from pddm_utils.methods.anoddpm import AnoDDPMReconstruction
from pddm_utils.methods.autoencoders import (
    AutoencoderReconstruction,
    SpatialReconstruction,
    VariationalReconstruction,
)
from pddm_utils.methods.base import Method
from pddm_utils.methods.cddpm import ConditionedReconstruction
from pddm_utils.methods.dae import DenoisingReconstruction
from pddm_utils.methods.diffusion import DiffusionReconstruction
from pddm_utils.methods.fanogan import FAnoGANReconstruction
from pddm_utils.methods.intensity import IntensityThreshold
from pddm_utils.methods.pca import PCAReconstruction
from pddm_utils.settings import Settings
from pddm_utils.weights import model_name, weights_folder

LEARNING_METHODS = {
    "pca": PCAReconstruction,
    "ae": AutoencoderReconstruction,
    "vae": VariationalReconstruction,
    "svae": SpatialReconstruction,
    "dae": DenoisingReconstruction,
    "fanogan": FAnoGANReconstruction,
    "ddpm": DiffusionReconstruction,
    "anoddpm": AnoDDPMReconstruction,
    "mddpm": DiffusionReconstruction,
    "cddpm": ConditionedReconstruction,
    "pddpm": DiffusionReconstruction,
    "pddpm-random": DiffusionReconstruction,
}


def model_folder(settings: Settings, method: str, seed: int, runs: Path) -> Path:
    """Where the trained model of a (method, seed) lies."""
    return runs / "models" / f"{method}-seed{seed}-{settings.training_key(method, seed)}"


def make_method(settings: Settings, name: str, seed: int) -> Method:
    """An unfitted method."""
    return LEARNING_METHODS[name](name, settings, seed) if name in LEARNING_METHODS else IntensityThreshold()


def train_method(settings: Settings, name: str, seed: int, runs: Path, cache_folder: Path) -> None:
    """Fit one method on the healthy training slices; done already, or interrupted: only the rest is computed.

    Args:
        settings: the profile.
        name: a method that learns.
        seed: of the training run.
        runs: folder for models and checkpoints.
        cache_folder: prepared scans.
    """
    torch.set_num_threads(settings.threads)
    rows, cache = cohort_rows(settings), ScanCache(cache_folder)
    healthy = [row for row in rows if not row.lesion_mask]
    train, val = ([row for row in healthy if row.split == split] for split in ("train", "val"))
    prepare_all(train + val, cache)
    method = make_method(settings, name, seed)
    method.fit(HealthySlices(train, cache), HealthySlices(val, cache), model_folder(settings, name, seed, runs))


def load_method(settings: Settings, name: str, seed: int, runs: Path, shipped: bool) -> Method:
    """A fitted method: trained by this run, or shipped with the project.

    Raises:
        InputError: its weights are not there or belong to another network.
    """
    if name not in LEARNING_METHODS:
        return IntensityThreshold()
    folder = weights_of(settings, name, seed, runs, shipped)
    return LEARNING_METHODS[name].from_pretrained(folder, name, settings, seed)


def weights_of(settings: Settings, name: str, seed: int, runs: Path, shipped: bool) -> Path:
    """Folder of the weights of a method that learns: trained by this run, or shipped with the project."""
    return weights_folder(model_name(settings, name)) if shipped else model_folder(settings, name, seed, runs)
