"""Runs what is missing of the ablations: one small table a question, with its provenance in `run.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from pddm_utils.benchmark.evaluate import every_nth_slice
from pddm_utils.benchmark.store import Part, key_of, weights_digest
from pddm_utils.benchmark.studies.ablation_tables import threshold_rules, training_budget
from pddm_utils.benchmark.studies.questions import (
    box_placement,
    box_size_and_stride,
    healthy_thresholds,
    lesion_size_and_contrast,
    noise_kind,
    noise_level,
    post_processing,
    reverse_steps,
    visible_context,
)
from pddm_utils.benchmark.studies.reconstruct import Model, Models
from pddm_utils.benchmark.studies.record import is_recorded, write_question
from pddm_utils.benchmark.studies.tumours import set_tumours
from pddm_utils.benchmark.tables import read_results
from pddm_utils.core.errors import InputError
from pddm_utils.core.shipped import weights_folder
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.scan import Scan
from pddm_utils.data.sources.simulated import simulated_rows
from pddm_utils.diffusion.pipeline import load_pipeline

MODELS = {"ddpm": "simulated-t2-ddpm", "pddpm": "simulated-t2-pddpm"}


@dataclass(frozen=True)
class Question:
    """How a question is asked.

    Attributes:
        ask: a function of `pddm_utils.benchmark.studies.questions`.
        kinds: of lesions.
        half: on half of the subjects, because it costs most.
        masks: whether it scores masks and so needs thresholds from healthy scans.
        tumours: on tumours of set size and contrast instead of the cohort's.
    """

    ask: Callable[[Models, Any], pd.DataFrame]
    kinds: tuple[str, ...] = ("tumour",)
    half: bool = False
    masks: bool = False
    tumours: bool = False


QUESTIONS = {
    "visible_context": Question(visible_context),
    "box_size_and_stride": Question(box_size_and_stride, half=True),
    "box_placement": Question(box_placement, half=True),
    "noise_level": Question(noise_level, ("tumour", "ms"), half=True),
    "noise_kind": Question(noise_kind, half=True),
    "reverse_steps": Question(reverse_steps, half=True),
    "post_processing": Question(post_processing, masks=True),
    "lesion_size_and_contrast": Question(lesion_size_and_contrast, half=True, masks=True, tumours=True),
}
FROM_BENCHMARK = ("threshold_rules", "training_budget")  # need no new run
NAMES = (*QUESTIONS, *FROM_BENCHMARK)


@dataclass(frozen=True)
class Ablations:
    """One run of the ablations.

    Attributes:
        results: receives `<question>.csv` and `run.json`.
        runs: prepared scans and finished parts; what is there is not computed again.
        benchmark: results of a benchmark, for the questions of `FROM_BENCHMARK`.
        subjects: simulated test subjects of each kind of lesion; the most expensive questions take half of them.
        slice_step: every n-th slice is used.
        validation_subjects: healthy ones, for thresholds.
    """

    results: Path
    runs: Path
    benchmark: Path
    subjects: int = 20
    slice_step: int = 2
    validation_subjects: int = 10

    def __post_init__(self) -> None:
        for name in ("subjects", "slice_step", "validation_subjects"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; it must be at least 1")

    def rows(self, question: Question) -> list[ManifestRow]:
        """The test subjects of a question."""
        count = (self.subjects + 1) // 2 if question.half else self.subjects
        datasets = {f"simulated-t2-{kind}" for kind in question.kinds}
        return [row for row in simulated_rows("T2", 0, 0, 0, count) if row.dataset in datasets]

    def settings_of(self, name: str) -> dict[str, Any]:
        """What the table of a question depends on, JSON-ready."""
        if name in FROM_BENCHMARK:
            used = b"".join((self.benchmark / file).read_bytes() for file in ("scores.csv", "run.json"))
            return {"benchmark": self.benchmark.name, "scores": hashlib.sha256(used).hexdigest()[:16]}
        question = QUESTIONS[name]
        healthy = {"validation_subjects": self.validation_subjects} if question.masks else {}
        return {
            "subjects": len(self.rows(question)) // len(question.kinds),
            "slice_step": self.slice_step,
            **healthy,
            "training_seed": 0,
            "noise_seed": "of the subject",
            "weights": {m: weights_digest(weights_folder(folder))[:16] for m, folder in MODELS.items()},
        }


def load_models() -> Models:
    """The shipped models of the simulated T2 cohort, each with the noise level chosen on validation subjects."""
    loaded = {}
    for name, folder in MODELS.items():
        pipeline = load_pipeline(weights_folder(folder))
        loaded[name] = Model(name, pipeline, pipeline.config.timestep)
    return Models(loaded["ddpm"], loaded["pddpm"])


def run_ablations(run: Ablations, names: Sequence[str] = NAMES) -> list[Path]:
    """Answer the questions whose tables are not there yet; killed and started again it goes on where it was.

    A table that was made with the same settings and weights is kept: delete it to have it made again.

    Args:
        run: folders and sizes.
        names: of questions.

    Returns:
        The tables that were written.

    Raises:
        InputError: an unknown question, or no benchmark results for one that needs them.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise InputError(f"question {', '.join(unknown)}; choose among {', '.join(NAMES)}")
    if set(names) & set(FROM_BENCHMARK):
        read_results(run.benchmark)  # said before anything is computed
    torch.set_num_threads(1)
    missing = [name for name in names if not is_recorded(run.results, name, run.settings_of(name))]
    asked = [name for name in missing if name in QUESTIONS]
    models = load_models() if asked else None
    if any(QUESTIONS[name].masks for name in asked):
        models = _with_thresholds(run, models)
    cells = sum(len(run.rows(QUESTIONS[name])) for name in asked)
    written = []
    with tqdm(total=cells, unit="scan", disable=not asked) as progress:
        for name in missing:
            started = time.perf_counter()
            progress.set_description(name)
            if name in QUESTIONS:
                parts = [_part(run, name, row, models, progress) for row in run.rows(QUESTIONS[name])]
                table = pd.concat(parts, ignore_index=True)
            else:
                scores, record = read_results(run.benchmark)
                table = threshold_rules(scores) if name == "threshold_rules" else training_budget(scores, record)
            seconds = time.perf_counter() - started
            written.append(write_question(run.results, name, table, run.settings_of(name), seconds))
    return written


