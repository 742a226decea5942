"""What the factorial of trainings says: the best noise level of each cell, tables, and curves against steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pddm_utils.benchmark.store import read_study
from pddm_utils.benchmark.studies.factorial import FLOORS, Cell
from pddm_utils.benchmark.tables import format_interval, markdown_table, mean_cell
from pddm_utils.evaluation.statistics import paired_difference
from pddm_utils.show.figures import method_colour, method_label
from pddm_utils.show.style import WIDTH, styled

SCORES = {"auprc": "plain map", "auprc_signed": "signed", "auprc_z": "signed z-score by place"}
_CELL = [field.name for field in dataclasses.fields(Cell)]
_STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (5, 1)), "v"))  # of recipes, in the order met


def read_factorial(results: str | Path, profile: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The scores and how they were made (`InputError` where there are none)."""
    return read_study(Path(results), profile, f"recipe --profile {profile}")


def recipe_name(row: Mapping[str, Any]) -> str:
    """What a cell is called beside its method: noise, draw of levels, rate."""
    return f"{row['noise']}, {row['draw']} draw, {row['rate']}"


def best_levels(table: pd.DataFrame, dataset: str, score: str = "auprc") -> pd.DataFrame:
    """The noise level with the best mean on a data set, for each cell and snapshot; floors have none.

    Args:
        table: of `run_factorial`.
        dataset: lesioned validation scans.
        score: one of `SCORES`.

    Returns:
        A row for each cell and step: the cell's columns, `step`, `timestep`, `mean` of the score, `healthy_l1` at
        that level, and `edge`, whether the level is the lowest or highest that was tried.
    """
    trained = table[~table.method.isin(FLOORS)]
    levels = sorted(trained.timestep.unique())
    keys = [*_CELL, "step"]
    means = trained[trained.dataset == dataset].groupby([*keys, "timestep"], sort=False)[score].mean().reset_index()
    healthy = trained.groupby([*keys, "timestep"]).healthy_l1.mean().reset_index()
    best = means.loc[means.groupby(keys, sort=False)[score].idxmax()].rename(columns={score: "mean"})
    best = best.merge(healthy, on=[*keys, "timestep"], how="left")
    return best.assign(edge=best.timestep.isin([levels[0], levels[-1]]))


def factorial_markdown(table: pd.DataFrame, dataset: str) -> str:
    """A row for each finished cell and each floor: the three maps at the level that is best for each, healthy error.

    Args:
        table: of `run_factorial`.
        dataset: lesioned validation scans.
    """
    chosen = {score: best_levels(table, dataset, score) for score in SCORES}
    healthy = table.groupby("method").healthy_l1.mean()
    rows = [["–", method, "–", *_floor_cells(table, dataset, method), f"{healthy[method]:.3f}"] for method in FLOORS]
    finished = chosen["auprc"][chosen["auprc"].step == chosen["auprc"].steps]
    for _, cell in finished.iterrows():
        cells = [_cell_text(table, dataset, score, _same(chosen[score], cell)) for score in SCORES]
        rows.append(
            [method_label(cell.method), recipe_name(cell), f"{cell.step:.0f}", *cells, f"{cell.healthy_l1:.3f}"]
        )
    return markdown_table(["method", "training", "steps", *SCORES.values(), "healthy error"], rows)


def patching_markdown(table: pd.DataFrame, dataset: str) -> str:
    """pDDPM minus DDPM for each training that both had, with the same steps, each at its own best level.

    Args:
        table: of `run_factorial`.
        dataset: lesioned validation scans.
    """
    rows = []
    chosen = {score: best_levels(table, dataset, score) for score in SCORES}
    finished = chosen["auprc"][chosen["auprc"].step == chosen["auprc"].steps]
    patched = finished[finished.method == "pddpm"]
    for _, cell in patched.iterrows():
        other = {**cell, "method": "ddpm"}
        if len(_same(chosen["auprc"], other)):
            differences = [
                paired_difference(
                    *_paired(table, dataset, score, _same(chosen[score], cell), _same(chosen[score], other))
                )
                for score in SCORES
            ]
            rows.append(
                [recipe_name(cell), f"{cell.step:.0f}", *(format_interval(one._asdict()) for one in differences)]
            )
    return markdown_table(["training", "steps", *SCORES.values()], rows)


@styled
def factorial_figure(table: pd.DataFrame, dataset: str) -> Figure:
    """AUPRC and healthy error against steps, each cell at its best level, with the floors as lines.

    Args:
        table: of `run_factorial`.
        dataset: lesioned validation scans.
    """
    best = best_levels(table, dataset)
    names = list(dict.fromkeys(map(recipe_name, best.to_dict("records"))))
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(WIDTH, 8), sharex=True, layout="constrained")
    for _, curve in best.groupby(_CELL, sort=False):
        style, marker = _STYLES[names.index(recipe_name(curve.iloc[0])) % len(_STYLES)]
        method = curve.method.iloc[0]
        options: dict[str, Any] = {"color": method_colour(method), "ls": style, "marker": marker, "ms": 4.5, "lw": 1.6}
        label = f"{method_label(method)}: {recipe_name(curve.iloc[0])}"
        upper.plot(curve.step, curve["mean"], label=label, **options)
        lower.plot(curve.step, curve.healthy_l1, **options)
    floors = table[table.method.isin(FLOORS)]
    for number, method in enumerate(FLOORS):
        rows = floors[floors.method == method]
        line: dict[str, Any] = {"color": "#555555", "lw": 1, "ls": ("-", "--", ":")[number]}
        upper.axhline(rows[rows.dataset == dataset].auprc.mean(), label=f"{method}, no network", **line)
        if method != "intensity":  # black is no healthy brain
            lower.axhline(rows.healthy_l1.mean(), **line)
    upper.set(ylabel=f"AUPRC, {SCORES['auprc']}", xscale="log", ylim=(0, None))
    lower.set(xlabel="optimiser step", ylabel="healthy error (scaled intensity)", xscale="log", ylim=(0, None))
    for axes in (upper, lower):
        steps = sorted(best.step.unique())
        axes.set_xticks(steps, [f"{step:.0f}" for step in steps], minor=False)
        axes.minorticks_off()
        axes.patch.set_alpha(0)  # a page may be dark
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return figure


def _same(best: pd.DataFrame, cell: Mapping[str, Any]) -> pd.DataFrame:
    keys = [*_CELL, "step"]
    return best[(best[keys] == pd.Series({key: cell[key] for key in keys})).all(axis=1)]


def _subjects(table: pd.DataFrame, dataset: str, score: str, best: pd.DataFrame) -> pd.Series:
    """The score of each subject at a cell's best level."""
    keys = [*_CELL, "step", "timestep"]
    row = best.iloc[0]
    part = table[(table.dataset == dataset) & (table[keys] == row[keys]).all(axis=1)]
    return part.set_index("subject")[score]


def _cell_text(table: pd.DataFrame, dataset: str, score: str, best: pd.DataFrame) -> str:
    edge = ", edge" if best.edge.iloc[0] else ""
    return f"{mean_cell(_subjects(table, dataset, score, best))} ({best.timestep.iloc[0]:.0f}{edge})"


def _floor_cells(table: pd.DataFrame, dataset: str, method: str) -> list[str]:
    part = table[(table.method == method) & (table.dataset == dataset)]
    return [mean_cell(part[score]) for score in SCORES]


def _paired(
    table: pd.DataFrame, dataset: str, score: str, one: pd.DataFrame, other: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    first, second = (_subjects(table, dataset, score, best) for best in (one, other))
    return first.to_numpy(), second.reindex(first.index).to_numpy()
