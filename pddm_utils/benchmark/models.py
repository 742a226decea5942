"""Trains or loads the methods of a benchmark run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pddm_utils.benchmark.origins import find_folder, is_started, other_folders, start_origin, training_origin
from pddm_utils.core.settings import Settings
from pddm_utils.core.shipped import model_name, weights_folder
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, prepare_all
from pddm_utils.data.slices import HealthySlices
from pddm_utils.diffusion.fast_cpu import fast_cpu
from pddm_utils.methods.base import Method
from pddm_utils.methods.registry import METHODS, TRAINED_METHODS, make_method, open_method, training_key
from pddm_utils.source_code import code_version


def training_code(name: str) -> str:
    """Version of the code that the weights of a method depend on."""
    module = f"pddm_utils.methods.{METHODS[name].made_by.partition('.')[0]}"
    return code_version(module, "pddm_utils.training.loop", "pddm_utils.data.slices")


def scoring_code(name: str) -> str:
    """Version of the code that the scores of a method depend on, besides its weights."""
    module = f"pddm_utils.methods.{METHODS[name].made_by.partition('.')[0]}"
    return code_version(module, "pddm_utils.benchmark.evaluate")


def healthy_rows(rows: Sequence[ManifestRow], split: str) -> list[ManifestRow]:
    """The scans without a lesion of one split."""
    return [row for row in rows if row.split == split and not row.lesion_mask]


def model_folder(
    settings: Settings,
    method: str,
    seed: int,
    runs: Path,
    rows: Sequence[ManifestRow] | None = None,
    accept_code_change: bool = False,
) -> Path:
    """Where the trained model of a (method, seed) lies, or will lie: keyed by settings, data and code.

    Args:
        settings: the profile.
        method: one that learns.
        seed: of the training run.
        runs: folder of all models.
        rows: the cohort, when it is at hand already.
        accept_code_change: a model that other code trained from the same settings and data will do.

    Raises:
        InputError: the data is missing, or what lies there was trained by other code than its name says.
    """
    rows = cohort_rows(settings) if rows is None else rows
    origin = training_origin(training_code(method), healthy_rows(rows, "train") + healthy_rows(rows, "val"))
    name = f"{method}-seed{seed}-{training_key(settings, method, seed)}"
    return find_folder(runs / "models", name, origin, accept_code_change)


def train_method(
    settings: Settings,
    name: str,
    seed: int,
    runs: Path,
    cache_folder: Path,
    rows: Sequence[ManifestRow] | None = None,
    accept_code_change: bool = False,
) -> None:
    """Fit one method on the healthy training slices; done already, or interrupted: only the rest is computed.

    Args:
        settings: the profile.
        name: a method that learns.
        seed: of the training run.
        runs: folder for models and checkpoints.
        cache_folder: prepared scans.
        rows: the cohort, when it is at hand already.
        accept_code_change: use, or go on with, what other code trained from the same settings and data.
    """
    torch.set_num_threads(settings.threads)
    fast_cpu()
    rows, cache = cohort_rows(settings) if rows is None else rows, ScanCache(cache_folder)
    train, val = (healthy_rows(rows, split) for split in ("train", "val"))
    folder = model_folder(settings, name, seed, runs, rows, accept_code_change)
    if not is_started(folder) and (others := other_folders(folder)):
        print(
            f"{name} seed {seed}: trained anew; {others[-1].name} is of other code or data "
            "(--accept-code-change takes it where only the code differs)",
            file=sys.stderr,
        )
    start_origin(folder, training_origin(training_code(name), train + val))
    prepare_all(train + val, cache)
    make_method(name, settings, seed).fit(HealthySlices(train, cache), HealthySlices(val, cache), folder)


def load_method(settings: Settings, name: str, seed: int, runs: Path, shipped: bool) -> Method:
    """A fitted method: trained by this run, or shipped with the project.

    Raises:
        InputError: its weights are not there or belong to another network.
    """
    folder = weights_of(settings, name, seed, runs, shipped) if name in TRAINED_METHODS else None
    fast_cpu()
    return open_method(name, settings, seed, folder)


def weights_of(
    settings: Settings,
    name: str,
    seed: int,
    runs: Path,
    shipped: bool,
    rows: Sequence[ManifestRow] | None = None,
    accept_code_change: bool = False,
) -> Path:
    """Folder of the weights of a method that learns: trained by this run, or shipped with the project."""
    if shipped:
        return weights_folder(model_name(settings, name))
    return model_folder(settings, name, seed, runs, rows, accept_code_change)
