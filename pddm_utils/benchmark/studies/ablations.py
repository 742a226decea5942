"""The ablations with shipped models: one small table a question, and what a finished benchmark tells without a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pddm_utils.benchmark.store import Part, files_digest, is_recorded, key_of, weights_digest, write_study
from pddm_utils.benchmark.studies.ablation_tables import threshold_rules, training_budget
from pddm_utils.benchmark.studies.questions import QUESTIONS, Models, Question, healthy_thresholds
from pddm_utils.benchmark.studies.rebuild import Model, open_model
from pddm_utils.benchmark.studies.study import Study, looked_at
from pddm_utils.benchmark.studies.tumours import SET_TUMOURS, SetTumour
from pddm_utils.benchmark.tables import read_results
from pddm_utils.core.errors import InputError
from pddm_utils.core.shipped import weights_folder
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources.simulated import simulated_rows

MODELS = {"ddpm": "simulated-t2-ddpm", "pddpm": "simulated-t2-pddpm"}
FROM_BENCHMARK = {"threshold_rules": lambda scores, _: threshold_rules(scores), "training_budget": training_budget}
NAMES = (*QUESTIONS, *FROM_BENCHMARK)


@dataclass(frozen=True)
class Ablations:
    """One run of the ablations.

    Attributes:
        results: receives `<question>.csv` and `run.json`.
        runs: models, prepared scans and finished parts; what is there is not computed again.
        benchmark: results of a benchmark, for the questions of `FROM_BENCHMARK`.
        subjects: test subjects of each data set; the most expensive questions take half of them.
        slice_step: every n-th slice is used.
        validation_subjects: healthy ones, for thresholds.
    """

    results: Path
    runs: Path
    benchmark: Path = Path("results/laptop")
    subjects: int = 20
    slice_step: int = 2
    validation_subjects: int = 10

    def __post_init__(self) -> None:
        for name in ("subjects", "slice_step", "validation_subjects"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; it must be at least 1")

    def count(self, question: Question) -> int:
        """How many subjects a question takes."""
        return (self.subjects + 1) // 2 if question.half else self.subjects

    def scans(self, question: Question) -> list[tuple[ManifestRow, SetTumour | None]]:
        """The test subjects of a question."""
        datasets = {f"simulated-t2-{kind}" for kind in question.kinds}
        rows = [row for row in simulated_rows("T2", 0, 0, 0, self.count(question)) if row.dataset in datasets]
        return [(row, tumour) for row in rows for tumour in (SET_TUMOURS if question.tumours else (None,))]

    def settings_of(self, name: str) -> dict[str, Any]:
        """What the table of a question depends on, JSON-ready."""
        if name in FROM_BENCHMARK:
            files = (self.benchmark / file for file in ("scores.csv", "run.json"))
            return {"benchmark": self.benchmark.name, "scores": files_digest(files)[:16]}
        question = QUESTIONS[name]
        healthy = {"validation_subjects": self.validation_subjects} if question.masks else {}
        return {
            "subjects": self.count(question),
            "slice_step": self.slice_step,
            **healthy,
            "training_seed": 0,
            "noise_seed": "of the subject",
            "weights": {name: weights_digest(weights_folder(folder))[:16] for name, folder in MODELS.items()},
        }


def load_models() -> dict[str, Model]:
    """The shipped models of the simulated T2 cohort by method, each with the noise level that validation chose."""
    return {name: open_model(weights_folder(folder), name) for name, folder in MODELS.items()}


def check_names(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse questions that do not exist (`InputError`)."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(f"question {', '.join(unknown)}; choose among {', '.join(known)}")


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
    check_names(names, NAMES)
    if set(names) & set(FROM_BENCHMARK):
        read_results(run.benchmark)  # said before anything is computed
    missing = [name for name in names if not is_recorded(run.results, name, run.settings_of(name))]
    models = load_models() if set(missing) & set(QUESTIONS) else {}
    written = []
    for name in missing:
        started = time.perf_counter()
        if name in QUESTIONS:
            table = _study(run, name, models).table(run.runs)
        else:
            table = FROM_BENCHMARK[name](*read_results(run.benchmark))
        written.append(write_study(run.results, name, table, run.settings_of(name), time.perf_counter() - started))
    return written


def _study(run: Ablations, name: str, models: Models) -> Study:
    question = QUESTIONS[name]
    score, rows = question.score, _thresholds(run, models) if question.masks else []
    if question.masks:
        score = partial(score, {tuple(key): threshold for *key, threshold in rows})
    variants, scans = question.variants(models), run.scans(question)
    return Study(f"ablation-{name}", models, variants, scans, score, run.slice_step, depends=rows)


def _thresholds(run: Ablations, models: Models) -> list[list]:
    """Thresholds from healthy validation scans with the same slices left out."""
    rows = simulated_rows("T2", 0, run.validation_subjects, 0, 0)
    key = key_of(["thresholds", run.slice_step, run.settings_of("post_processing")["weights"]], rows)
    scans = (looked_at(run.runs, row, run.slice_step) for row in rows)
    part = Part(run.runs / "parts" / f"ablation-thresholds-{key}.json", lambda: healthy_thresholds(models, scans))
    return part.kept()