def _part(run: Ablations, name: str, row: ManifestRow, models: Models, progress: tqdm) -> pd.DataFrame:
    """A question's rows of one subject, from disk, or computed and put there in one step."""
    question, settings = QUESTIONS[name], run.settings_of(name)
    del settings["subjects"]  # a subject's rows do not depend on how many there are

    def compute() -> pd.DataFrame:
        scans = _set_tumours(row, run.slice_step) if question.tumours else [_scan(run, row)]
        return question.ask(models, scans)

    table = _kept(run, f"{name}-{row.subject}", [name, dataclasses.astuple(row), settings], compute)
    progress.update()
    return table


def _kept(run: Ablations, name: str, content: list, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    return Part(run.runs / "parts" / f"ablation-{name}-{key_of(content)}.csv", compute).kept()


def _scan(run: Ablations, row: ManifestRow) -> Scan:
    return every_nth_slice(load_scan(row, ScanCache(run.runs / "cache")), run.slice_step)


def _set_tumours(row: ManifestRow, slice_step: int) -> Iterator:
    for tumour in set_tumours(row):
        yield tumour._replace(scan=every_nth_slice(tumour.scan, slice_step))


def _with_thresholds(run: Ablations, models: Models) -> Models:
    """Thresholds from healthy validation scans with the same slices left out."""
    rows = simulated_rows("T2", 0, run.validation_subjects, 0, 0)
    settings = run.settings_of("post_processing")
    del settings["subjects"]

    def compute() -> pd.DataFrame:
        scans = tqdm((_scan(run, row) for row in rows), desc="thresholds", unit="scan", total=len(rows))
        return healthy_thresholds(models, scans)

    table = _kept(run, "thresholds", ["thresholds", settings], compute)
    thresholds = {(row.method, row.erosion, row.median): row.threshold for row in table.itertuples()}
    return dataclasses.replace(models, thresholds=thresholds)
