"""The chart of all results: a column for each kind of lesions, or, for a phone, one below the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pddm_utils.benchmark.studies.search_tables import table_digest
from pddm_utils.core.files import whole_file
from pddm_utils.methods.registry import FLOORS
from pddm_utils.publish.overview import Panel, cost_of, label, ordered_methods, panels
from pddm_utils.show.style import INK, styled

_THEMES = {
    "": {"text": INK, "line": "#667085", "colour": "#0072B2", "shade": "#00000010"},
    "-dark": {"text": "#e6e6e6", "line": "#9aa0a6", "colour": "#56B4E9", "shade": "#ffffff14"},
}


def overview_digest(results: Path) -> str:
    """Names the scores that the chart shows, see `table_digest`."""
    tables = [one.summary.assign(chance=one.chance) for one in panels(results)]
    patients = [one.by_patient.reset_index() for one in panels(results) if one.few]
    return table_digest(pd.concat([*tables, *patients], ignore_index=True))


def save_overview(results: Path, folder: Path) -> list[Path]:
    """Draw the chart for light and dark pages, wide and narrow; each file names the scores it was drawn from.

    Args:
        results: folder of the benchmark's tables.
        folder: receives `overview.svg`, `overview-dark.svg`, `overview-narrow.svg`, `overview-narrow-dark.svg`.

    Returns:
        The files.
    """
    written, found, source = [], panels(results), overview_digest(results)
    for shape in ("", "-narrow"):
        for theme, colours in _THEMES.items():
            path = folder / f"overview{shape}{theme}.svg"
            figure = overview_figure(found, narrow=bool(shape), **colours)
            with whole_file(path) as partial, plt.rc_context({"svg.hashsalt": "overview", "svg.fonttype": "path"}):
                figure.savefig(partial, format="svg", facecolor="none", metadata={"Date": None, "Source": source})
            written.append(path)
    return written


@styled
def overview_figure(found: list[Panel], narrow: bool, text: str, line: str, colour: str, shade: str) -> Figure:
    """AUPRC with its interval, a row for each method; a hollow square needs no network, a diamond is one training.

    Args:
        found: what `panels` gives.
        narrow: one panel below the other, each with its own methods, instead of side by side.
        text, line, colour, shade: of letters, axes, marks and of the ground of a panel with simulated lesions.
    """
    rows = [_own_rows(one) if narrow else ordered_methods(found) for one in found]
    if narrow:
        tall = [len(names) + 3.6 for names in rows]
        height = 0.185 * (sum(tall) + 2)
        margins = {"left": 0.455, "right": 0.72, "top": 1 - 0.42 / height, "bottom": 0.95 / height}
        grid = {
            **margins,
            "height_ratios": [len(names) for names in rows],
            "hspace": 3.6 * len(rows) / sum(map(len, rows)),
        }
        figure, panes = plt.subplots(len(found), 1, figsize=(4.3, height), gridspec_kw=grid, squeeze=False)
    else:
        size = (8.6, 0.24 * len(rows[0]) + 1.3)
        figure, panes = plt.subplots(1, len(found), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axes, one, names in zip(panes.flat, found, rows, strict=True):
        _draw_panel(axes, one, names, colour, line)
        _dress(axes, one, len(names), text, line, shade)
        if narrow or axes is panes.flat[0]:
            axes.set_yticks(range(len(names)), [label(name, found) for name in names], fontsize=9, color=text)
        if not narrow or axes is panes.flat[-1]:
            axes.set_xlabel("AUPRC", fontsize=9, color=text)
        if narrow or axes is panes.flat[-1]:
            _write_costs(axes, names, found, text)
    key: dict[str, Any] = {"handles": _key(colour, line), "fontsize": 9, "labelcolor": text}
    figure.legend(loc="lower center" if narrow else "outside lower center", ncols=2 if narrow else 4, **key)
    return figure


def _key(colour: str, line: str) -> list[Line2D]:
    marks = (("o", colour, "several trainings"), ("D", colour, "one training"), ("s", "none", "no network"))
    handles = [
        Line2D([], [], color=colour, marker=marker, mfc=fill, mew=1.6, ls="none", ms=6, label=words)
        for marker, fill, words in marks
    ]
    return [*handles, Line2D([], [], color=line, lw=1.2, ls=":", label="chance")]


def _own_rows(one: Panel) -> list[str]:
    return list(one.summary.sort_values("mean", ascending=False, kind="stable").method)


def _draw_panel(axes: Axes, one: Panel, names: list[str], colour: str, line: str) -> None:
    """Marks and intervals; of few patients a mark each, the one with the smallest lesions small."""
    summary, patients = one.summary.set_index("method"), one.by_patient
    for place, name in enumerate(names):
        axes.axhline(place, color=line, lw=0.4, alpha=0.35, zorder=0)
        if name not in summary.index:
            continue
        row, floor = summary.loc[name], name in FLOORS
        marker = "s" if floor else "o" if row.seeds > 1 else "D"
        look: dict[str, Any] = {"color": colour, "mfc": "none" if floor else colour, "mew": 1.6, "ls": "none"}
        if one.few:
            for value, size in zip(patients.loc[name], (6, 3.5), strict=False):
                axes.plot(value, place, marker, ms=size, **look)
            continue
        axes.hlines(place, row.low, row.high, color=colour, lw=2)
        axes.plot(row["mean"], place, marker, ms=6, **look)
    axes.axvline(one.largest_share if one.few else one.chance, color=line, lw=1.2, ls=":")


def _dress(axes: Axes, one: Panel, rows: int, text: str, line: str, shade: str) -> None:
    axes.set_title(f"{one.lesions}\n{one.scans}, n = {one.people}", fontsize=8.5, color=text, loc="left")
    highest = one.by_patient.max().max() if one.few else one.summary.high.max()
    axes.set_xlim(-0.03 * highest, 1.08 * highest)
    axes.set_ylim(rows - 0.4, -0.7)
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(colors=line, labelcolor=text, labelsize=9, length=2)
    axes.tick_params(axis="y", length=0)
    axes.set_facecolor(shade if one.simulated else "none")
    for spine in axes.spines.values():
        spine.set_edgecolor(line)
    axes.spines["left"].set_visible(False)


def _write_costs(axes: Axes, names: list[str], found: list[Panel], text: str) -> None:
    """Two columns of numbers beside the rows."""
    where = axes.get_yaxis_transform()
    for x, place, head in ((1.36, 0, "CPU\nmin"), (1.68, 1, "pass-\nes")):
        axes.text(x, -0.75, head, transform=where, fontsize=8, color=text, ha="center", va="bottom", clip_on=False)
        for row, name in enumerate(names):
            value = cost_of(name, found)[place]
            axes.text(x, row, value, transform=where, fontsize=9, color=text, ha="center", va="center", clip_on=False)
