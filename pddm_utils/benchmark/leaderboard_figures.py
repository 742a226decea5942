"""Figures of a whole benchmark: precision-recall curves with bands, and cost against quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pddm_utils.benchmark.leaderboard import network_passes
from pddm_utils.core.errors import InputError
from pddm_utils.evaluation.metrics import RECALL_GRID
from pddm_utils.evaluation.statistics import MIN_SUBJECTS, bootstrap_band
from pddm_utils.methods.registry import METHOD_NAMES
from pddm_utils.show.figures import method_colour, method_label
from pddm_utils.show.style import styled


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
    figure, axes = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    for name in sorted(curves, key=_place):
        mean, low, high = bootstrap_band(curves[name])
        # Recall 0 is one point, above the others by construction: the curve starts at the first percent.
        axes.plot(RECALL_GRID[1:], mean[1:], color=method_colour(name), lw=2, label=method_label(name))
        axes.fill_between(RECALL_GRID[1:], low[1:], high[1:], color=method_colour(name), alpha=0.2, lw=0)
    subjects = max(len(values) for values in curves.values())
    band = "95 % band over subjects" if subjects >= MIN_SUBJECTS else "too few for a band"
    axes.set(xlabel="recall", ylabel="precision, mean over subjects", xlim=(0, 1), ylim=(0, None))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.suptitle(f"{title}, {subjects} subjects, {band}".removeprefix(", "), fontsize=9)
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
    figure, axes = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
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
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.suptitle(f"{dataset}, {int(rows.subjects.max())} subjects", fontsize=9)
    return figure
