"""Runs the validation search: every idea on validation scans, then the chosen ones once on test scans."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from pddm_utils.benchmark.store import weights_digest, write_study
from pddm_utils.benchmark.studies.forms import brain_quantiles
from pddm_utils.benchmark.studies.ideas import BASE_LINE, IDEAS, INTENSITY_IDEA, LATER_IDEAS, Idea, idea_map
from pddm_utils.benchmark.studies.rebuild import (
    INTENSITY,
    KeptRebuilds,
    Model,
    Rebuild,
    Rebuilds,
    Reference,
    open_model,
)
from pddm_utils.benchmark.studies.search_tables import chosen_ideas, read_search
from pddm_utils.benchmark.studies.study import Study, Variant, looked_at
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.core.shipped import weights_folder
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import data_digest
from pddm_utils.detection.z_score import REFERENCE_SLICE_STEP, REFERENCE_SUBJECTS
from pddm_utils.evaluation.metrics import average_precision, lesion_share
from pddm_utils.evaluation.places import HealthyPlaces

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
        models = {name: shipped_model(cohort, name) for name in METHODS}
        return {
            "profile": COHORTS[cohort],
            "reference_subjects": REFERENCE_SUBJECTS,
            "weights": {name: weights_digest(model.folder)[:16] for name, model in models.items()},
            "levels": {name: model.timestep for name, model in models.items()},
        }


def shipped_model(cohort: str, method: str) -> Model:
    """The shipped model of a cohort, with the noise level that was chosen for it on validation subjects."""
    return open_model(weights_folder(f"{cohort}-{method}"), method)


def run_search(search: Search) -> Path:
    """Try every idea on the validation scans; killed and started again it goes on where it was.

    Returns:
        `ideas.csv`: columns cohort, dataset, subject, method, idea, auprc, lesion_share; method and idea `intensity`
        is the intensity threshold on the same slices.
    """

    def study(cohort: str) -> Study:
        rows = [row for row in search.rows(cohort) if row.split == "val" and row.lesion_mask]
        return search_study(search, cohort, rows, search.slice_step, _ideas_to_try)

    settings = {"slice_step": search.slice_step, "lesion_kinds": LESION_KINDS}
    return _run(search, "ideas", study, settings)


def look_at_test(search: Search) -> Path:
    """Score the ideas that validation chose, beside the base line and intensity, on test scans; every slice.

    Test scans are the cohort's first subjects with an inserted tumour, and MSLUB.

    Returns:
        `test.csv`, columns as in `ideas.csv`.

    Raises:
        InputError: no `ideas.csv` of these cohorts.
    """
    choice = chosen_ideas(read_search(search.results, "ideas")[0])
    missing = sorted(set(search.cohorts) - set(choice.cohort))
    if missing:
        raise InputError(f"{search.results}/ideas.csv has no {', '.join(missing)}; run the search without --test first")

    def study(cohort: str) -> Study:
        def ideas(model: Model) -> list[Idea]:
            chosen = choice[(choice.cohort == cohort) & (choice.method == model.name)].idea
            return [idea for idea in IDEAS if idea.name in {BASE_LINE, *chosen}]

        return search_study(search, cohort, _test_rows(search, cohort), 1, ideas)

    return _run(search, "test", study, {"slice_step": 1, "test_subjects": search.test_subjects})


def search_study(
    search: Search,
    cohort: str,
    rows: Sequence[ManifestRow],
    slice_step: int,
    ideas: Callable[[Model], Collection[Idea]],
) -> Study:
    """Ideas on scans of a cohort.

    Args:
        search: folders and sizes.
        cohort: its name.
        rows: the scans.
        slice_step: every n-th slice of them is looked at, and of the healthy ones they are held against.
        ideas: those that a model is tried with.
    """
    train = [row for row in search.rows(cohort) if row.split == "train"][:REFERENCE_SUBJECTS]
    models = {name: _with_reference(search, cohort, name, train, search.slice_step) for name in METHODS}
    tried = {(INTENSITY, INTENSITY): INTENSITY_IDEA}
    tried |= {(name, idea.name): idea for name, model in models.items() for idea in ideas(model)}
    variants = [Variant(name, {"idea": idea.name}, idea.rebuilds) for (name, _), idea in tried.items()]
    return Study(
        f"search-{cohort}",
        models,
        variants,
        [(row, None) for row in rows],
        partial(_idea_scores, tried),
        slice_step,
        depends=[search.slice_step, data_digest(train)],
        keep=True,
    )


def _idea_scores(ideas: dict[tuple[str, str], Idea], variant: Variant, rebuilds: Rebuilds) -> dict[str, float]:
    scan, idea = rebuilds.scan, ideas[variant.model, variant.columns["idea"]]
    reference = Reference() if variant.model == INTENSITY else rebuilds.models[variant.model].reference
    volumes = [rebuilds(variant.model, how).image for how in variant.rebuilds]
    found = idea_map(idea, scan, volumes, reference)
    return {
        "auprc": average_precision(found, scan.lesion_mask),
        "lesion_share": lesion_share(scan.lesion_mask, scan.brain_mask),
    }


def _with_reference(search: Search, cohort: str, name: str, train: Sequence[ManifestRow], slice_step: int) -> Model:
    """A shipped model with what healthy training subjects say."""
    model, places, quantiles = shipped_model(cohort, name), HealthyPlaces(), []
    for row in tqdm(train, desc=f"{cohort} {name} healthy", unit="scan"):
        scan = looked_at(search.runs, row, slice_step)
        rebuilds = KeptRebuilds({name: model}, scan, search.runs / "parts" / "rebuilt", row, slice_step)
        quantiles.append(brain_quantiles(scan.image, scan.brain_mask))
        places.add(scan.image - rebuilds(name, Rebuild()).image, scan.brain_mask)
    return dataclasses.replace(model, reference=Reference(np.mean(quantiles, axis=0), places))


def _ideas_to_try(model: Model) -> list[Idea]:
    """The ideas that a model is tried with; its own level is the base line."""
    ideas = [idea for idea in IDEAS if model.name in idea.methods and idea.name != f"level {model.timestep}"]
    if model.name in ONE_PASS_ONLY:
        ideas = [idea for idea in ideas if idea.rebuilds == (Rebuild(),)]
    return [*ideas, *LATER_IDEAS]


def _test_rows(search: Search, cohort: str) -> list[ManifestRow]:
    test = [row for row in search.rows(cohort) if row.split == "test"]
    inserted = [row for row in test if row.dataset == f"{cohort}-tumour"][: search.test_subjects]
    return inserted + [row for row in test if row.dataset.startswith("mslub-")]


def _run(search: Search, name: str, study: Callable[[str], Study], settings: dict[str, Any]) -> Path:
    started, tables = time.perf_counter(), []
    for cohort in search.cohorts:
        table = study(cohort).table(search.runs)
        table.insert(0, "cohort", cohort)
        tables.append(table)
    settings = settings | {cohort: search.settings_of(cohort) for cohort in search.cohorts}
    table = pd.concat(tables, ignore_index=True)
    return write_study(search.results, name, table, settings, time.perf_counter() - started)
