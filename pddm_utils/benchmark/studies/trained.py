"""The ablations that need trainings of their own: one table a question, added to those of `run_ablations`.

Each model is trained with the same number of steps, and tested at the noise level that is best on its lesioned
validation scans (every third slice), and at the authors'.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pddm_utils.benchmark.store import is_recorded, weights_digest, write_study
from pddm_utils.benchmark.studies.ablations import Ablations, check_names
from pddm_utils.benchmark.studies.questions import map_scores
from pddm_utils.benchmark.studies.rebuild import Model, Rebuild, open_model
from pddm_utils.benchmark.studies.recipes import MIXED_SIZES, RECIPES, train_recipe
from pddm_utils.benchmark.studies.study import Study, Variant, looked_at
from pddm_utils.core.settings import Settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.mslub import mslub_rows
from pddm_utils.training.loop import read_training


@dataclass(frozen=True)
class TrainedQuestion:
    """A question about training.

    Attributes:
        variants: recipes to compare, the reference first; its profile gives validation and test scans.
        box_sizes: sides of the boxes at test time in pixels; the model's own when empty.
        levels: noise levels to choose among; the profile's when empty.
        datasets: endings of the test sets' names.
        share: of the test subjects.
        mslub: contrasts of MSLUB to test on too, other than the profile's.
    """

    variants: tuple[str, ...]
    box_sizes: tuple[int, ...] = ()
    levels: tuple[int, ...] = ()
    datasets: tuple[str, ...] = ("-tumour",)
    share: float = 1.0
    mslub: tuple[str, ...] = ()

    @property
    def settings(self) -> Settings:
        """Of the profile whose scans are looked at."""
        return RECIPES[self.variants[0]].settings


TRAINED_QUESTIONS = {
    "box_placement_in_training": TrainedQuestion(("fixed grid", "random boxes")),
    "noise_in_training": TrainedQuestion(("fixed grid", "simplex noise", "whole slice", "whole slice, simplex noise")),
    "paper_settings": TrainedQuestion(("fixed grid", "the paper's")),
    "paper_settings_whole_slice": TrainedQuestion(("whole slice", "the paper's, whole slice")),
    "box_size_in_training": TrainedQuestion(("mixed boxes",), box_sizes=MIXED_SIZES, levels=(649, 749, 818), share=0.5),
    "simulated_to_real": TrainedQuestion(
        ("real", "simulated", "simulated, then real"), datasets=("-tumour", "mslub-t1")
    ),
    "domain_randomisation": TrainedQuestion(
        ("real", "simulated", "domain-randomised"), datasets=("-tumour", "mslub-t1"), mslub=("T2",)
    ),
}


def run_trained_ablations(run: Ablations, names: Sequence[str] = tuple(TRAINED_QUESTIONS)) -> list[Path]:
    """Train what is missing and answer the questions whose tables are not there yet.

    Args:
        run: folders and sizes.
        names: of questions.

    Returns:
        The tables that were written.

    Raises:
        InputError: an unknown question, or data that is not there.
    """
    check_names(names, tuple(TRAINED_QUESTIONS))
    written = []
    for name in names:
        started, question = time.perf_counter(), TRAINED_QUESTIONS[name]
        folders = {variant: train_recipe(variant, run.runs) for variant in question.variants}
        settings = _settings_of(run, folders)
        if not is_recorded(run.results, name, settings):
            table = trained_study(run, name, folders).table(run.runs)
            written.append(write_study(run.results, name, table, settings, time.perf_counter() - started))
    return written


def trained_study(run: Ablations, name: str, folders: Mapping[str, Path]) -> Study:
    """The study of a question: each model and box size at the level that validation chose, and at the authors'.

    Args:
        run: folders and sizes.
        name: of the question.
        folders: of the trained pipelines, by recipe.
    """
    question = TRAINED_QUESTIONS[name]
    settings = question.settings
    models = {recipe: open_model(folder, read_training(folder)["method"]) for recipe, folder in folders.items()}
    variants = []
    for recipe, model in models.items():
        for box in question.box_sizes or (model.pipeline.config.box_size,):
            chosen = chosen_level(run, recipe, model, settings, question.levels or settings.timesteps, box)
            for kind, level in {"validation": chosen, "authors": RECIPES[recipe].settings.authors_timestep}.items():
                columns = {"variant": recipe, "box_size": box, "noise_level": kind, "timestep": level}
                variants.append(Variant(recipe, columns, (Rebuild(level=level, box=box),)))
    limit = max(1, round(run.subjects * question.share))
    rows = lesioned_rows(run, settings, "test", run.slice_step, limit, question.datasets)
    for contrast in question.mslub:
        rows += _with_lesion(run, mslub_rows(require_data_root(), contrast), run.slice_step)
    return Study(f"ablation-{name}", models, variants, [(row, None) for row in rows], map_scores, run.slice_step)


def chosen_level(run: Ablations, recipe: str, model: Model, settings: Settings, levels: Sequence[int], box: int) -> int:
    """The noise level with the best AUPRC on lesioned validation scans.

    The mean is over subjects, then over data sets, as in the benchmark.

    Args:
        run: folders.
        recipe: of the model.
        model: a trained model.
        settings: of the profile whose scans are looked at.
        levels: timesteps to try.
        box: side of the boxes in pixels.
    """
    step, endings = settings.selection_slice_step, [f"-{kind}" for kind in settings.lesion_kinds]
    rows = lesioned_rows(run, settings, "val", step, settings.val_lesion_subjects, endings)
    variants = [Variant(recipe, {"timestep": level}, (Rebuild(level=level, box=box),)) for level in levels]
    study = Study("level", {recipe: model}, variants, [(row, None) for row in rows], map_scores, step)
    means = study.table(run.runs).groupby(["timestep", "dataset"]).auprc.mean().groupby("timestep").mean()
    return int(means.idxmax())


def lesioned_rows(
    run: Ablations, settings: Settings, split: str, step: int, limit: int, endings: Sequence[str]
) -> list[ManifestRow]:
    """The first so many lesioned scans of each data set of a split, with lesion in the slices that are kept.

    Args:
        run: folders.
        settings: of the profile.
        split: `val` or `test`.
        step: every n-th slice is kept.
        limit: scans of each data set.
        endings: of the data sets' names.
    """
    rows = [row for row in cohort_rows(settings) if row.split == split and row.lesion_mask]
    names = dict.fromkeys(row.dataset for row in rows if row.dataset.endswith(tuple(endings)))
    first = [row for name in names for row in [row for row in rows if row.dataset == name][:limit]]
    return _with_lesion(run, first, step)


def _with_lesion(run: Ablations, rows: Sequence[ManifestRow], step: int) -> list[ManifestRow]:
    return [row for row in rows if looked_at(run.runs, row, step).lesion_mask.any()]


def _settings_of(run: Ablations, folders: Mapping[str, Path]) -> dict[str, Any]:
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
