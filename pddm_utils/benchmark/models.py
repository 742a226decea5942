"""Trains or loads the methods of a benchmark run; a model is trained again where settings or data differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pddm_utils.benchmark.store import key_of
from pddm_utils.core.provenance import warn_of_others
from pddm_utils.core.settings import Settings
from pddm_utils.core.shipped import model_name, weights_folder
from pddm_utils.core.threads import use_threads
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, prepare_all
from pddm_utils.data.slices import HealthySlices
from pddm_utils.diffusion.fast_cpu import fast_cpu
from pddm_utils.methods.base import Method
from pddm_utils.methods.registry import NOISE_LEVEL_METHODS, TRAINED_METHODS, make_method, open_method, training_key
from pddm_utils.training.loop import finished_key, read_training


def healthy_rows(rows: Sequence[ManifestRow], split: str) -> list[ManifestRow]:
    """The scans without a lesion of one split."""
    return [row for row in rows if row.split == split and not row.lesion_mask]


def model_folder(
    settings: Settings, method: str, seed: int, runs: Path, rows: Sequence[ManifestRow] | None = None
) -> Path:
    """Where the trained model of a (method, seed) lies, or will lie: named by its settings and its healthy scans.

    Args:
        settings: the profile.
        method: one that learns.
        seed: of the training run.
        runs: folder of all models.
        rows: the cohort, when it is at hand already.

    Raises:
        InputError: the data is missing.
    """
    rows = cohort_rows(settings) if rows is None else rows
    key = key_of(training_key(settings, method, seed), healthy_rows(rows, "train") + healthy_rows(rows, "val"))
    return runs / "models" / f"{method}-seed{seed}-{key}"


def is_trained(folder: Path) -> bool:
    """Whether a finished model lies there; where another commit or other packages made it, a warning says so."""
    if finished_key(folder) is None:
        return False
    warn_of_others(read_training(folder).get("made_with", [{}]))
    return True


def train_method(
    settings: Settings,
    name: str,
    seed: int,
    runs: Path,
    cache_folder: Path,
    rows: Sequence[ManifestRow] | None = None,
) -> Path:
    """Fit one method on the healthy training slices; done already, or interrupted: only the rest is computed.

    Args:
        settings: the profile.
        name: a method that learns.
        seed: of the training run.
        runs: folder for models and checkpoints.
        cache_folder: prepared scans.
        rows: the cohort, when it is at hand already.

    Returns:
        Folder of the trained model.
    """
    rows, cache = cohort_rows(settings) if rows is None else rows, ScanCache(cache_folder)
    folder = model_folder(settings, name, seed, runs, rows)
    if is_trained(folder):
        return folder
    use_threads(settings.threads)
    fast_cpu()
    train, val = (healthy_rows(rows, split) for split in ("train", "val"))
    prepare_all(train + val, cache)
    make_method(name, settings, seed).fit(HealthySlices(train, cache), HealthySlices(val, cache), folder)
    return folder


def load_method(settings: Settings, name: str, seed: int, runs: Path, shipped: bool) -> Method:
    """A fitted method: trained by this run, or shipped with the project.

    Raises:
        InputError: its weights are not there or belong to another network.
    """
    folder = weights_of(settings, name, seed, runs, shipped) if name in TRAINED_METHODS else None
    fast_cpu()
    return open_method(name, settings, seed, folder)


def weights_of(
    settings: Settings, name: str, seed: int, runs: Path, shipped: bool, rows: Sequence[ManifestRow] | None = None
) -> Path:
    """Folder of the weights of a method that learns: trained by this run, or shipped with the project."""
    return weights_folder(model_name(settings, name)) if shipped else model_folder(settings, name, seed, runs, rows)


def settings_of_shipped(settings: Settings) -> Settings:
    """The profile with one seed and with the network, noise and boxes that the shipped models were trained with."""
    changes: dict[str, Any] = {"seeds": settings.seeds[:1]}
    for name in (name for name in settings.methods if name in NOISE_LEVEL_METHODS):
        made_with = read_training(weights_folder(model_name(settings, name)))["settings"]
        changes |= {key: made_with[key] for key in ("network", "noise", "schedule", "box_size", "stride")}
    return dataclasses.replace(settings, **changes)
