"""One recipe for both methods: a factorial of trainings, all scored on validation scans and on nothing else.

Three choices differ between published trainings and the first one of this book: the noise, how noise levels are
drawn, and the learning rate. Which cells are trained was fixed before the first of them: all four of noise and draw
for pDDPM, and the published corner, today's and the one between them for both methods.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pddm_utils.benchmark.models import healthy_rows, is_trained, model_folder
from pddm_utils.benchmark.scoring import reference_rows
from pddm_utils.benchmark.store import Part, in_parallel, kept_parts, key_of, write_study
from pddm_utils.benchmark.studies.rebuild import Rebuild, open_model, rebuild_scan
from pddm_utils.benchmark.studies.study import looked_at
from pddm_utils.core.settings import Settings
from pddm_utils.core.threads import use_threads
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, prepare_all
from pddm_utils.data.scan import Scan
from pddm_utils.data.slices import HealthySlices
from pddm_utils.detection.z_score import lesion_z_score, residuals_by_place
from pddm_utils.diffusion.fast_cpu import fast_cpu
from pddm_utils.evaluation.metrics import average_precision, brain_median, healthy_l1
from pddm_utils.evaluation.places import HealthyPlaces, PlaceStatistics, towards_lesions
from pddm_utils.evaluation.postprocess import score_map
from pddm_utils.methods.intensity import IntensityThreshold
from pddm_utils.methods.pipeline_method import PipelineMethod
from pddm_utils.methods.registry import make_method
from pddm_utils.training.loop import snapshot_folder

DRAWS = {"even": 1, "high": 3}  # of noise levels: `timestep_power`
RATES: Mapping[str, Mapping[str, Any]] = {
    "1e-3 cosine": {"learning_rate": 1e-3, "learning_rate_decay": "cosine", "warmup_steps": 100, "ema_decay": 0.99},
    "1e-4 constant": {"learning_rate": 1e-4, "learning_rate_decay": "none", "warmup_steps": 0, "ema_decay": 0.0},
}
LEVELS = (50, 100, 150, 249, 349, 499, 649, 818, 979)
SNAPSHOTS = (250, 500, 1000, 2000, 4000)
SNAPSHOT_LEVELS = (100, 249, 499, 818)  # of what is not finished yet
FLOORS = ("intensity", "mean by place", "brain median")  # predictors without a network

Rebuilder = Callable[[Scan], np.ndarray]


@dataclass(frozen=True)
class Cell:
    """One training of the factorial.

    Attributes:
        method: `ddpm` or `pddpm`.
        noise: `gaussian` or `simplex`.
        draw: of noise levels, one of `DRAWS`.
        rate: learning rate, its course and the averaging of weights, one of `RATES`.
        steps: of the optimiser.
        network: size.
    """

    method: str
    noise: str
    draw: str
    rate: str
    steps: int = 1000
    network: str = "laptop"

    @property
    def name(self) -> str:
        """Of its parts on disk, and in the record."""
        return "-".join(map(str, dataclasses.astuple(self))).replace(" ", "-")

    def settings(self, profile: Settings) -> Settings:
        """The profile with this cell's training; seed 0."""
        changed: dict[str, Any] = {
            "noise": self.noise,
            "network": self.network,
            "train_steps": self.steps,
            "seeds": (0,),
        }
        return dataclasses.replace(profile, timestep_power=DRAWS[self.draw], **changed, **RATES[self.rate])


CELLS = tuple(
    Cell(*choices)
    for choices in (
        ("pddpm", "simplex", "even", "1e-3 cosine"),
        ("ddpm", "simplex", "even", "1e-3 cosine"),
        ("pddpm", "gaussian", "high", "1e-3 cosine"),
        ("ddpm", "gaussian", "high", "1e-3 cosine"),
        ("pddpm", "simplex", "even", "1e-4 constant"),
        ("ddpm", "simplex", "even", "1e-4 constant"),
        ("pddpm", "gaussian", "even", "1e-3 cosine"),
        ("pddpm", "simplex", "high", "1e-3 cosine"),
    )
)

# After the first six cells: the best noise and draw at both rates, longer, and with the wider network.
LONGER = tuple(
    Cell(method, "simplex", "even", rate, 4000, network)
    for rate, network in (("1e-3 cosine", "laptop"), ("1e-4 constant", "laptop"), ("1e-3 cosine", "wide"))
    for method in ("pddpm", "ddpm")
)


@dataclass(frozen=True)
class Factorial:
    """One run of the factorial.

    Attributes:
        settings: profile of the cohort.
        results: receives `<profile>.csv` and `run.json`.
        runs: models, prepared scans and finished parts; what is there is not computed again.
        jobs: trainings, then scorings, side by side, each with one thread.
    """

    settings: Settings
    results: Path
    runs: Path
    jobs: int = 1

    @cached_property
    def rows(self) -> list[ManifestRow]:
        """Training and validation scans; the others are not looked at."""
        return [row for row in cohort_rows(self.settings) if row.split != "test"]

    @property
    def val(self) -> list[ManifestRow]:
        """Validation scans, with and without lesion."""
        return [row for row in self.rows if row.split == "val"]

    @property
    def cache(self) -> ScanCache:
        """Prepared scans."""
        return ScanCache(self.runs / "cache")

    def scan(self, row: ManifestRow) -> Scan:
        """A scan with the slices that are looked at, as where a noise level is chosen."""
        return looked_at(self.runs, row, self.settings.selection_slice_step)


