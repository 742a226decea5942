"""What all runs found, side by side, real lesions first: the runs that are there decide which panels there are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pddm_utils.benchmark.leaderboard import OLDER, in_minutes, network_passes, older_methods, training_minutes
from pddm_utils.benchmark.tables import NO_VALUE, format_summary, markdown_table, summary_table, with_intensity
from pddm_utils.evaluation.statistics import MIN_SUBJECTS
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.methods.registry import FLOORS, METHOD_NAMES
from pddm_utils.publish.run_tables import Runs, read_runs


@dataclass(frozen=True)
class Panel:
    """One kind of lesions and the runs that answer for them.

    Attributes:
        dataset: name of the test scans.
        folders: runs on the same subjects, below the folder of results; the first is needed.
        lesions: what is looked for, in two or three words.
        scans: in which scans.
        simulated: whether the lesions are.
        smaller: the data set of the lesions that are too small for this one, where there is one.
        runs: what the files hold.
    """

    dataset: str
    folders: tuple[str, ...]
    lesions: str
    scans: str
    simulated: bool = False
    smaller: str = ""
    runs: Runs = field(repr=False, default=None)  # type: ignore[assignment]

    @property
    def scores(self) -> pd.DataFrame:
        """Rows of this data set."""
        return self.runs.scores[self.runs.scores.dataset == self.dataset]

    @property
    def people(self) -> int:
        """Number of test subjects."""
        return self.scores.subject.nunique()

    @property
    def title(self) -> str:
        """Which lesions in which scans."""
        return f"{self.lesions}, {self.scans}"

    @property
    def who(self) -> str:
        """How many people, or patients, were tested."""
        if not self.simulated:
            return f"{self.people} patients"
        return f"{self.people} {'simulated ' * self.dataset.startswith('simulated')}people"

    @property
    def few(self) -> bool:
        """Whether they are too few for an interval."""
        return self.people < MIN_SUBJECTS

    @property
    def chance(self) -> float:
        """AUPRC of a map that is random inside the brain: the mean share of the brain that is lesion."""
        return float(self.scores.groupby("subject").lesion_share.first().mean())

    @property
    def largest_share(self) -> float:
        """The largest lesions' share of the brain: chance for the first column of `by_patient`."""
        return float(self.scores.lesion_share.max())

    @functools.cached_property
    def summary(self) -> pd.DataFrame:
        """Mean AUPRC, interval and seeds of each method, see `summary_table`."""
        return summary_table(self.scores, "auprc")

    @property
    def by_patient(self) -> pd.DataFrame:
        """AUPRC by method (rows) and subject (columns), the subject with the largest lesions first."""
        rows = with_intensity(self.scores, "validation")
        rows = rows[rows.rule == DEFAULT_RULE]
        order = rows.groupby("subject").lesion_share.first().sort_values(ascending=False).index
        return rows.groupby(["method", "subject"]).auprc.mean().unstack()[order]


_CANDIDATES = (
    Panel("soop-flair", ("soop", "soop-anoddpm", "soop-methods"), "Real strokes", "FLAIR", smaller="soop-flair-small"),
    Panel("mslub-t2", ("simplex",), "Real MS lesions", "T2"),
    Panel("mslub-t1", ("ixi-place",), "Real MS lesions", "T1"),
    Panel("ixi-t1-tumour", ("ixi-place",), "Simulated tumours", "real T1", simulated=True),
    Panel("simulated-t2-tumour", ("simplex",), "Simulated tumours", "simulated T2", simulated=True),
)


def lesions_of(dataset: str) -> str:
    """What is looked for in a data set of the overview, for a title; the name of any other."""
    return {one.dataset: one.title for one in _CANDIDATES}.get(dataset, dataset)


def panels(results: Path) -> list[Panel]:
    """The panels whose runs are there, real lesions first.

    Args:
        results: folder of the benchmark's tables.
    """
    found = []
    for one in _CANDIDATES:
        there = [results / name for name in one.folders if (results / name / "scores.csv").is_file()]
        if not there or there[0].name != one.folders[0]:
            continue
        full = dataclasses.replace(one, runs=read_runs(*there))
        if len(full.scores):
            found.append(full)
    return found


def cost(run: Mapping[str, Any], method: str) -> tuple[str, str]:
    """CPU minutes of one training, and network passes a slice; a dash for what a run does not say.

    Args:
        run: the content of `run.json`.
        method: its name.
    """
    minutes = training_minutes(run, method)
    told = in_minutes(float(np.mean(minutes))) if minutes else NO_VALUE
    return told, str(network_passes(run["settings"], method))


def ordered_methods(found: list[Panel]) -> list[str]:
    """All methods, in the order of their mean on the first panel; then those that only later panels have."""
    names: dict[str, None] = {}
    for one in found:
        names |= dict.fromkeys(one.summary.sort_values("mean", ascending=False, kind="stable").method)
    return list(names)


def label(method: str, found: list[Panel]) -> str:
    """A method's name; marked where a run has an older definition of it."""
    older = any(method in older_methods(one.runs.run) for one in found)
    return METHOD_NAMES[method] + OLDER * older


def cost_of(method: str, found: list[Panel]) -> tuple[str, str]:
    """`cost` in the panels that have the method: the least and the most minutes, and the passes."""
    runs = [one.runs.run for one in found if method in set(one.summary.method)]
    minutes = sorted(float(np.mean(times)) for run in runs if (times := training_minutes(run, method)))
    ends = list(dict.fromkeys(map(in_minutes, (minutes[0], minutes[-1])))) if minutes else [NO_VALUE]
    return "–".join(ends), cost(runs[0], method)[1]


def overview_block(results: Path) -> str:
    """The chart in numbers: methods as rows, a column for each kind of lesions, cost."""
    found = panels(results)
    header = ["method"]
    for one in found:
        people = ", ".join(f"{name} first" for name in list(one.by_patient.columns)[:1]) if one.few else ""
        header.append(f"{one.lesions}, {one.scans} ({people or f'n = {one.people}'})")
    rows = [["chance", *(_chance_cell(one) for one in found), "", ""]]
    for name in ordered_methods(found):
        cells = [_cell(one, name) for one in found]
        rows.append([label(name, found) + ", no network" * (name in FLOORS), *cells, *cost_of(name, found)])
    note = (
        "AUPRC; in brackets the 95 % confidence interval of the mean over people; two patients: one number each."
        " CPU minutes: of one training."
    )
    table = markdown_table([*header, "CPU min of training", "network passes a slice"], rows)
    note += f" {OLDER}: by an older definition of the method." if OLDER in table else ""
    return f"{table}\n\n{note}"


def _chance_cell(one: Panel) -> str:
    if not one.few:
        return f"{one.chance:.3f}"
    share = one.scores.groupby("subject").lesion_share.first()
    return ", ".join(f"{share[name]:.3f}" for name in one.by_patient.columns)


def _cell(one: Panel, method: str) -> str:
    if method not in set(one.summary.method):
        return NO_VALUE
    if one.few:
        return ", ".join(f"{value:.3f}" for value in one.by_patient.loc[method])
    return format_summary(one.summary, one.dataset, method)
