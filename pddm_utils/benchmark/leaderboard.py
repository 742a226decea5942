"""The leaderboard: what every method of a benchmark reaches, what it costs, and by how much patching pays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pddm_utils.benchmark.tables import (
    NO_VALUE,
    PATCHED,
    WHOLE,
    compared_cells,
    comparison_table,
    format_difference,
    format_summary,
    healthy_twin,
    is_healthy,
    markdown_table,
    short_name,
    summary_table,
    with_intensity,
)
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.evaluation.statistics import MIN_SUBJECTS, clear_sign, relative_improvement, seed_mean
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.methods.registry import FLOORS, METHOD_NAMES, METHODS, PATCHED_METHODS, TRAINED_METHODS

_SLICE_SIDE = 96  # pixels of a prepared slice
OLDER = "†"  # marks a row that was made with an older definition of its method


def large_data_sets(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of data sets with enough subjects for an interval."""
    return scores[scores.groupby("dataset").subject.transform("nunique") >= MIN_SUBJECTS]


def finished_runs(results: Path) -> list[Path]:
    """Folders of full runs with scores: no smoke test, none on shipped weights (git ignores those two) or of floors."""
    folders = sorted(path.parent for path in results.glob("*/scores.csv"))
    return [
        folder for folder in folders if folder.name != "smoke" and not folder.name.endswith(("-shipped", "-floors"))
    ]


def read_selection(folder: Path) -> pd.DataFrame:
    """Validation AUPRC by method, timestep (-1 for none), data set, subject and, if all chose, seed; or no rows."""
    path = folder / "selection.csv"
    if not path.is_file():
        return pd.DataFrame(columns=["method", "timestep", "dataset", "subject", "auprc"])
    return pd.read_csv(path)


def leaderboard_markdown(scores: pd.DataFrame, run: Mapping[str, Any], floors: Mapping[str, str] | None = None) -> str:
    """Methods as rows, the best on the first tumour data set first; AUPRC, difference to DDPM and floor; costs.

    The p-values of the differences are Holm-corrected over the whole table.

    Args:
        scores: of data sets with `MIN_SUBJECTS` subjects or more.
        run: the content of `run.json`; what an older one does not hold is shown as a dash.
        floors: the best floor of each data set, see `best_floors`.
    """
    summary = summary_table(scores, "auprc")
    datasets = sorted(summary.dataset.unique(), key=lambda name: (not name.endswith("-tumour"), name))
    first = summary[summary.dataset == datasets[0]].sort_values("mean", ascending=False, kind="stable")
    header, cells = compared_cells(scores, datasets, floors=floors)
    rows = [
        [
            METHOD_NAMES[name] + OLDER * (name in older_methods(run)),
            *cells[name],
            _seconds(run, name),
            _parameters(run, name),
            _training_time(run, name),
        ]
        for name in first.method
    ]
    training = "seconds of training on the GPU" if _gpu(run) else "CPU minutes of training"
    costs = ["seconds a volume, wall / CPU", "parameters", training]
    return markdown_table(["method", *header, *costs], rows)


def older_methods(run: Mapping[str, Any]) -> list[str]:
    """Methods of a run whose names stood for another definition than today's."""
    made = run.get("definitions", {})
    return [name for name in run["settings"].get("methods", []) if made.get(name, 1) < METHODS[name].definition]


def _seconds(run: Mapping[str, Any], method: str) -> str:
    times = run.get("reconstruction", {}).get(method)
    return f"{times['seconds']:.3g} / {times['cpu_seconds']:.3g}" if times else NO_VALUE


def _model_records(run: Mapping[str, Any], method: str) -> list[Mapping[str, Any]]:
    return [run["models"][name] for name in sorted(run["models"]) if name.rpartition("-seed")[0] == method]


