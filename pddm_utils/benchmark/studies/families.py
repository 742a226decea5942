"""How methods rank on each family of inserted lesions, and whether the families agree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from pddm_utils.benchmark.evaluate import every_nth_slice, map_scan, nth_slices, restoration_scores, score_noise_level
from pddm_utils.benchmark.levels import family_levels
from pddm_utils.benchmark.models import settings_of_shipped, train_method
from pddm_utils.benchmark.scoring import score_depends_on, scored
from pddm_utils.benchmark.store import Part, kept_parts, key_of, weights_digest, write_csv, write_study
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings
from pddm_utils.core.shipped import model_name, weights_root
from pddm_utils.core.threads import use_threads
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow, lesion_family
from pddm_utils.data.prepare import ScanCache, load_scan, load_twin, prepare_all
from pddm_utils.data.scan import VOXEL_VOLUME_ML
from pddm_utils.diffusion.fast_cpu import fast_cpu
from pddm_utils.evaluation.metrics import average_precision
from pddm_utils.methods.base import Method
from pddm_utils.methods.registry import METHODS, NOISE_LEVEL_METHODS, TRAINED_METHODS, open_method

TABLE, SELECTION = "families", "families_selection"


@dataclass(frozen=True)
class Families:
    """One run of the comparison.

    Attributes:
        settings: the profile; its kinds of lesions are the families.
        runs: prepared scans, models that are not shipped, finished parts; what is there is not computed again.
        results: receives `families.csv`, `families_selection.csv` and `run.json`.
        jobs: processes side by side.
        slice_step: every n-th slice of a test scan is used; validation has that of the profile.
    """

    settings: Settings
    runs: Path
    results: Path
    jobs: int = 1
    slice_step: int = 1

    def __post_init__(self) -> None:
        if self.slice_step < 1:
            raise InputError(f"slice_step={self.slice_step}; it must be at least 1")

    @property
    def cache(self) -> ScanCache:
        """Prepared scans."""
        return ScanCache(self.runs / "cache")

    def settings_of(self, name: str) -> Settings:
        """The profile with what a shipped model was trained with."""
        shipped = self._shipped(name)
        return settings_of_shipped(replace(self.settings, methods=(name,))) if shipped else self.settings

    def weights(self, name: str) -> Path | None:
        """Folder of a method's weights, the shipped ones where there are some; None for what learns nothing."""
        if name not in TRAINED_METHODS:
            return None
        return self._shipped(name) or train_method(
            self.settings, name, self.settings.seeds[0], self.runs, self.runs / "cache"
        )

    @cached_property
    def rows(self) -> list[ManifestRow]:
        """The cohort (`InputError` where data is missing)."""
        return cohort_rows(self.settings)

    def method(self, name: str, level: int | None) -> Method:
        """A fitted method, scored as the profile says; this process then works on as many threads as it says."""
        use_threads(self.settings.threads)
        fast_cpu()
        fitted = open_method(name, self.settings_of(name), self.settings.seeds[0], self.weights(name))
        return scored(fitted, self.settings, self.rows, self.cache, level)

    def _shipped(self, name: str) -> Path | None:
        folder = weights_root() / model_name(self.settings, name)
        return folder if (folder / "training.json").is_file() else None


def run_families(run: Families) -> Path:
    """Choose each method's noise level for each family on validation scans, then score the test scans.

    Returns:
        `families.csv`: method, timestep, dataset, subject, auprc, restoration_l1, lesion_l1, lesion_ml (of the slices
        that are used); scans without lesion in them are left out.

    Raises:
        InputError: data is missing.
    """
    started = time.perf_counter()
    rows = [row for row in run.rows if row.inserted_lesion is not None]
    prepare_all(sorted(rows, key=lambda row: (row.image, row.dataset)), run.cache, jobs=run.jobs)
    val, test = ([row for row in rows if row.split == split] for split in ("val", "test"))
    levels = _selection(run, val)
    write_csv(levels, run.results / f"{SELECTION}.csv")
    table = _test_scores(run, test, family_levels(levels))
    settings = {
        **run.settings.to_dict(),
        "slice_step": run.slice_step,
        "weights": {name: weights_digest(run.weights(name))[:16] for name in run.settings.methods},
    }
    return write_study(run.results, TABLE, table, settings, time.perf_counter() - started)


def _selection(run: Families, rows: Sequence[ManifestRow]) -> pd.DataFrame:
    step, parts = run.settings.selection_slice_step, []
    for name in run.settings.methods:
        levels = sorted(run.settings.timesteps) if name in NOISE_LEVEL_METHODS else [None]
        for level in levels:
            work = partial(_validation_scores, run, name, list(rows), level)
            parts.append(_part(run, ("family-levels", name, level, step), rows, name, work))
    return pd.concat(kept_parts(parts, "choosing noise levels", run.jobs), ignore_index=True)


def _validation_scores(run: Families, name: str, rows: Sequence[ManifestRow], level: int | None) -> pd.DataFrame:
    return score_noise_level(run.method(name, level), rows, run.cache, level, run.settings.selection_slice_step)


def _test_scores(run: Families, rows: Sequence[ManifestRow], levels: dict[tuple[str, str], int]) -> pd.DataFrame:
    parts = []
    for name in run.settings.methods:
        for dataset in dict.fromkeys(row.dataset for row in rows):
            chosen = levels[name, lesion_family(dataset)]
            own = [row for row in rows if row.dataset == dataset]
            work = partial(_family_scores, run, name, own, None if chosen < 0 else chosen)
            parts.append(_part(run, ("family", name, chosen, dataset, run.slice_step), own, name, work))
    return pd.concat(kept_parts(parts, "scoring test scans", run.jobs), ignore_index=True)


def _family_scores(run: Families, name: str, rows: Sequence[ManifestRow], level: int | None) -> pd.DataFrame:
    method, records = run.method(name, level), []
    for row in rows:
        scan = every_nth_slice(load_scan(row, run.cache), run.slice_step)
        if not scan.lesion_mask.any():
            continue  # between the slices that are used
        twin = load_twin(row, run.cache)
        twin = twin[nth_slices(len(twin), run.slice_step)]
        reconstruction, found = map_scan(method, scan, level)
        records.append(
            {
                "method": name,
                "timestep": -1 if level is None else level,
                "dataset": row.dataset,
                "subject": row.subject,
                "auprc": average_precision(found, scan.lesion_mask),
                **restoration_scores(scan, reconstruction, twin),
                "lesion_ml": float(np.count_nonzero(scan.lesion_mask) * VOXEL_VOLUME_ML),
            }
        )
    return pd.DataFrame(records)


def _part(run: Families, unit: tuple, rows: Sequence[ManifestRow], name: str, compute: partial) -> Part:
    settings = {field: getattr(run.settings_of(name), field) for field in METHODS[name].scored_by}
    more, reference = score_depends_on(name, run.settings, run.rows, run.cache)
    key = key_of([unit, settings | more], [*rows, *reference], run.weights(name))
    return Part(run.runs / "parts" / f"{'-'.join(map(str, unit))}-{key}.csv", compute)
