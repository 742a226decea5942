"""Runs the validation search: every idea on validation scans, then the chosen ones once on test scans."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pddm_utils.benchmark.evaluate import every_nth_slice, map_scan
from pddm_utils.benchmark.store import Part, key_of, weights_digest, write_csv
from pddm_utils.benchmark.studies.forms import brain_quantiles, match_quantiles
from pddm_utils.benchmark.studies.ideas import (
    BASE_LINE,
    IDEAS,
    LATER_IDEAS,
    Idea,
    Rebuild,
    Reference,
    idea_map,
    rebuild_scan,
)
from pddm_utils.benchmark.studies.reconstruct import Model
from pddm_utils.benchmark.studies.search_tables import chosen_ideas, read_search
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import write_text
from pddm_utils.core.provenance import environment
from pddm_utils.core.settings import load_settings
from pddm_utils.core.shipped import weights_folder
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, data_digest, load_scan
from pddm_utils.data.scan import Scan
from pddm_utils.detection.z_score import REFERENCE_SLICE_STEP, REFERENCE_SUBJECTS, HealthyPlaces
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.evaluation.metrics import average_precision, lesion_share
from pddm_utils.methods.intensity import IntensityThreshold

COHORTS = {"simulated-t2": "laptop", "ixi-t1": "real"}  # and the profile that names its subjects
METHODS = ("ddpm", "pddpm")
LESION_KINDS = ["tumour", "ms"]
ONE_PASS_ONLY = ("pddpm",)  # four boxes a slice: ideas that ask the network again would take most of all the time


@dataclass(frozen=True)
class Search:
    """One run of the search.

    Attributes:
        results: receives `ideas.csv`, `test.csv` and `run.json`.
        runs: prepared scans, reconstructions (half precision) and finished parts; what is there is not computed again.
        cohorts: some of `COHORTS`; `ixi-t1` and the MSLUB test sets need `PDDM_DATA`.
        slice_step: every n-th slice of validation scans is used, as when a noise level is chosen.
        test_subjects: with an inserted tumour, of each cohort, for the look at test scans.
    """

    results: Path
    runs: Path
    cohorts: tuple[str, ...] = tuple(COHORTS)
    slice_step: int = REFERENCE_SLICE_STEP
    test_subjects: int = 20

    def __post_init__(self) -> None:
        unknown = sorted(set(self.cohorts) - set(COHORTS))
        if unknown or not self.cohorts:
            raise InputError(f"cohorts {', '.join(unknown) or '(none)'}; choose among {', '.join(COHORTS)}")
        for name in ("slice_step", "test_subjects"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; it must be at least 1")

    def rows(self, cohort: str) -> list[ManifestRow]:
        """All rows of a cohort, both kinds of lesions."""
        return cohort_rows(load_settings(COHORTS[cohort], {"lesion_kinds": LESION_KINDS}))

    def settings_of(self, cohort: str) -> dict[str, Any]:
        """What a cohort's scores depend on, JSON-ready."""
        return {
            "profile": COHORTS[cohort],
            "reference_subjects": REFERENCE_SUBJECTS,
            "weights": {name: weights_digest(weights_folder(f"{cohort}-{name}"))[:16] for name in METHODS},
            "levels": {name: load_model(cohort, name).timestep for name in METHODS},
        }


def load_model(cohort: str, method: str) -> Model:
    """A shipped model with the noise level that was chosen for it on validation subjects."""
    pipeline = load_pipeline(weights_folder(f"{cohort}-{method}"))
    return Model(method, pipeline, pipeline.config.timestep)


class _Bench:
    """One model with what healthy training subjects say; keeps every reconstruction it makes."""

    def __init__(self, search: Search, cohort: str, method: str) -> None:
        self.cohort, self.model = cohort, load_model(cohort, method)
        self._weights = weights_digest(weights_folder(f"{cohort}-{method}"))
        self._runs, self._cache = search.runs, ScanCache(search.runs / "cache")
        train = [row for row in search.rows(cohort) if row.split == "train"][:REFERENCE_SUBJECTS]
        self._train = data_digest(train)
        places, quantiles = HealthyPlaces(), []
        for row in tqdm(train, desc=f"{cohort} {method} healthy", unit="scan"):
            scan = self.scan(row, search.slice_step)
            quantiles.append(brain_quantiles(scan.image, scan.brain_mask))
            places.add(scan.image - self._volume(row, scan, search.slice_step, Rebuild(), None), scan.brain_mask)
        self.reference = Reference(np.mean(quantiles, axis=0), places)

    def scan(self, row: ManifestRow, slice_step: int) -> Scan:
        return every_nth_slice(load_scan(row, self._cache), slice_step)

    def score(self, row: ManifestRow, slice_step: int, ideas: Sequence[Idea]) -> pd.DataFrame:
        """AUPRC of each idea on one scan, from disk, or computed and put there in one step."""
        content = [*self._content(row, slice_step), self._train, [idea.name for idea in ideas]]
        name = f"search-{self.cohort}-{self.model.name}-{row.dataset}-{row.subject}-{key_of(content)}.csv"

        def compute() -> pd.DataFrame:
            scan, records = self.scan(row, slice_step), []
            for idea in ideas:
                volumes = [self._volume(row, scan, slice_step, one, self.reference) for one in idea.rebuilds]
                found = idea_map(idea, scan, volumes, self.reference)
                records.append(
                    {
                        **_named(self.cohort, row),
                        "method": self.model.name,
                        "idea": idea.name,
                        "auprc": average_precision(found, scan.lesion_mask),
                        "lesion_share": lesion_share(scan.lesion_mask, scan.brain_mask),
                    }
                )
            return pd.DataFrame(records)

        return Part(self._runs / "parts" / name, compute).kept()

    def _content(self, row: ManifestRow, slice_step: int) -> list:
        return [data_digest([row]), slice_step, self._weights]

    def _volume(
        self, row: ManifestRow, scan: Scan, slice_step: int, rebuild: Rebuild, reference: Reference | None
    ) -> np.ndarray:
        rebuild = dataclasses.replace(rebuild, level=self.model.timestep if rebuild.level is None else rebuild.level)
        content = [
            *self._content(row, slice_step),
            dataclasses.astuple(rebuild),
            self._train if rebuild.matched else "",
        ]

        def compute() -> np.ndarray:
            if not rebuild.matched:
                return rebuild_scan(self.model, scan, rebuild)
            image = match_quantiles(scan.image, scan.brain_mask, reference.quantiles)
            return rebuild_scan(self.model, dataclasses.replace(scan, image=image), rebuild)

        return Part(
            self._runs / "parts" / "rebuilt" / f"{self.model.name}-{key_of(content)}.safetensors", compute
        ).kept()


