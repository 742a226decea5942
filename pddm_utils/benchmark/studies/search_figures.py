"""The picture of the validation search: every idea's difference to the base line, with its interval."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pddm_utils.benchmark.studies.ideas import BASE_LINE
from pddm_utils.benchmark.studies.search_tables import chosen_ideas, idea_differences, in_order, table_digest
from pddm_utils.core.files import whole_file
from pddm_utils.show.figures import method_colour, method_label
from pddm_utils.show.style import styled

_SHIFT = 0.2  # rows between the two methods of an idea


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
        1, len(cohorts), figsize=(9.2, 0.24 * len(ideas) + 1.2), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, cohort in zip(panels[0], cohorts, strict=True):
        axes.axvline(0, color="#666666", lw=1)
        for number, method in enumerate(differences.method.unique()):
            rows = differences[(differences.cohort == cohort) & (differences.method == method)]
            places = np.array([ideas.index(idea) for idea in rows.idea]) + (2 * number - 1) * _SHIFT
            colour = method_colour(method)
            axes.hlines(places, rows.low, rows.high, color=colour, lw=1.8)
            axes.plot(rows["mean"], places, "os"[number % 2], color=colour, ms=4.5, label=method_label(method))
            of_rule = choice[(choice.cohort == cohort) & (choice.method == method)].idea.iloc[0]
            chosen = (rows.idea == of_rule).to_numpy()
            axes.plot(rows["mean"][chosen], places[chosen], "o", mfc="none", mec=colour, ms=11, mew=1.4)
        axes.set(title=f"{cohort}, validation", xlabel="AUPRC minus base line", ylim=(len(ideas) - 0.4, -0.6))
        axes.set_yticks(range(len(ideas)), ideas, fontsize=8)
        axes.grid(axis="y", lw=0.4, alpha=0.4)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside upper center", ncols=2, frameon=False
    )
    return figure


def save_idea_figure(table: pd.DataFrame, out: Path) -> None:
    """Write `idea_figure` as a PNG that names the table it was drawn from, see `table_digest`."""
    with whole_file(out) as partial:
        idea_figure(table).savefig(partial, dpi=150, metadata={"Source": table_digest(table)})
