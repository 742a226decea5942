"""The ablations that need trainings of their own: one table a question, added to those of `run_ablations`.

Each model is trained with the same number of steps, and tested at the noise level that is best on its lesioned
validation scans (every third slice), and at the authors'.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from pddm_utils.benchmark.evaluate import every_nth_slice
from pddm_utils.benchmark.store import Part, key_of, weights_digest
from pddm_utils.benchmark.studies.questions import record
from pddm_utils.benchmark.studies.recipes import MIXED_SIZES, RECIPES, chosen_level, train_recipe
from pddm_utils.benchmark.studies.reconstruct import Model, grid_boxes, join_boxes, predict_boxes
from pddm_utils.benchmark.studies.record import is_recorded, write_question
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.scan import Scan
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.mslub import mslub_rows
from pddm_utils.training.loop import read_training


@dataclass(frozen=True)
class TrainedQuestion:
    """A question about training.

    Attributes:
        variants: recipes to compare, the reference first.
        tested_on: recipe whose profile gives validation and test scans; each recipe's own when empty.
        box_sizes: sides of the boxes at test time in pixels; the model's own when empty.
        levels: noise levels to choose among; the profile's when empty.
        datasets: endings of the test sets' names.
        share: of the test subjects.
        mslub: contrasts of MSLUB to test on too, other than the profile's.
    """

    variants: tuple[str, ...]
    tested_on: str = ""
    box_sizes: tuple[int, ...] = ()
    levels: tuple[int, ...] = ()
    datasets: tuple[str, ...] = ("-tumour",)
    share: float = 1.0
    mslub: tuple[str, ...] = ()


TRAINED_QUESTIONS = {
    "box_placement_in_training": TrainedQuestion(("fixed grid", "random boxes")),
    "noise_in_training": TrainedQuestion(("fixed grid", "simplex noise", "whole slice", "whole slice, simplex noise")),
    "paper_settings": TrainedQuestion(("fixed grid", "the paper's")),
    "paper_settings_whole_slice": TrainedQuestion(("whole slice", "the paper's, whole slice")),
    "box_size_in_training": TrainedQuestion(("mixed boxes",), box_sizes=MIXED_SIZES, levels=(649, 749, 818), share=0.5),
    "simulated_to_real": TrainedQuestion(
        ("real", "simulated", "simulated, then real"), "real", datasets=("-tumour", "mslub-t1")
    ),
    "domain_randomisation": TrainedQuestion(
        ("real", "simulated", "domain-randomised"), "real", datasets=("-tumour", "mslub-t1"), mslub=("T2",)
    ),
}


@dataclass(frozen=True)
class TrainedAblations:
    """One run.

    Attributes:
        results: receives `<question>.csv` and `run.json`.
        runs: models, checkpoints, prepared scans.
        subjects: of each test set.
        slice_step: every n-th slice of the test scans is used.
    """

    results: Path
    runs: Path
    subjects: int = 20
    slice_step: int = 2

    def folder(self, name: str) -> Path:
        """The trained pipeline of a recipe; it is trained when missing."""
        return train_recipe(name, self.runs)

    def settings(self, question: TrainedQuestion, variant: str) -> Settings:
        """Of the profile whose scans a variant is tested on."""
        return RECIPES[question.tested_on or variant].settings

    def scans(self, settings: Settings, split: str, step: int, limit: int, endings: Sequence[str]) -> Iterator[Scan]:
        """The first so many lesioned scans of each data set of a split, with lesion in the slices that are kept."""
        rows = [row for row in cohort_rows(settings) if row.split == split and row.lesion_mask]
        for name in dict.fromkeys(row.dataset for row in rows if row.dataset.endswith(tuple(endings))):
            yield from self.kept_scans([row for row in rows if row.dataset == name][:limit], step)

    def kept_scans(self, rows: Sequence[ManifestRow], step: int) -> Iterator[Scan]:
        """Every n-th slice of these scans; those without lesion in what is kept are left out."""
        for row in rows:
            scan = every_nth_slice(load_scan(row, ScanCache(self.runs / "cache")), step)
            if scan.lesion_mask.any():
                yield scan


def run_trained_ablations(run: TrainedAblations, names: Sequence[str] = tuple(TRAINED_QUESTIONS)) -> list[Path]:
    """Train what is missing and answer the questions whose tables are not there yet.

    Args:
        run: folders and sizes.
        names: of questions.

    Returns:
        The tables that were written.

    Raises:
        InputError: an unknown question, or data that is not there.
    """
    unknown = sorted(set(names) - set(TRAINED_QUESTIONS))
    if unknown:
        raise InputError(f"question {', '.join(unknown)}; choose among {', '.join(TRAINED_QUESTIONS)}")
    torch.set_num_threads(1)
    written = []
    for name in names:
        started, question = time.perf_counter(), TRAINED_QUESTIONS[name]
        folders = {variant: run.folder(variant) for variant in question.variants}
        settings = _settings_of(run, folders)
        if not is_recorded(run.results, name, settings):
            tables = [_kept(run, name, variant, folder, settings) for variant, folder in folders.items()]
            table = pd.concat(tables, ignore_index=True)
            written.append(write_question(run.results, name, table, settings, time.perf_counter() - started))
    return written


def _settings_of(run: TrainedAblations, folders: Mapping[str, Path]) -> dict[str, Any]:
    """What a table depends on, JSON-ready, with what each training took."""
    models = {}
    for variant, folder in folders.items():
        made = read_training(folder)
        models[variant] = {
            "method": made["method"],
            "seed": made["seed"],
            "steps": made["step"],
            "cpu_seconds": round(made["cpu_seconds"], 1),
            "weights": weights_digest(folder)[:16],
        }
    return {"subjects": run.subjects, "slice_step": run.slice_step, "models": models}


def _kept(run: TrainedAblations, name: str, variant: str, folder: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of one model, from disk, or computed and put there in one step."""
    key = key_of([name, variant, settings["subjects"], settings["slice_step"]], weights=folder)
    return Part(
        run.runs / "parts" / f"ablation-{name}-{key}.csv",
        lambda: _variant(run, TRAINED_QUESTIONS[name], variant, folder),
    ).kept()