def run_factorial(run: Factorial, cells: Sequence[Cell] = CELLS) -> Path:
    """Train the cells that are missing, score each snapshot at every noise level, write the table.

    Killed and started again it goes on where it was.

    Returns:
        `<profile>.csv`: columns method, noise, draw, rate, steps, network, step (of the snapshot), timestep, dataset,
        subject; `auprc` of |x - x^|, `auprc_signed` of the residual in the direction of lesions, `auprc_z` of its
        z-score by place; `healthy_l1` of scans without lesion. Methods of `FLOORS` need no network.

    Raises:
        InputError: data that is not there.
    """
    started = time.perf_counter()
    prepare_all(run.rows, run.cache, jobs=run.jobs)
    in_parallel([partial(train_cell, run, cell) for cell in cells], "training", run.jobs, 1)
    parts = [_part(run, cell, step, level) for cell in cells for step in _steps(cell) for level in _levels(cell, step)]
    table = pd.concat(kept_parts([_floors_part(run), *parts], "scoring", run.jobs, 1), ignore_index=True)
    settings = {"cells": [cell.name for cell in cells], "levels": LEVELS, "profile": run.settings.to_dict()}
    return write_study(run.results, run.settings.profile, table, settings, time.perf_counter() - started)


def train_cell(run: Factorial, cell: Cell) -> Path:
    """Train one cell, or go on, and keep its snapshots; returns its folder."""
    folder = cell_folder(run, cell)
    if is_trained(folder):
        return folder
    use_threads(1)
    fast_cpu()
    method = make_method(cell.method, cell.settings(run.settings))
    assert isinstance(method, PipelineMethod)
    train, val = (HealthySlices(healthy_rows(run.rows, split), run.cache) for split in ("train", "val"))
    return method.trainer(train, val, folder, SNAPSHOTS).run()


def cell_folder(run: Factorial, cell: Cell) -> Path:
    """Where the model of a cell lies, or will lie; apart from the benchmark's, which keeps no snapshots."""
    return model_folder(cell.settings(run.settings), cell.method, 0, run.runs / "factorial", run.rows)


def _steps(cell: Cell) -> list[int]:
    """Of every snapshot and of the finished model."""
    return [*(step for step in SNAPSHOTS if step < cell.steps), cell.steps]


def _levels(cell: Cell, step: int) -> tuple[int, ...]:
    return LEVELS if step == cell.steps else SNAPSHOT_LEVELS


def _part(run: Factorial, cell: Cell, step: int, level: int) -> Part:
    finished = cell_folder(run, cell)
    folder = finished if step == cell.steps else snapshot_folder(finished, step)
    key = key_of(["factorial", cell.name, step, level, run.settings.selection_slice_step], run.rows, folder)
    path = run.runs / "parts" / f"factorial-{cell.name}-{step}-{level}-{key}.csv"
    return Part(path, partial(score_level, run, cell, step, level, folder))


def score_level(run: Factorial, cell: Cell, step: int, level: int, folder: Path) -> pd.DataFrame:
    """Scores of one snapshot at one noise level: a row for each validation scan."""
    model = open_model(folder, cell.method)
    facts = dataclasses.asdict(cell) | {"step": step, "timestep": level}
    reference = reference_rows(run.rows, run.cache, run.settings.selection_slice_step)
    return _scores(run, facts, reference, lambda scan: rebuild_scan(model, scan, Rebuild(level=level)).image)


def _floors_part(run: Factorial) -> Part:
    key = key_of(["factorial floors", run.settings.selection_slice_step], run.rows)
    return Part(run.runs / "parts" / f"factorial-floors-{key}.csv", partial(score_floors, run))


def score_floors(run: Factorial) -> pd.DataFrame:
    """The same scores of what needs no network, `FLOORS`."""
    seen, train = HealthyPlaces(), healthy_rows(run.rows, "train")
    for scan in map(run.scan, train):
        seen.add(scan.image, scan.brain_mask)
    places = seen.statistics()
    rebuilds: dict[str, Rebuilder] = {
        "intensity": IntensityThreshold("intensity").reconstruct,
        "mean by place": lambda scan: places.expected(scan.brain_mask),
        "brain median": lambda scan: brain_median(scan.image, scan.brain_mask),
    }
    return pd.concat([_scores(run, {"method": name}, train, rebuild) for name, rebuild in rebuilds.items()])


def _scores(
    run: Factorial, facts: Mapping[str, Any], reference: Sequence[ManifestRow], rebuild: Rebuilder
) -> pd.DataFrame:
    """A row for each validation scan; what is usual at each place is learnt from the rebuilt reference scans."""
    places, rows = residuals_by_place(map(run.scan, reference), rebuild), []
    for row in run.val:
        scan = run.scan(row)
        scores = map_scores(scan, rebuild(scan), places)
        rows.append({**facts, "dataset": row.dataset, "subject": row.subject, **scores})
    return pd.DataFrame(rows)


def map_scores(scan: Scan, rebuilt: np.ndarray, places: PlaceStatistics) -> dict[str, float]:
    """AUPRC of three maps of one reconstruction where there is a lesion, else the error of the healthy scan."""
    if not scan.lesion_mask.any():
        return {"healthy_l1": healthy_l1(scan.image, rebuilt, scan.brain_mask)}
    residual = scan.image - rebuilt
    scores = {
        "auprc": np.abs(residual),
        "auprc_signed": towards_lesions(residual, scan.contrast),
        "auprc_z": lesion_z_score(scan, rebuilt, places),
    }
    return {
        name: average_precision(score_map(values, scan.brain_mask), scan.lesion_mask) for name, values in scores.items()
    }
