"""Runs what is missing of a benchmark and writes `scores.csv`, `curves.csv`, `selection.csv` and `run.json`.

The work falls into units that may run anywhere, as long as they share the folder of runs: `train_unit`, `choose_unit`
and `score_unit`. `run_benchmark` runs all that are missing and writes the tables.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pddm_utils.benchmark.curves import SIDE_COLUMNS, curves_table, reconstruction_times
from pddm_utils.benchmark.evaluate import map_scans, score_noise_level, score_test_scans, validation_thresholds
from pddm_utils.benchmark.levels import label_noise_levels, levels_at_the_edge, levels_of_sets, sets_by_level
from pddm_utils.benchmark.models import is_trained, settings_of_shipped, train_method, weights_of
from pddm_utils.benchmark.scoring import score_depends_on, scored
from pddm_utils.benchmark.store import Part, in_parallel, kept_parts, key_of, write_csv
from pddm_utils.benchmark.units import models_needed, seeds_of, units_to_score
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import write_text
from pddm_utils.core.provenance import environment
from pddm_utils.core.settings import Settings
from pddm_utils.core.shipped import stored_parameters
from pddm_utils.core.threads import use_threads
from pddm_utils.data.cohort import cohort_rows, fold_rows, missing_test_sets
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan, prepare_all
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.fast_cpu import fast_cpu
from pddm_utils.methods.registry import METHODS, NOISE_LEVEL_METHODS, TRAINED_METHODS, check_methods, open_method
from pddm_utils.training.loop import read_training

Levels = Mapping[tuple[str, str], int]  # of each (method, test set)
Scored = tuple[str, int, int | None]  # method, seed, timestep
Unit = tuple[Scored, tuple[str, ...]]  # and the test sets


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark: settings and the folders it works in.

    Attributes:
        settings: the profile.
        shipped: use the shipped weights (first seed only) instead of training.
        runs: models, prepared scans and partial results; what is there is not computed again.
        results: receives `scores.csv`, `curves.csv`, `selection.csv` and `run.json`.
        jobs: processes side by side, each with `settings.threads` threads.
        seeds: those of the profile to score, and to choose noise levels with; all when empty.
        datasets: test sets to score; all when empty.
        folds: number of folds of a cross-validation, see `fold_rows`; 0 for the cohort's own split. Fold k is trained
            with seed k, for as many steps as the others, and stands in the column `seed`: the standard deviation over
            seeds is then that over folds.

    Raises:
        InputError: jobs or folds that are no number, a seed that is not the profile's or no fold, or folds of shipped
            models.
    """

    settings: Settings
    shipped: bool
    runs: Path
    results: Path
    jobs: int = 1
    seeds: tuple[int, ...] = ()
    datasets: tuple[str, ...] = ()
    folds: int = 0

    def __post_init__(self) -> None:
        check_methods(self.settings.methods)
        for name, least in (("jobs", 1), ("folds", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(f"{name} {value!r}; give a whole number from {least} on")
        if self.folds:
            if self.shipped:
                raise InputError(f"folds {self.folds}: shipped models were trained on one split; train your own")
            seeds = tuple(range(self.folds))
            object.__setattr__(
                self,
                "settings",
                dataclasses.replace(self.settings, seeds=seeds, extra_seed_steps=self.settings.train_steps),
            )
        unknown = set(self.seeds) - set(self.settings.seeds)
        if unknown:
            raise InputError(
                f"seeds {sorted(unknown)}: profile {self.settings.profile} has "
                f"{list(self.settings.seeds)}; choose among them or change its setting seeds"
            )

    @property
    def cache(self) -> Path:
        """Prepared scans."""
        return self.runs / "cache"

    @property
    def scored_seeds(self) -> tuple[int, ...]:
        """Seeds in the profile's order."""
        return tuple(seed for seed in self.settings.seeds if seed in self.seeds or not self.seeds)

    @cached_property
    def rows(self) -> list[ManifestRow]:
        """The cohort, listed and checked once: the list goes along to worker processes.

        Raises:
            InputError: data is missing, or a data set that is asked for is none of the cohort's test sets.
        """
        rows = cohort_rows(self.settings)
        known = list(dict.fromkeys(row.dataset for row in rows if row.split == "test"))
        unknown = sorted(set(self.datasets) - set(known))
        if unknown:
            raise InputError(
                f"data set {', '.join(unknown)}: no test set of profile {self.settings.profile}; choose "
                f"among {', '.join(known)}"
            )
        return [row for row in rows if row.split != "test" or row.dataset in (self.datasets or known)]

    @property
    def test_sets(self) -> list[str]:
        """Names of the test sets, in the order of the rows."""
        return list(dict.fromkeys(row.dataset for row in self.rows if row.split == "test"))

    @property
    def rows_to_prepare(self) -> list[ManifestRow]:
        """The scans that the run looks at: with shipped models none to train on."""
        return [row for row in self.rows if row.split != "train" or not self.shipped]

    def rows_of(self, seed: int) -> list[ManifestRow]:
        """The cohort of one seed's models: with folds, healthy scans are trained or validated on by turns."""
        if type(seed) is not int:
            raise InputError(f"seed {seed!r}; give a whole number")
        return fold_rows(self.rows, seed, self.folds) if self.folds else self.rows

    @property
    def models(self) -> list[tuple[str, int]]:
        """(method, seed) of the weights that are needed."""
        return models_needed(self.settings, self.scored_seeds)

    def weights(self, name: str, seed: int) -> Path:
        """Folder of the weights of a method that learns."""
        return weights_of(self.settings, name, seed, self.runs, self.shipped, self.rows_of(seed))


def run_benchmark(benchmark: Benchmark) -> pd.DataFrame:
    """Train what is missing, choose noise levels on validation scans, score every test scan.

    Killed and started again it goes on where it was; models and parts are keyed by settings and data.

    Returns:
        The table written to `scores.csv`: one row for each data set, method, seed, noise level, subject and rule.

    Raises:
        InputError: data or weights are missing or unusable.
    """
    started = time.perf_counter()
    if benchmark.shipped:
        benchmark = dataclasses.replace(benchmark, settings=settings_of_shipped(benchmark.settings))
    settings = benchmark.settings
    for name in missing_test_sets(settings):
        print(f"{name}: left out, it needs real scans (set PDDM_DATA)", file=sys.stderr)
    prepare_all(benchmark.rows_to_prepare, ScanCache(benchmark.cache), jobs=benchmark.jobs)
    if not benchmark.shipped:
        missing = [model for model in benchmark.models if not is_trained(benchmark.weights(*model))]
        calls = [partial(train_unit, benchmark, *model) for model in missing]
        in_parallel(calls, "training", benchmark.jobs, settings.threads)
    selection = _selection(benchmark, settings.methods[::-1])
    chosen = levels_of_sets(selection, settings, benchmark.test_sets)
    for line in levels_at_the_edge(chosen, settings):
        print(line, file=sys.stderr)
    scores = _scores(benchmark, _units(benchmark, chosen))
    scores = label_noise_levels(scores, chosen, settings)
    _write(benchmark, scores, selection, time.perf_counter() - started)
    return scores.drop(columns=SIDE_COLUMNS, errors="ignore")


def train_unit(benchmark: Benchmark, name: str, seed: int) -> Path:
    """Train one model, unless it is there.

    Returns:
        Its folder.
    """
    return train_method(benchmark.settings, name, seed, benchmark.runs, benchmark.cache, benchmark.rows_of(seed))


def choose_unit(benchmark: Benchmark, name: str) -> pd.DataFrame:
    """Validation AUPRC of a method, at each of its noise levels: see `pddm_utils.benchmark.levels`."""
    return _selection(benchmark, [name])


def score_unit(benchmark: Benchmark, name: str, seed: int, noise_level: str) -> pd.DataFrame:
    """Scores of one method, seed and noise level on the test scans.

    Args:
        benchmark: the run.
        name: of the method.
        seed: of its training.
        noise_level: `validation`, `authors`, or `none` for a method without noise.
    """
    if noise_level not in ("validation", "authors", "none"):
        raise InputError(f"noise_level {noise_level!r}; use validation, authors or none")
    chosen: Levels = {}
    if noise_level == "validation" and name in NOISE_LEVEL_METHODS:
        chosen = levels_of_sets(choose_unit(benchmark, name), benchmark.settings, benchmark.test_sets)
    elif noise_level == "validation":
        noise_level = "none"
    return _scores(benchmark, _units_of(benchmark, name, seed, noise_level, chosen))


def rebuild_subjects(
    benchmark: Benchmark, dataset: str, subjects: Mapping[str, str], timesteps: Mapping[str, int]
) -> tuple[dict[str, Scan], dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """Test subjects once more, as each method's first scored seed rebuilds them: a run keeps no maps.

    Args:
        benchmark: a finished run.
        dataset: one of its test sets.
        subjects: by any name, such as that of `ranked_subjects`.
        timesteps: noise level of each method that has one.

    Returns:
        Scans by name, and by method and name the reconstruction and the anomaly map, `(D, H, W)`.
    """
    rows = {row.subject: row for row in benchmark.rows if row.split == "test" and row.dataset == dataset}
    cache, settings = ScanCache(benchmark.cache), benchmark.settings
    scans = {subject: load_scan(rows[subject], cache) for subject in set(subjects.values())}
    rebuilt = {}
    for name in settings.methods:
        level, seed = timesteps.get(name), seeds_of(settings, name, benchmark.scored_seeds)[0]
        maps = _with_method(benchmark, name, seed, level, map_scans, (scans, level))
        rebuilt[name] = {place: maps[subject] for place, subject in subjects.items()}
    return {place: scans[subject] for place, subject in subjects.items()}, rebuilt


def _levels_to_try(settings: Settings, name: str) -> list[int | None]:
    """Noise levels to score on validation scans, the published one for comparison; None for a method that has none."""
    if name not in NOISE_LEVEL_METHODS:
        return [None]
    return [*sorted({*settings.timesteps, settings.authors_timestep})]


def _units(benchmark: Benchmark, chosen: Levels) -> list[Unit]:
    """What is to be scored, each (method, seed, timestep, test set) once."""
    merged: dict[Scored, dict[str, None]] = {}
    for name, seed, level in units_to_score(benchmark.settings, benchmark.scored_seeds):
        for scored_as, datasets in _units_of(benchmark, name, seed, level, chosen):
            merged.setdefault(scored_as, {}).update(dict.fromkeys(datasets))
    return [(scored_as, tuple(datasets)) for scored_as, datasets in merged.items()]


def _units_of(benchmark: Benchmark, name: str, seed: int, level: str, chosen: Levels) -> list[Unit]:
    """The units of a method and seed at the level `none`, `authors` or `validation`."""
    if level == "validation":
        return [((name, seed, step), tuple(datasets)) for step, datasets in sets_by_level(chosen, name).items()]
    timestep = benchmark.settings.authors_timestep if level == "authors" else None
    return [((name, seed, timestep), tuple(benchmark.test_sets))]


def _selection(benchmark: Benchmark, names: Sequence[str]) -> pd.DataFrame:
    """Validation AUPRC of methods at all their noise levels, with the models of all seeds that are scored."""
    settings = benchmark.settings
    rows = [row for row in benchmark.rows if row.split == "val" and row.lesion_mask]

    def part(name: str, seed: int, timestep: int | None) -> Part:
        unit = ("select", name, seed, timestep, settings.selection_slice_step)
        work = (rows, ScanCache(benchmark.cache), timestep, settings.selection_slice_step)
        return _part(
            benchmark,
            unit,
            rows,
            ".csv",
            partial(_with_method, benchmark, name, seed, timestep, score_noise_level, work),
        )

    units = [
        (name, seed, timestep)
        for name in names
        for seed in seeds_of(settings, name, benchmark.scored_seeds)
        for timestep in _levels_to_try(settings, name)
    ]
    tables = kept_parts([part(*unit) for unit in units], "choosing noise levels", benchmark.jobs, settings.threads)
    return _concatenate([table.assign(seed=seed) for (_, seed, _), table in zip(units, tables, strict=True)])


def _scores(benchmark: Benchmark, units: Sequence[Unit]) -> pd.DataFrame:
    """One part holds the thresholds, and one the scores of each test set: another set costs itself and no more."""
    cache = ScanCache(benchmark.cache)
    test: dict[str, list[ManifestRow]] = {}
    for row in benchmark.rows:
        if row.split == "test":
            test.setdefault(row.dataset, []).append(row)

    def thresholds_part(name: str, seed: int, timestep: int | None) -> Part:
        val = [row for row in benchmark.rows_of(seed) if row.split == "val"]
        work = (val, cache, timestep)
        compute = partial(_with_method, benchmark, name, seed, timestep, validation_thresholds, work)
        return _part(benchmark, ("thresholds", name, seed, timestep), val, ".json", compute)

    def part(name: str, seed: int, timestep: int | None, dataset: str, thresholds: Any) -> Part:
        rows = [row for row in benchmark.rows_of(seed) if row.split == "val"] + test[dataset]
        work = (thresholds, test[dataset], cache, timestep, benchmark.runs / "maps")
        compute = partial(_with_method, benchmark, name, seed, timestep, score_test_scans, work)
        return _part(benchmark, ("score", name, seed, timestep, dataset), rows, ".csv", compute)

    jobs, threads = benchmark.jobs, benchmark.settings.threads
    thresholds = kept_parts([thresholds_part(*unit) for unit, _ in units], "finding thresholds", jobs, threads)
    named = [
        (unit, part(*unit, dataset, found))
        for (unit, datasets), found in zip(units, thresholds, strict=True)
        for dataset in test
        if dataset in datasets
    ]
    tables = kept_parts([part for _, part in named], "scoring test scans", jobs, threads)
    return _concatenate(
        [
            table.assign(method=name, seed=seed, timestep=-1 if timestep is None else timestep)
            for ((name, seed, timestep), _), table in zip(named, tables, strict=True)
        ]
    )


def _part(
    benchmark: Benchmark, unit: tuple, rows: Sequence[ManifestRow], suffix: str, compute: Callable[[], Any]
) -> Part:
    """A part of this benchmark; `unit` says of what, the method in second and the seed in third place."""
    _, method, seed, *_ = unit
    settings = {name: getattr(benchmark.settings, name) for name in METHODS[method].scored_by}
    more, reference = score_depends_on(method, benchmark.settings, benchmark.rows_of(seed), ScanCache(benchmark.cache))
    settings, rows = settings | more, [*rows, *reference]
    weights = benchmark.weights(method, seed) if method in TRAINED_METHODS else None
    key = key_of([unit, settings], rows, weights)
    return Part(benchmark.runs / "parts" / f"{'-'.join(map(str, unit))}-{key}{suffix}", compute)


def _with_method(
    benchmark: Benchmark, name: str, seed: int, timestep: int | None, call: Callable[..., Any], work: tuple
) -> Any:
    """The result of a call whose first argument is a fitted method, with the score of the settings."""
    settings = benchmark.settings
    use_threads(settings.threads)
    fast_cpu()
    folder = benchmark.weights(name, seed) if name in TRAINED_METHODS else None
    method = open_method(name, settings, seed, folder)
    return call(scored(method, settings, benchmark.rows_of(seed), ScanCache(benchmark.cache), timestep), *work)


def _concatenate(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _write(benchmark: Benchmark, scores: pd.DataFrame, selection: pd.DataFrame, seconds: float) -> None:
    write_csv(scores.drop(columns=SIDE_COLUMNS, errors="ignore"), benchmark.results / "scores.csv")
    write_csv(curves_table(scores), benchmark.results / "curves.csv", "%.3g")
    write_csv(selection, benchmark.results / "selection.csv")
    run = {
        "settings": benchmark.settings.to_dict(),
        "seeds": list(benchmark.scored_seeds),
        "weights": "shipped" if benchmark.shipped else "trained",
        **environment(),
        "left_out": missing_test_sets(benchmark.settings),
        "models": {f"{name}-seed{seed}": _model_record(benchmark, name, seed) for name, seed in benchmark.models},
        "definitions": {name: METHODS[name].definition for name in benchmark.settings.methods},
        "folds": benchmark.folds,
        "reconstruction": reconstruction_times(scores),
        "jobs": benchmark.jobs,
        "seconds_of_this_call": round(seconds, 1),
    }
    write_text(benchmark.results / "run.json", json.dumps(run, indent=1) + "\n")


def _model_record(benchmark: Benchmark, name: str, seed: int) -> dict[str, Any]:
    """What a model is and took; `made_with` lists the commits and versions that trained it, as a rule one."""
    folder = benchmark.weights(name, seed)
    record = read_training(folder)
    trained = {} if benchmark.shipped else {"folder": folder.name, "made_with": record.get("made_with", [])}
    return {
        "parameters": stored_parameters(folder),
        "steps": record["step"],
        "seconds": round(record["seconds"], 1),
        "cpu_seconds": round(record["cpu_seconds"], 1),
        "validation_loss": record["history"][-1]["validation_loss"],
        **trained,
    }