def _variant(run: TrainedAblations, question: TrainedQuestion, variant: str, folder: Path) -> pd.DataFrame:
    """A row for each test scan, box size and noise level of one model."""
    settings, method = run.settings(question, variant), read_training(folder)["method"]
    validation = list(
        run.scans(
            settings,
            "val",
            settings.selection_slice_step,
            settings.val_lesion_subjects,
            [f"-{kind}" for kind in settings.lesion_kinds],
        )
    )
    test = list(
        run.scans(settings, "test", run.slice_step, max(1, round(run.subjects * question.share)), question.datasets)
    )
    for contrast in question.mslub:
        test += run.kept_scans(mslub_rows(require_data_root(), contrast), run.slice_step)
    records = []
    for box in tqdm(question.box_sizes or (None,), desc=variant, unit="box size"):
        chosen = chosen_level(method, folder, validation, question.levels or settings.timesteps, box)
        side = box or chosen.pipeline.config.box_size
        for level, timestep in {"validation": chosen.timestep, "authors": settings.authors_timestep}.items():
            model = Model(method, chosen.pipeline, timestep)
            records += [
                _row(model, scan, side, variant=variant, box_size=side, noise_level=level, timestep=timestep)
                for scan in test
            ]
    return pd.DataFrame(records)


def _row(model: Model, scan: Scan, box: int, **variant: Any) -> dict[str, Any]:
    prediction = predict_boxes(model, scan, grid_boxes(scan, box), noise=model.pipeline.config.noise)
    return record(scan, model, join_boxes(prediction, scan), prediction, **variant)
