"""Figures of numbers: paired scores, precision-recall curves; style and colours of `figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pddm_utils.core.errors import InputError
from pddm_utils.evaluation.metrics import PrecisionRecall, precision_at_recall
from pddm_utils.evaluation.statistics import MIN_SUBJECTS, bootstrap_interval, paired_difference
from pddm_utils.show.figures import method_colour, method_label
from pddm_utils.show.style import INK, WIDTH, styled


@styled
def plot_paired(scores: Mapping[str, ArrayLike], metric: str = "AUPRC") -> Figure:
    """Scores of every subject under each method, joined by lines, with means and bootstrap intervals.

    Args:
        scores: `(scans,)` by method name, one scan a subject, the same in the same order, seeds averaged; NaN is left
            out.
        metric: name of the vertical axis.

    Returns:
        The figure; with two methods its title gives the mean paired difference, and its 95 % interval from
        5 subjects on.

    Raises:
        InputError: no method, or methods with different numbers of scans.
    """
    values = {name: np.asarray(column, dtype=float) for name, column in scores.items()}
    if not values or len({column.shape for column in values.values()}) != 1:
        raise InputError("plot_paired: pass one score per scan for each method, the same scans for all")
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6 if len(values) <= 3 else 4.6), layout="constrained")
    names = list(values)
    axes.plot(range(len(names)), np.stack(list(values.values())), color="#999999", lw=0.6, alpha=0.7)
    for place, name in enumerate(names):
        colour, column = method_colour(name), values[name]
        axes.scatter(np.full(column.shape, place), column, s=18, color=colour, alpha=0.7, lw=0, zorder=2)
        mean = bootstrap_interval(column)
        axes.plot([place + 0.16], [mean.mean], "D", color=INK, ms=5, zorder=3)
        axes.plot([place + 0.16] * 2, [mean.low, mean.high], color=INK, lw=1.8, zorder=3)
    axes.set(
        xticks=range(len(names)),
        xticklabels=[method_label(name) for name in names],
        ylabel=metric,
        xlim=(-0.4, len(names) - 0.6),
        ylim=(min(0.0, axes.get_ylim()[0]), None),
    )
    if len(names) > 3:
        axes.tick_params("x", rotation=60)
    title = "diamond: mean, bar: 95 % interval over subjects"
    if len(names) == 2:
        difference = paired_difference(values[names[1]], values[names[0]])
        title = f"{names[1]} minus {names[0]}: {difference.mean:+.3f}"
        if difference.n >= MIN_SUBJECTS:
            title += f" [{difference.low:+.3f}, {difference.high:+.3f}]"
        title += f", n = {difference.n}"
    axes.set_title(title)
    return figure


@styled
def precision_recall_plot(curves: Mapping[str, Sequence[PrecisionRecall]], title: str = "") -> Figure:
    """Precision-recall curves: one thin line per scan, one thick line per method, the mean at equal recall.

    Args:
        curves: one curve per scan by method name; curves of lesion-free scans (empty) are left out.
        title: shown above.

    Raises:
        InputError: no method has a curve to draw.
    """
    kept = {name: [c for c in scans if len(c.recall)] for name, scans in curves.items()}
    if not any(kept.values()):
        raise InputError("precision_recall_plot: no curve to draw; pass curves of scans with a lesion")
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    recall = np.linspace(0.005, 1, 200)
    for name, scans in kept.items():
        for curve in scans:
            axes.step(curve.recall, curve.precision, where="pre", c=method_colour(name), lw=0.5, alpha=0.3)
        if scans:
            axes.plot(
                recall,
                np.mean([precision_at_recall(curve, recall) for curve in scans], axis=0),
                color=method_colour(name),
                lw=2.2,
                label=f"{method_label(name)}, mean of {len(scans)}",
            )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
    figure.suptitle(title)
    return figure