def _parameters(run: Mapping[str, Any], method: str) -> str:
    if method not in TRAINED_METHODS:
        return "0"
    counts = {record["parameters"] for record in _model_records(run, method) if "parameters" in record}
    return ", ".join(f"{count:,}" for count in sorted(counts)) or NO_VALUE


def _gpu(run: Mapping[str, Any]) -> str | None:
    return run.get("hardware", {}).get("gpu")


def _training_time(run: Mapping[str, Any], method: str) -> str:
    if _gpu(run):
        times = [f"{record['seconds']:.0f}" for record in _model_records(run, method) if method in TRAINED_METHODS]
        return ", ".join(times) or "0"
    return ", ".join(map(in_minutes, training_minutes(run, method))) or NO_VALUE


def training_minutes(run: Mapping[str, Any], method: str) -> list[float]:
    """CPU minutes of each training of a method, in the order of the seeds; one zero for what is not trained.

    Args:
        run: the content of `run.json`.
        method: its name.
    """
    return [record["cpu_seconds"] / 60 for record in _model_records(run, method)] if method in TRAINED_METHODS else [0]


def in_minutes(value: float) -> str:
    """Whole minutes, tenths of what is less than one."""
    return f"{value:.0f}" if value >= 0.95 else f"{value:.1f}".replace("0.0", "0")


def network_passes(settings: Mapping[str, Any], method: str) -> int:
    """Network calls for one slice at test time, 0 for a method without a network.

    Args:
        settings: of a run, as `run.json` holds them.
        method: its name.
    """
    if method in (*FLOORS, "pca"):
        return 0
    if method in PATCHED_METHODS:
        return len(BoxGrid(_SLICE_SIDE, settings["box_size"], settings["stride"]))
    return {"anoddpm": settings["ddim_steps"], "cddpm": 3}.get(method, 1)


def best_on_validation(
    scores: pd.DataFrame, selection: pd.DataFrame, dataset: str, candidates: Iterable[str]
) -> tuple[str | None, list[str]]:
    """The method that is best on a data set's **validation** subjects, each at its chosen noise level.

    Args:
        scores: of a benchmark.
        selection: its validation AUPRC, see `read_selection`.
        dataset: with lesions.
        candidates: names of methods; those that were not scored are left out, and a single one needs no choice.

    Returns:
        The method, or None where it cannot be chosen; and the methods whose validation AUPRC is missing.
    """
    own = with_intensity(scores[scores.dataset == dataset], "validation")
    levels = own.groupby("method").timestep.first()
    scored = [name for name in candidates if name in levels]
    if len(scored) == 1:
        return scored[0], []
    rows = selection[selection.dataset == dataset]
    means = {name: rows[(rows.method == name) & (rows.timestep == levels[name])].auprc.mean() for name in scored}
    missing = [name for name in scored if np.isnan(means[name])]
    return (None if missing or not scored else max(scored, key=means.__getitem__)), missing


def best_floors(scores: pd.DataFrame, selection: pd.DataFrame) -> dict[str, str]:
    """The floor that is best on validation, by data set with lesions; left out where it cannot be chosen."""
    datasets = [name for name in scores.dataset.unique() if not is_healthy(name)]
    best = {dataset: best_on_validation(scores, selection, dataset, FLOORS)[0] for dataset in datasets}
    return {dataset: name for dataset, name in best.items() if name is not None}


