"""Runs what is missing of a benchmark and writes `scores.csv`, `selection.csv` and `run.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from pddm_utils.benchmark.evaluate import score_noise_level, score_test_scans
from pddm_utils.benchmark.models import load_method, train_method, weights_of
from pddm_utils.benchmark.provenance import code_digest, environment, weights_digest, write_csv
from pddm_utils.catalogue import METHODS, NOISE_LEVEL_METHODS, TRAINED_METHODS
from pddm_utils.data.cohort import cohort_rows, missing_test_sets
from pddm_utils.data.prepare import ScanCache, prepare_all
from pddm_utils.files import write_text
from pddm_utils.settings import Settings
from pddm_utils.training import read_training
from pddm_utils.weights import model_name, stored_parameters, weights_folder


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark: settings and the folders it works in.

    Attributes:
        settings: the profile.
        shipped: use the shipped weights (first seed only) instead of training.
        runs: models, prepared scans and partial results; what is there is not computed again.
        results: receives `scores.csv`, `selection.csv` and `run.json`.
        jobs: processes side by side, each with `settings.threads` threads.
    """

    settings: Settings
    shipped: bool
    runs: Path
    results: Path
    jobs: int = 1

    @property
    def cache(self) -> Path:
        """Prepared scans."""
        return self.runs / "cache"


def run_benchmark(benchmark: Benchmark) -> pd.DataFrame:
    """Train what is missing, choose noise levels on validation scans, score every test scan.

    Killed and started again it goes on where it was; parts are keyed by settings and weights.

    Returns:
        The table written to `scores.csv`: one row for each data set, method, seed, noise level, subject and rule.

    Raises:
        InputError: data or weights are missing or unusable.
    """
    started = time.perf_counter()
    if benchmark.shipped:
        benchmark = dataclasses.replace(benchmark, settings=_settings_of_shipped(benchmark.settings))
    settings = benchmark.settings
    for name in missing_test_sets(settings):
        print(f"{name}: left out, it needs real scans (set PDDM_DATA)", file=sys.stderr)
    prepare_all(cohort_rows(settings), ScanCache(benchmark.cache))
    trained = [name for name in settings.methods if name in TRAINED_METHODS]
    if not benchmark.shipped:
        _in_parallel(benchmark, "training", [
            (train_method, (settings, name, seed, benchmark.runs, benchmark.cache))
            for seed in settings.seeds for name in trained])
    selection = _concatenate(_in_parallel(benchmark, "choosing noise levels", [
        (_select, (benchmark, name, timestep))
        for name in settings.methods[::-1] if name in NOISE_LEVEL_METHODS
        for timestep in sorted({*settings.timesteps, settings.authors_timestep})]))
    chosen = choose_timesteps(selection, settings)
    scores = _concatenate(_in_parallel(benchmark, "scoring test scans", [
        (_score, (benchmark, *unit)) for unit in _units(settings, chosen)]))
    scores = _label_noise_levels(scores, chosen, settings)
    _write(benchmark, scores, selection, time.perf_counter() - started)
    return scores


def _settings_of_shipped(settings: Settings) -> Settings:
    """The profile with one seed and with the network, noise and boxes that the shipped models were trained with."""
    changes: dict[str, Any] = {"seeds": settings.seeds[:1]}
    for name in (name for name in settings.methods if name in TRAINED_METHODS):
        made_with = read_training(weights_folder(model_name(settings, name)))["settings"]
        changes |= {key: made_with[key] for key in ("network", "noise", "schedule", "box_size", "stride")}
    return dataclasses.replace(settings, **changes)


def choose_timesteps(selection: pd.DataFrame, settings: Settings) -> dict[str, int]:
    """For each method the noise level with the best validation AUPRC (mean over subjects, then over lesion kinds)."""
    if selection.empty:
        return {}
    candidates = selection[selection.timestep.isin(settings.timesteps)]
    means = candidates.groupby(["method", "timestep", "dataset"]).auprc.mean().groupby(["method", "timestep"]).mean()
    return {method: int(means[method].idxmax()) for method in candidates.method.unique()}


def _units(settings: Settings, chosen: dict[str, int]) -> list[tuple[str, int, int | None]]:
    """(method, seed, timestep) to score; the slowest first, and the authors' level for the first seed only."""
    units: list[tuple[str, int, int | None]] = []
    for name in settings.methods[::-1]:
        if name not in NOISE_LEVEL_METHODS:
            seeds = settings.seeds if name in TRAINED_METHODS else settings.seeds[:1]
            units += [(name, seed, None) for seed in seeds]
            continue
        levels = {(seed, chosen[name]) for seed in settings.seeds}
        if "authors" in settings.noise_levels:
            levels.add((settings.seeds[0], settings.authors_timestep))
        units += [(name, seed, timestep) for seed, timestep in sorted(levels)]
    return units


