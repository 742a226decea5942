"""What the comparison of lesion families says: ranks of the methods, and how far the families agree on them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from pddm_utils.benchmark.store import read_study
from pddm_utils.benchmark.studies.families import TABLE
from pddm_utils.benchmark.tables import markdown_table, mean_cell
from pddm_utils.core.settings import LESION_KINDS
from pddm_utils.evaluation.statistics import DRAWS, SEED
from pddm_utils.methods.registry import METHOD_NAMES

FAMILY_NAMES = {
    "tumour": "smooth tumour",
    "ms": "smooth MS",
    "real-shape": "real stroke shape",
    "real-ms": "real MS shape",
    "foreign-patch": "foreign patch",
    "mass-effect": "mass effect alone",
}


def read_families(results: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The scores, with a column `family`, and how they were made (`InputError` where there are none)."""
    table, made = read_study(Path(results), TABLE, "families --profile families")
    return table.assign(family=table.dataset.map(family_of)), made


def family_of(dataset: str) -> str:
    """The kind of lesion at the end of a data set's name, such as `real-ms` of `ixi-t1-real-ms`."""
    return max((kind for kind in LESION_KINDS if dataset.endswith(f"-{kind}")), key=len)


def family_means(table: pd.DataFrame, score: str = "auprc") -> pd.DataFrame:
    """Mean over subjects: methods as rows, families as columns, in the order of `LESION_KINDS`."""
    means = table.pivot_table(index="method", columns="family", values=score, aggfunc="mean", sort=False)
    return means[[kind for kind in LESION_KINDS if kind in means.columns]]


def taus(means: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau-b between the methods' means on each pair of families; a square table."""
    square = pd.DataFrame(np.eye(len(means.columns)), means.columns, means.columns)
    for one, other in combinations(means.columns, 2):
        square.loc[one, other] = square.loc[other, one] = kendalltau(means[one], means[other]).statistic
    return square


def tau_interval(table: pd.DataFrame, one: str, other: str) -> tuple[float, float]:
    """95 % percentile interval of Kendall's tau between two families, over resampled subjects.

    Both families were inserted into the same people, who are drawn together.
    """
    wide = [
        table[table.family == family].pivot(index="subject", columns="method", values="auprc")
        for family in (one, other)
    ]
    people = wide[0].index.intersection(wide[1].index)
    first, second = (part.loc[people, wide[0].columns].to_numpy() for part in wide)
    drawn = np.random.default_rng(SEED).integers(len(people), size=(DRAWS, len(people)))
    a, b = (np.nanmean(values[drawn], axis=1) for values in (first, second))
    pairs = np.triu_indices(a.shape[1], 1)
    signs = [np.sign(values[:, pairs[0]] - values[:, pairs[1]]) for values in (a, b)]
    low, high = np.quantile((signs[0] * signs[1]).mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def scores_markdown(table: pd.DataFrame) -> str:
    """AUPRC of each method on each family with its rank in brackets behind; the best on smooth tumours first."""
    means = family_means(table).sort_values("tumour", ascending=False)
    ranks = means.rank(ascending=False, method="min").astype(int)
    rows = [
        [METHOD_NAMES[name], *(_cell(table, name, family, ranks.loc[name, family]) for family in means.columns)]
        for name in means.index
    ]
    return markdown_table(["method", *(FAMILY_NAMES[family] for family in means.columns)], rows)


def _cell(table: pd.DataFrame, method: str, family: str, rank: int) -> str:
    rows = table[(table.method == method) & (table.family == family)]
    return f"{mean_cell(rows.auprc, rows.subject)} ({rank})"


def taus_markdown(table: pd.DataFrame) -> str:
    """Kendall's tau of each family with the smooth tumours, and its interval."""
    square = taus(family_means(table))
    rows = []
    for family in square.columns.drop("tumour"):
        low, high = tau_interval(table, "tumour", family)
        rows.append([FAMILY_NAMES[family], f"{square.loc['tumour', family]:.2f} [{low:.2f}, {high:.2f}]"])
    return markdown_table(["family", "Kendall's tau with the smooth tumours"], rows)


def restoration_markdown(table: pd.DataFrame) -> str:
    """Mean error inside the lesion against the healthy twin, of what each method rebuilds; the lesion itself last."""
    means = family_means(table, "restoration_l1")
    order = family_means(table).sort_values("tumour", ascending=False).index
    means = means.loc[order.drop("intensity", errors="ignore")]  # it rebuilds nothing
    rows = [[METHOD_NAMES[name], *(f"{value:.3f}" for value in means.loc[name])] for name in means.index]
    rows.append(["the lesion as it is", *(f"{value:.3f}" for value in family_means(table, "lesion_l1").iloc[0])])
    return markdown_table(["method", *(FAMILY_NAMES[family] for family in means.columns)], rows)