def improvement_markdown(scores: pd.DataFrame, selection: pd.DataFrame) -> str:
    """Test AUPRC of pDDPM against the baseline that is best on validation, absolute and relative.

    Args:
        scores: of data sets with `MIN_SUBJECTS` subjects or more.
        selection: validation AUPRC, see `read_selection`.
    """
    datasets = summary_table(scores, "auprc").dataset.unique()
    baselines = [name for name in METHODS if name not in PATCHED_METHODS]
    best = {dataset: best_on_validation(scores, selection, dataset, baselines) for dataset in datasets}
    differences = comparison_table(
        scores, [(dataset, "auprc", PATCHED, name) for dataset, (name, _) in best.items() if name is not None]
    )
    summary = summary_table(scores, "auprc")
    rows = []
    for dataset, (name, missing) in best.items():
        ours = format_summary(summary, dataset, PATCHED)
        if name is None:
            absent = ", ".join(METHOD_NAMES[other] for other in missing) or "any baseline"
            rows.append([dataset, f"not chosen: no validation AUPRC of {absent}", NO_VALUE, ours, NO_VALUE, NO_VALUE])
            continue
        rows.append(
            [
                dataset,
                METHOD_NAMES[name],
                format_summary(summary, dataset, name),
                ours,
                format_difference(differences, dataset, PATCHED, name),
                _relative(scores, dataset, name),
            ]
        )
    header = ["data set", "best baseline on validation", "its AUPRC", METHOD_NAMES[PATCHED], "difference", "relative"]
    return markdown_table(header, rows)


def _relative(scores: pd.DataFrame, dataset: str, baseline: str) -> str:
    chosen = with_intensity(scores, "validation")
    chosen = chosen[(chosen.dataset == dataset) & (chosen.rule == DEFAULT_RULE)]
    (subjects, a), (_, b) = (
        seed_mean(part.auprc, part.subject)
        for part in (chosen[chosen.method == PATCHED], chosen[chosen.method == baseline])
    )
    if not len(a):
        return NO_VALUE
    ratio = relative_improvement(a, b, subjects)
    interval = "" if np.isnan(ratio.low) else f" [{100 * ratio.low:+.0f}, {100 * ratio.high:+.0f}]"
    return f"{100 * ratio.mean:+.0f}{interval} %"


def questions_markdown(scores: pd.DataFrame, floors: Mapping[str, str] | None = None) -> str:
    """Does pDDPM's gain hold with the threshold of healthy scans, and what happens on healthy scans? Answered by rule.

    An answer needs an interval without zero and a p-value below 0.05, Holm-corrected over this table.

    Args:
        scores: of data sets with `MIN_SUBJECTS` subjects or more.
        floors: the best floor of each data set, see `best_floors`; asked about too.
    """
    names = scores.dataset.unique()
    lesioned = [name for name in names if not is_healthy(name)]
    healthy = [name for name in dict.fromkeys(map(healthy_twin, lesioned)) if name in names]
    dice = ("dice", f"Dice: is {short_name(PATCHED)} above?", "yes", "no, below", 3)
    asked = [(name, WHOLE, *dice) for name in lesioned]
    asked += [(name, (floors or {})[name], *dice) for name in lesioned if name in (floors or {})]
    alarms = ("false_positive_ml", "False positives in ml: more of them?", "yes", "no, fewer", 1)
    asked += [(name, WHOLE, *alarms) for name in healthy]
    differences = comparison_table(scores, [(name, metric, PATCHED, other) for name, other, metric, *_ in asked])
    rows = []
    for name, other, metric, question, above, below, digits in asked:
        summary = summary_table(scores[scores.dataset == name], metric)
        found = differences[(differences.metric == metric) & (differences.baseline == other)]
        rows.append(
            [
                question,
                name,
                METHOD_NAMES[other],
                format_summary(summary, name, other, digits),
                format_summary(summary, name, PATCHED, digits),
                format_difference(found, name, PATCHED, other, digits),
                _answer(found[found.dataset == name], above, below),
            ]
        )
    header = ["question", "data set", "baseline", "its mean", METHOD_NAMES[PATCHED], "difference", "answer"]
    return markdown_table(header, rows)


def _answer(row: pd.DataFrame, above: str, below: str) -> str:
    if row.empty:
        return NO_VALUE
    mean, low, high, p = row.iloc[0][["mean", "low", "high", "p_holm"]]
    if np.isnan(low):
        return "too few subjects"
    return {1: above, -1: below, 0: "not shown"}[clear_sign(mean, low, high, p)]