def run_search(search: Search) -> Path:
    """Try every idea on the validation scans; killed and started again it goes on where it was.

    Returns:
        `ideas.csv`: columns cohort, dataset, subject, method, idea, auprc, lesion_share; method and idea `intensity`
        is the intensity threshold on the same slices.
    """
    torch.set_num_threads(1)
    started, tables = time.perf_counter(), []
    for cohort in search.cohorts:
        rows = [row for row in search.rows(cohort) if row.split == "val" and row.lesion_mask]
        tables.append(_intensity(search, cohort, rows, search.slice_step))
        for method in METHODS:
            bench = _Bench(search, cohort, method)
            tables += [
                bench.score(row, search.slice_step, ideas)
                for ideas in _rounds(bench.model)
                for row in tqdm(rows, desc=f"{cohort} {method}, {len(ideas)} ideas", unit="scan")
            ]
    settings = {"slice_step": search.slice_step, "lesion_kinds": LESION_KINDS}
    return _write(search, "ideas", pd.concat(tables, ignore_index=True), settings, started)


def look_at_test(search: Search) -> Path:
    """Score the ideas that validation chose, beside the base line and intensity, on test scans; every slice.

    Test scans are the cohort's first subjects with an inserted tumour, and MSLUB.

    Returns:
        `test.csv`, columns as in `ideas.csv`.

    Raises:
        InputError: no `ideas.csv` of these cohorts.
    """
    torch.set_num_threads(1)
    choice = chosen_ideas(read_search(search.results, "ideas")[0])
    missing = sorted(set(search.cohorts) - set(choice.cohort))
    if missing:
        raise InputError(f"{search.results}/ideas.csv has no {', '.join(missing)}; run the search without --test first")
    started, tables = time.perf_counter(), []
    for cohort in search.cohorts:
        rows = _test_rows(search, cohort)
        tables.append(_intensity(search, cohort, rows, 1))
        for method in METHODS:
            names = {BASE_LINE, *choice[(choice.cohort == cohort) & (choice.method == method)].idea}
            bench = _Bench(search, cohort, method)
            ideas = [idea for idea in IDEAS if idea.name in names]
            tables += [bench.score(row, 1, ideas) for row in tqdm(rows, desc=f"{cohort} {method} test", unit="scan")]
    settings = {"slice_step": 1, "test_subjects": search.test_subjects}
    return _write(search, "test", pd.concat(tables, ignore_index=True), settings, started)


def _rounds(model: Model) -> list[list[Idea]]:
    """The ideas that a model is tried with: those that need the base line's reconstruction alone first."""
    ideas = [idea for idea in IDEAS if model.name in idea.methods and idea.name != f"level {model.timestep}"]
    cheap = [idea for idea in ideas if idea.rebuilds == (Rebuild(),)]
    costly = [idea for idea in ideas if idea not in cheap]
    return [cheap, *([] if model.name in ONE_PASS_ONLY else [costly]), list(LATER_IDEAS)]


def _test_rows(search: Search, cohort: str) -> list[ManifestRow]:
    test = [row for row in search.rows(cohort) if row.split == "test"]
    inserted = [row for row in test if row.dataset == f"{cohort}-tumour"][: search.test_subjects]
    return inserted + [row for row in test if row.dataset.startswith("mslub-")]


def _intensity(search: Search, cohort: str, rows: Iterable[ManifestRow], slice_step: int) -> pd.DataFrame:
    cache, records = ScanCache(search.runs / "cache"), []
    for row in tqdm(rows, desc=f"{cohort} intensity", unit="scan"):
        scan = every_nth_slice(load_scan(row, cache), slice_step)
        records.append(
            {
                **_named(cohort, row),
                "method": "intensity",
                "idea": "intensity",
                "auprc": average_precision(map_scan(IntensityThreshold(), scan)[1], scan.lesion_mask),
                "lesion_share": lesion_share(scan.lesion_mask, scan.brain_mask),
            }
        )
    return pd.DataFrame(records)


def _named(cohort: str, row: ManifestRow) -> dict[str, str]:
    return {"cohort": cohort, "dataset": row.dataset, "subject": row.subject}


def _write(search: Search, name: str, table: pd.DataFrame, settings: dict[str, Any], started: float) -> Path:
    path, record = search.results / f"{name}.csv", search.results / "run.json"
    run = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    write_csv(table, path)
    run[name] = {
        "settings": settings | {cohort: search.settings_of(cohort) for cohort in search.cohorts},
        "seconds_of_this_call": round(time.perf_counter() - started, 1),
        **environment(),
    }
    write_text(record, json.dumps(run, indent=1) + "\n")
    return path