def _select(benchmark: Benchmark, name: str, timestep: int) -> pd.DataFrame:
    settings, seed = benchmark.settings, benchmark.settings.seeds[0]
    rows = [row for row in cohort_rows(settings) if row.split == "val" and row.lesion_mask]

    def compute() -> pd.DataFrame:
        method = load_method(settings, name, seed, benchmark.runs, benchmark.shipped)
        return score_noise_level(method, rows, ScanCache(benchmark.cache), timestep, settings.selection_slice_step)

    return _part(benchmark, ("select", name, seed, timestep), rows, compute)


def _score(benchmark: Benchmark, name: str, seed: int, timestep: int | None) -> pd.DataFrame:
    settings = benchmark.settings
    rows = cohort_rows(settings)
    val, test = ([row for row in rows if row.split == split] for split in ("val", "test"))

    def compute() -> pd.DataFrame:
        method = load_method(settings, name, seed, benchmark.runs, benchmark.shipped)
        table = score_test_scans(method, val, test, ScanCache(benchmark.cache), timestep, benchmark.runs / "maps")
        return table.assign(method=name, seed=seed, timestep=-1 if timestep is None else timestep)

    return _part(benchmark, ("score", name, seed, timestep), val + test, compute)


def _part(
    benchmark: Benchmark, unit: tuple, rows: Sequence, compute: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """A partial table from disk, or computed and put there in one step."""
    torch.set_num_threads(benchmark.settings.threads)
    name, seed = unit[1], unit[2]
    weights = ""
    if name in TRAINED_METHODS:
        weights = weights_digest(weights_of(benchmark.settings, name, seed, benchmark.runs, benchmark.shipped))
    content = [unit, [dataclasses.astuple(row) for row in rows], weights,
               code_digest(Path(__file__).with_name("evaluate.py")),
               benchmark.settings.selection_slice_step,
               *(getattr(benchmark.settings, setting) for setting in METHODS[name].scored_by)]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    path = benchmark.runs / "parts" / f"{'-'.join(map(str, unit))}-{key}.csv"
    if not path.is_file():
        table = compute()
        write_csv(table, path)
    return pd.read_csv(path)


def _in_parallel(benchmark: Benchmark, what: str, calls: list[tuple[Callable, tuple]]) -> list:
    """Results of independent calls in their order, `jobs` at a time, with a progress bar."""
    if not calls:
        return []
    backend = "loky" if benchmark.jobs > 1 else "sequential"
    threads = benchmark.settings.threads if backend == "loky" else None
    with parallel_config(backend=backend, inner_max_num_threads=threads):
        results = Parallel(n_jobs=benchmark.jobs, return_as="generator")(delayed(f)(*args) for f, args in calls)
        return list(tqdm(results, total=len(calls), desc=what, unit="part"))


def _concatenate(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _label_noise_levels(scores: pd.DataFrame, chosen: dict[str, int], settings: Settings) -> pd.DataFrame:
    """Name each row's noise level: `validation` (chosen there), `authors` (published), `none`."""
    levels = {"validation": scores.timestep == scores.method.map(chosen), "none": scores.timestep < 0}
    if "authors" in settings.noise_levels:
        levels["authors"] = (scores.timestep == settings.authors_timestep) & (scores.seed == settings.seeds[0])
    labelled = [scores[rows].assign(noise_level=level) for level, rows in levels.items()]
    columns = ["dataset", "method", "seed", "subject", "noise_level", "timestep", "rule", "threshold"]
    table = pd.concat(labelled, ignore_index=True).sort_values(columns, kind="stable", ignore_index=True)
    return table[columns + [name for name in table.columns if name not in columns]]


def _write(benchmark: Benchmark, scores: pd.DataFrame, selection: pd.DataFrame, seconds: float) -> None:
    write_csv(scores, benchmark.results / "scores.csv")
    write_csv(selection, benchmark.results / "selection.csv")
    write_text(benchmark.results / "run.json", json.dumps(_provenance(benchmark, seconds), indent=1) + "\n")


def _provenance(benchmark: Benchmark, seconds: float) -> dict[str, Any]:
    settings = benchmark.settings
    models = {}
    for name in (name for name in settings.methods if name in TRAINED_METHODS):
        for seed in settings.seeds:
            folder = weights_of(settings, name, seed, benchmark.runs, benchmark.shipped)
            record = read_training(folder)
            models[f"{name}-seed{seed}"] = {"parameters": stored_parameters(folder), "steps": record["step"],
                                            "seconds": round(record["seconds"], 1),
                                            "cpu_seconds": round(record["cpu_seconds"], 1),
                                            "validation_loss": record["history"][-1]["validation_loss"]}
    return {
        "settings": settings.to_dict(), "weights": "shipped" if benchmark.shipped else "trained",
        **environment(), "jobs": benchmark.jobs, "left_out": missing_test_sets(settings), "models": models,
        "seconds_of_this_call": round(seconds, 1),
    }
