"""Pictures of the ablations: a metric against a quantity, or for a handful of variants; always with every subject.

Both draw into axes that the caller made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pddm_utils.benchmark.studies.ablation_tables import mean_table
from pddm_utils.show.figures import method_colour, method_label

_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")


def draw_curves(
    axes: Axes, table: pd.DataFrame, x: str, metric: str = "auprc", split: str | None = None
) -> pd.DataFrame:
    """Mean and 95 % interval over subjects against a quantity, a line for each method (and value of `split`).

    Args:
        axes: where to draw.
        table: of a question, one row a subject, method, `x` and `split`.
        x: a column of numbers.
        metric: a column.
        split: tells lines of one method apart: line styles and markers in order of appearance.

    Returns:
        The means that are drawn, see `mean_table`.
    """
    by = ["method", *([split] if split else []), x]
    means = mean_table(table, by, metric).sort_values(x, kind="stable")
    styles = {value: number for number, value in enumerate(table[split].unique())} if split else {None: 0}
    for name in table["method"].unique():
        for value, number in styles.items():
            rows = means[(means.method == name) & (means[split] == value if split else True)]
            if rows.empty:
                continue
            label = method_label(name) if value is None else f"{method_label(name)}, {value}"
            axes.plot(
                rows[x],
                rows["mean"],
                color=method_colour(name),
                ls=_LINES[number % len(_LINES)],
                lw=1.8,
                marker=_MARKERS[number % len(_MARKERS)],
                ms=4.5,
                label=label,
            )
            axes.fill_between(
                rows[x], rows.low.astype(float), rows.high.astype(float), color=method_colour(name), alpha=0.13, lw=0
            )
    axes.set(xlabel=x.replace("_", " "), ylabel=metric.replace("_", " "))
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return means


def draw_variants(axes: Axes, table: pd.DataFrame, by: Sequence[str], metric: str = "auprc") -> pd.DataFrame:
    """A row for each method and variant: pale dots are subjects, the diamond their mean with its 95 % interval.

    Args:
        axes: where to draw.
        table: of a question, one row a subject, method and variant.
        by: columns that tell variants of a method apart; their values name the row.
        metric: a column.

    Returns:
        The means that are drawn, see `mean_table`.
    """
    keys = ["method", *by]
    means = mean_table(table, keys, metric)
    places = np.arange(len(means))[::-1]
    groups = table.groupby(keys, sort=False, dropna=False)
    for place, row, (_, rows) in zip(places, means.itertuples(), groups, strict=True):
        colour = method_colour(row.method)
        axes.scatter(rows[metric], np.full(len(rows), place), s=14, color=colour, alpha=0.35, lw=0)
        axes.plot([row.low, row.high], [place, place], color=colour, lw=2)
        axes.plot([row.mean], [place], "D", color=colour, ms=6, mec="white", mew=0.6)
    names = [
        ": ".join((method_label(row.method), ", ".join(str(getattr(row, name)) for name in by)))
        for row in means.itertuples()
    ]
    axes.set_yticks(places, names, fontsize=8)
    axes.set(xlabel=metric.replace("_", " "), xlim=(min(0.0, axes.get_xlim()[0]), None), ylim=(-0.6, len(means) - 0.4))
    axes.spines[["top", "right"]].set_visible(False)
    return means
