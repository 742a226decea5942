"""Figures of benchmark tables: curves with bands, costs, subjects by rank, ablations, the ideas of the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pddm_utils.benchmark.leaderboard import network_passes
from pddm_utils.benchmark.studies.ablation_tables import mean_table
from pddm_utils.benchmark.studies.ideas import BASE_LINE
from pddm_utils.benchmark.studies.search_tables import chosen_ideas, idea_differences, in_order
from pddm_utils.benchmark.tables import with_intensity
from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.evaluation.metrics import RECALL_GRID, average_precision
from pddm_utils.evaluation.statistics import MIN_SUBJECTS, bootstrap_band
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.methods.registry import METHOD_NAMES
from pddm_utils.show.figures import RESIDUAL_COLOURS, method_colour, method_label, telling_slice
from pddm_utils.show.style import INK, WIDTH, colour_limit, outline, panel, styled

RANKS = ("worst", "median", "best")
_IDEA_SHIFT = 0.2  # rows between the two methods of an idea


@styled
def precision_recall_bands(curves: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Mean precision at fixed recalls, with 95 % bootstrap bands over subjects.

    Args:
        curves: `(subjects, points)` precision at `RECALL_GRID` by method, as `read_curves` gives for a data set.
        title: shown above.

    Raises:
        InputError: no curve, or curves at other recalls.
    """
    if not curves or any(values.shape[1:] != RECALL_GRID.shape for values in curves.values()):
        raise InputError("precision_recall_bands: pass a data set's curves as read_curves gives them")
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6), layout="constrained")
    for name in sorted(curves, key=_place):
        mean, low, high = bootstrap_band(curves[name])
        # Recall 0 is one point, above the others by construction: the curve starts at the first percent.
        axes.plot(RECALL_GRID[1:], mean[1:], color=method_colour(name), lw=2, label=method_label(name))
        axes.fill_between(RECALL_GRID[1:], low[1:], high[1:], color=method_colour(name), alpha=0.2, lw=0)
    subjects = max(len(values) for values in curves.values())
    band = "95 % band over subjects" if subjects >= MIN_SUBJECTS else "too few for a band"
    axes.set(xlabel="recall", ylabel="precision, mean over subjects", xlim=(0, 1), ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    figure.suptitle(f"{title}, {subjects} subjects, {band}".removeprefix(", "))
    return figure


def _place(name: str) -> int:
    order = list(METHOD_NAMES)
    return order.index(name) if name in order else len(order)


def method_costs(run: Mapping[str, Any], methods: list[str]) -> tuple[dict[str, float], str]:
    """What each method costs at test time, and in what unit.

    Args:
        run: the content of `run.json`.
        methods: names.

    Returns:
        CPU seconds a volume where the run measured them for all of these methods without a GPU, else wall seconds, else
        network passes a slice; and the unit in words.
    """
    times = run.get("reconstruction", {})
    if not set(methods) <= set(times):
        return {name: network_passes(run["settings"], name) for name in methods}, "network passes a slice"
    kind = "seconds" if run["hardware"]["gpu"] else "cpu_seconds"
    return {name: times[name][kind] for name in methods}, f"{'' if kind == 'seconds' else 'CPU '}seconds a volume"


@styled
def cost_quality(summary: pd.DataFrame, dataset: str, costs: Mapping[str, float], unit: str) -> Figure:
    """One point a method: what a volume costs, and the mean AUPRC with its interval over subjects.

    Args:
        summary: of `summary_table`.
        dataset: which of its data sets.
        costs: by method, see `method_costs`; 0 is drawn at the left edge.
        unit: of the costs.

    Raises:
        InputError: nothing to draw.
    """
    rows = summary[(summary.dataset == dataset) & summary.method.isin(list(costs))]
    if rows.empty:
        raise InputError(f"cost_quality: no method of {dataset} has a score and a cost")
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6), layout="constrained")
    positive = [costs[name] for name in rows.method if costs[name] > 0]
    left = min(positive, default=1.0)
    for row in rows.itertuples():
        below, above = row.mean - row.low, row.high - row.mean
        spread = None if np.isnan(row.low) else [[max(below, 0)], [max(above, 0)]]
        axes.errorbar(
            costs[row.method],
            row.mean,
            spread,
            fmt="o",
            color=method_colour(row.method),
            ms=6,
            lw=1.6,
            label=method_label(row.method),
        )
    if len(positive) < len(rows):  # a logarithm has no place for 0
        axes.set_xscale("symlog", linthresh=left)
        axes.set_xlim(-0.3 * left, 2 * max(positive, default=left))
    else:
        axes.set_xscale("log")
    axes.set(xlabel=unit, ylabel="AUPRC, mean and 95 % interval", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    figure.suptitle(f"{dataset}, {int(rows.subjects.max())} subjects")
    return figure


def ranked_subjects(scores: pd.DataFrame, dataset: str, method: str = "pddpm") -> dict[str, str]:
    """Subjects by rank of their AUPRC under one method, seeds averaged, at the noise level chosen on validation.

    Args:
        scores: as written by the benchmark.
        dataset: with lesions.
        method: whose AUPRC ranks them.

    Returns:
        Subject by `worst`, `median` (the lower one of two) and `best`; with few subjects, one may have several ranks.

    Raises:
        InputError: no such scores.
    """
    rows = with_intensity(scores, "validation")
    rows = rows[(rows.dataset == dataset) & (rows.method == method) & (rows.rule == DEFAULT_RULE)]
    ranked = rows.groupby("subject").auprc.mean().dropna().sort_values(kind="stable")
    if ranked.empty:
        raise InputError(f"{dataset}: no AUPRC of {method}; run the benchmark with it")
    places = (0, (len(ranked) - 1) // 2, len(ranked) - 1)
    return {rank: str(ranked.index[place]) for rank, place in zip(RANKS, places, strict=True)}


@styled
def ranked_panel(
    scans: Mapping[str, Scan], rebuilt: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
) -> Figure:
    """Scans side by side: the slice with most lesion, then each method's anomaly map of it.

    Args:
        scans: by rank, such as `worst`.
        rebuilt: by method, then by rank: reconstruction and anomaly map, both `(D, H, W)`.

    Returns:
        The figure; over each map stands the AUPRC of the whole scan. Every map has a colour scale of its own, whose
        ends stand under it: methods have scores of different units.

    Raises:
        InputError: no scan, no method, or a method without one of the scans.
    """
    if not scans or not rebuilt or any(set(pairs) != set(scans) for pairs in rebuilt.values()):
        raise InputError("ranked_panel: pass scans by rank, and of every method a pair of volumes for each of them")
    size = (WIDTH, 6.4 / 3 * (len(rebuilt) + 1))
    figure, grid = plt.subplots(len(rebuilt) + 1, len(scans), squeeze=False, layout="constrained", figsize=size)
    for (rank, scan), axes in zip(scans.items(), grid.T, strict=True):
        index = telling_slice(scan)
        aspect = float(np.divide(*np.linalg.norm(scan.affine[:3, :3], axis=0)[[1, 0]]))
        panel(axes[0], scan.image[index], f"{rank}:\n{scan.subject}", aspect)
        outline(axes[0], scan.lesion_mask[index])
        for one, (name, pairs) in zip(axes[1:], rebuilt.items(), strict=True):
            anomalies = pairs[rank][1]
            title = f"AUPRC {average_precision(anomalies, scan.lesion_mask):.3f}"
            limit = colour_limit(anomalies[index])
            panel(one, anomalies[index], title, aspect, cmap=RESIDUAL_COLOURS, vmax=limit)
            one.set_xlabel(f"0 to {limit:.2g}")
            if rank == next(iter(scans)):
                one.set_ylabel(method_label(name).replace(", ", ",\n"), color=INK)
                one.spines["left"].set(visible=True, color=method_colour(name), linewidth=5)
    figure.supxlabel("anomaly map, black to yellow")
    return figure


def draw_curves(axes: Axes, table: pd.DataFrame, x: str, metric: str = "auprc") -> pd.DataFrame:
    """Mean and 95 % interval over subjects against a quantity, a line for each method.

    Args:
        axes: where to draw.
        table: of a question, one row a subject, method and `x`.
        x: a column of numbers.
        metric: a column.

    Returns:
        The means that are drawn, see `mean_table`.
    """
    means = mean_table(table, ["method", x], metric).sort_values(x, kind="stable")
    for name in table["method"].unique():
        rows, colour = means[means.method == name], method_colour(name)
        axes.plot(rows[x], rows["mean"], color=colour, lw=1.8, marker="o", ms=4.5, label=method_label(name))
        axes.fill_between(rows[x], rows.low.astype(float), rows.high.astype(float), color=colour, alpha=0.13, lw=0)
    axes.set(xlabel=x.replace("_", " "), ylabel=metric.replace("_", " "))
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return means


def draw_variants(axes: Axes, table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """AUPRC, a row for each method and variant: pale dots are subjects, the diamond their mean with its 95 % interval.

    Rows of a single method are named by their variant alone.

    Args:
        axes: where to draw.
        table: of a question, one row a subject, method and variant.
        by: columns that tell variants of a method apart; their values name the row.

    Returns:
        The means that are drawn, see `mean_table`.
    """
    keys = ["method", *by]
    means = mean_table(table, keys)
    places = np.arange(len(means))[::-1]
    groups = table.groupby(keys, sort=False, dropna=False)
    for place, row, (_, rows) in zip(places, means.itertuples(), groups, strict=True):
        colour = method_colour(row.method)
        axes.scatter(rows.auprc, np.full(len(rows), place), s=14, color=colour, alpha=0.7, lw=0)
        axes.plot([row.low, row.high], [place, place], color=colour, lw=2)
        axes.plot([row.mean], [place], "D", color=colour, ms=6, mec="white", mew=0.6)
    several = table["method"].nunique() > 1
    names = [
        (f"{method_label(row.method)}\n" if several else "") + ", ".join(str(getattr(row, name)) for name in by)
        for row in means.itertuples()
    ]
    axes.set_yticks(places, names)
    axes.set(xlabel="AUPRC", xlim=(min(0.0, axes.get_xlim()[0]), None), ylim=(-0.6, len(means) - 0.4))
    axes.spines[["top", "right"]].set_visible(False)
    return means


@styled
def variants_figure(table: pd.DataFrame, by: Sequence[str], title: str = "") -> Figure:
    """One panel of `draw_variants`, as high as its rows ask for.

    Args:
        table, by: as there.
        title: shown above; the one method's name when left out and there is one.
    """
    methods = table["method"].unique()
    rows = len(table.groupby(["method", *by], dropna=False))
    height = (0.34 if len(methods) == 1 else 0.5) * rows + 1.0
    figure, axes = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    draw_variants(axes, table, by)
    axes.set_title(title or (method_label(methods[0]) if len(methods) == 1 else ""))
    return figure


@styled
def idea_figure(table: pd.DataFrame) -> Figure:
    """A panel for each cohort, a row for each idea: mean difference to the base line, 95 % interval over subjects.

    What validation chose has a ring.

    Args:
        table: of `run_search`.
    """
    differences, choice = idea_differences(table), chosen_ideas(table)
    differences = differences[differences.idea != BASE_LINE]
    cohorts, ideas = list(differences.cohort.unique()), in_order(differences.idea)
    figure, panels = plt.subplots(
        1, len(cohorts), figsize=(WIDTH, 0.27 * len(ideas) + 1.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, cohort in zip(panels[0], cohorts, strict=True):
        axes.axvline(0, color="#666666", lw=1)
        for number, method in enumerate(differences.method.unique()):
            rows = differences[(differences.cohort == cohort) & (differences.method == method)]
            places = np.array([ideas.index(idea) for idea in rows.idea]) + (2 * number - 1) * _IDEA_SHIFT
            colour = method_colour(method)
            axes.hlines(places, rows.low, rows.high, color=colour, lw=1.8)
            axes.plot(rows["mean"], places, "os"[number % 2], color=colour, ms=4.5, label=method_label(method))
            of_rule = choice[(choice.cohort == cohort) & (choice.method == method)].idea.iloc[0]
            chosen = (rows.idea == of_rule).to_numpy()
            axes.plot(rows["mean"][chosen], places[chosen], "o", mfc="none", mec=colour, ms=11, mew=1.4)
        axes.set(title=cohort, ylim=(len(ideas) - 0.4, -0.6))
        axes.set_yticks(range(len(ideas)), ideas)
        axes.grid(axis="y", lw=0.4, alpha=0.4)
    figure.supxlabel("AUPRC minus that of the base line, validation scans")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
