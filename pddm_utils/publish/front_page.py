"""The main result, as the front page shows it: a small table and a chart, methods beside floors."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from pddm_utils.benchmark.studies.search_tables import table_digest
from pddm_utils.benchmark.tables import (
    NO_VALUE,
    comparison_table,
    format_difference,
    format_summary,
    markdown_table,
    read_results,
    summary_table,
)
from pddm_utils.core.files import whole_file
from pddm_utils.methods.registry import FLOORS, METHOD_NAMES
from pddm_utils.show.figures import method_colour
from pddm_utils.show.style import INK, styled

DATASET = "ixi-t1-tumour"
FOLDERS = ("real-methods", "real-floors")  # runs with the same test subjects
ROWS = ("dae", "atlas", "vae", "pddpm", "ddpm", "blur", "intensity")
FLOOR = "atlas"  # the best one on validation subjects, which a test checks
_DARK = {"text": "#e6e6e6", "line": "#9aa0a6"}


def front_scores(results: Path) -> pd.DataFrame:
    """Scores of the front page's methods on its data set, of all the runs they stand in.

    Args:
        results: folder of the benchmark's tables.

    Raises:
        InputError: a run is not there.
    """
    scores = pd.concat([read_results(results / folder)[0] for folder in FOLDERS], ignore_index=True)
    scores = scores[(scores.dataset == DATASET) & scores.method.isin(ROWS)]
    return scores.drop_duplicates(["method", "seed", "subject", "noise_level", "rule"])  # intensity is in both


def front_block(results: Path) -> str:
    """The table of the front page, best first, with the difference to the table of means on the same people."""
    scores = front_scores(results)
    summary = summary_table(scores, "auprc").sort_values("mean", ascending=False)
    differences = comparison_table(scores, [(DATASET, "auprc", name, FLOOR) for name in ROWS if name != FLOOR])
    rows = []
    for name in summary.method:
        minus = NO_VALUE if name == FLOOR else format_difference(differences, DATASET, name, FLOOR)
        rows.append([_label(name), format_summary(summary, DATASET, name), minus])
    return markdown_table(["on 57 people", "AUPRC [95 % interval]", f"minus {METHOD_NAMES[FLOOR]}"], rows)


def save_front_figures(results: Path, folder: Path) -> list[Path]:
    """Draw the chart for light and for dark pages; both name the scores they were drawn from, see `table_digest`.

    Args:
        results: folder of the benchmark's tables.
        folder: receives `front.svg` and `front-dark.svg`.

    Returns:
        Both files.
    """
    written, source = [], table_digest(front_scores(results))
    for name, colours in {"front.svg": {"text": INK, "line": "#666666"}, "front-dark.svg": _DARK}.items():
        figure = front_figure(results, **colours)
        with whole_file(folder / name) as partial, plt.rc_context({"svg.hashsalt": "front", "svg.fonttype": "path"}):
            figure.savefig(partial, format="svg", transparent=True, metadata={"Date": None, "Source": source})
        written.append(folder / name)
    return written


@styled
def front_figure(results: Path, text: str = INK, line: str = "#666666") -> Figure:
    """AUPRC with its interval, a row for each method; floors are hollow.

    Args:
        results: folder of the benchmark's tables.
        text, line: colours of letters and of lines.
    """
    scores = front_scores(results)
    summary = summary_table(scores, "auprc").sort_values("mean").reset_index(drop=True)
    chance = scores.drop_duplicates("subject").lesion_share.mean()
    figure, axes = plt.subplots(figsize=(6.4, 2.9), layout="constrained")
    for place, row in summary.iterrows():
        colour = line if row.method in FLOORS else method_colour(row.method)
        axes.hlines(place, row.low, row.high, color=colour, lw=3)
        axes.plot(row["mean"], place, "o", ms=8, color=colour, mfc="none" if row.method in FLOORS else colour, mew=2)
        axes.text(row.high + 0.015, place, f"{row['mean']:.2f}", va="center", color=text, fontsize=10)
    axes.axvline(chance, color=line, lw=1, ls=":")
    axes.text(chance + 0.006, len(summary) - 0.45, "chance", color=text, fontsize=9, va="center")
    axes.set_yticks(range(len(summary)), [_label(name) for name in summary.method], color=text, fontsize=10)
    axes.set(xlim=(0, 0.85), ylim=(-0.6, len(summary) - 0.1))
    axes.set_xlabel("AUPRC, 57 people, simulated tumours in real T1 scans", color=text, fontsize=10)
    axes.tick_params(colors=line, labelcolor=text)
    for spine in axes.spines.values():
        spine.set_edgecolor(line)
    return figure


def _label(name: str) -> str:
    return METHOD_NAMES[name] + (", no network" if name in FLOORS else "")
