"""Tables from a benchmark's `scores.csv`: means, spread over seeds, intervals over subjects, paired differences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import LESION_KINDS
from pddm_utils.evaluation.statistics import (
    EXACT_SUBJECTS,
    SIGN_PATTERNS,
    bootstrap_auroc,
    bootstrap_interval,
    holm,
    paired_difference,
    seed_mean,
)
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.methods.registry import FLOORS, METHOD_NAMES

NO_VALUE = "–"
PATCHED, WHOLE = "pddpm", "ddpm"  # the two methods that differ in patching alone
FAMILY = "family"  # noise level of healthy scans: one that was chosen for a family of lesions
_SMALLEST_P = 0.0001  # that is told from 0 in print


def read_results(folder: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The scores and the provenance a benchmark left in `folder`.

    Raises:
        InputError: there are none.
    """
    folder = Path(folder)
    if not (folder / "scores.csv").is_file():
        raise InputError(f"{folder}/scores.csv does not exist; make it with: python -m pddm_utils benchmark")
    return (
        pd.read_csv(folder / "scores.csv", keep_default_na=True),
        json.loads((folder / "run.json").read_text(encoding="utf-8")),
    )


def is_healthy(dataset: str) -> bool:
    """Whether a data set holds scans without lesions."""
    return dataset.endswith(("-healthy", "-free"))


def healthy_twin(dataset: str) -> str:
    """The lesion-free test scans that a data set is held against, such as `ixi-t1-healthy` for `ixi-t1-real-ms`."""
    if dataset.startswith("soop-"):
        return f"{dataset.removesuffix('-small')}-free"
    kind = max((kind for kind in LESION_KINDS if dataset.endswith(f"-{kind}")), key=len, default="")
    return f"{dataset.removesuffix(f'-{kind}') if kind else dataset.rsplit('-', 1)[0]}-healthy"


def with_intensity(scores: pd.DataFrame, noise_level: str) -> pd.DataFrame:
    """Rows of one noise level, and those of methods that have none."""
    return scores[scores.noise_level.isin([noise_level, "none"])]


def summary_table(
    scores: pd.DataFrame, metric: str, noise_level: str = "validation", rule: str = DEFAULT_RULE
) -> pd.DataFrame:
    """Mean of one metric for each data set and method.

    Seeds are averaged within a subject, then subjects are resampled (10,000 draws, 95 %).

    Args:
        scores: as written by the benchmark.
        metric: a column, such as `auprc`, `dice` or `false_positive_ml`.
        noise_level: `validation` or `authors`.
        rule: threshold rule; matters for metrics that depend on it.

    Returns:
        Columns dataset, method, timestep, mean, low, high, std_seeds (NaN with one seed), subjects, seeds.
    """
    records = []
    chosen = with_intensity(scores, noise_level)
    for (dataset, method), rows in chosen[chosen.rule == rule].groupby(["dataset", "method"], sort=False):
        subjects, means = seed_mean(rows[metric], rows.subject)
        if np.isnan(means).all():
            continue
        interval = bootstrap_interval(means, subjects)
        by_seed = rows.groupby("seed")[metric].mean()
        records.append(
            {
                "dataset": dataset,
                "method": method,
                "timestep": int(rows.timestep.iloc[0]),
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "std_seeds": by_seed.std(ddof=1) if len(by_seed) > 1 else np.nan,
                "subjects": interval.n,
                "seeds": len(by_seed),
            }
        )
    return pd.DataFrame(records)


def comparison_table(
    scores: pd.DataFrame,
    comparisons: Iterable[tuple[str, str, str, str]],
    noise_level: str = "validation",
) -> pd.DataFrame:
    """Paired differences on the same subjects, with Holm's correction over all of them (a pair both ways is one).

    Args:
        scores: as written by the benchmark.
        comparisons: `(dataset, metric, better, baseline)`; what was not scored, or has no value, is left out.
        noise_level: `validation` or `authors`.

    Returns:
        Columns dataset, metric, better, baseline, mean (of `better - baseline`), low, high, p_value, subjects, p_holm.

    Raises:
        InputError: two methods were scored on different subjects.
    """
    chosen = with_intensity(scores, noise_level)
    chosen = dict(list(chosen[chosen.rule == DEFAULT_RULE].groupby(["dataset", "method"])))
    records = []
    for dataset, metric, better, baseline in comparisons:
        if (dataset, better) not in chosen or (dataset, baseline) not in chosen:
            continue
        (subjects, a), (others, b) = (
            seed_mean(chosen[dataset, name][metric], chosen[dataset, name].subject) for name in (better, baseline)
        )
        if not np.array_equal(subjects, others):
            raise InputError(f"{dataset}: {better} and {baseline} were scored on different subjects; run both again")
        if np.isnan(a - b).all():
            continue
        d = paired_difference(a, b, subjects)
        records.append(
            {
                "dataset": dataset,
                "metric": metric,
                "better": better,
                "baseline": baseline,
                "mean": d.mean,
                "low": d.low,
                "high": d.high,
                "p_value": d.p_value,
                "subjects": d.n,
            }
        )
    columns = ["dataset", "metric", "better", "baseline", "mean", "low", "high", "p_value", "subjects"]
    table = pd.DataFrame(records, columns=columns)
    pairs = [(row.dataset, row.metric, *sorted((row.better, row.baseline))) for row in table.itertuples()]
    once = ~pd.Series(pairs, dtype=object).duplicated().to_numpy()
    corrected = dict(
        zip([pair for pair, first in zip(pairs, once, strict=True) if first], holm(table.p_value[once]), strict=True)
    )
    return table.assign(p_holm=[corrected[pair] for pair in pairs])


def paired_table(scores: pd.DataFrame, metric: str, noise_level: str = "validation") -> pd.DataFrame:
    """`comparison_table` of pDDPM and DDPM on every data set, Holm's correction over the data sets."""
    comparisons = [(dataset, metric, PATCHED, WHOLE) for dataset in scores.dataset.unique()]
    return comparison_table(scores, comparisons, noise_level)


def scan_auroc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Scan-level AUROC of the mean map over the brain, lesioned against healthy test scans of the same cohort.

    Returns:
        Columns dataset, method, auroc, low, high, subjects; data sets without healthy test scans are left out.
    """
    records = []
    chosen = scores[scores.noise_level.isin(["validation", FAMILY, "none"]) & (scores.rule == DEFAULT_RULE)]
    chosen = chosen.groupby(["dataset", "method", "timestep", "subject"], as_index=False).scan_score.mean()
    for (dataset, method, level), rows in chosen.groupby(["dataset", "method", "timestep"], sort=False):
        same = (chosen.method == method) & (chosen.timestep == level)
        healthy = chosen[(chosen.dataset == healthy_twin(dataset)) & same]
        if is_healthy(dataset) or healthy.empty:
            continue
        both = pd.concat([rows, healthy])
        interval = bootstrap_auroc(both.scan_score, both.dataset == dataset, both.subject)
        records.append(
            {
                "dataset": dataset,
                "method": method,
                "auroc": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "subjects": interval.n,
            }
        )
    return pd.DataFrame(records)


def lesion_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Lesion-wise sensitivity (share of all lesions detected) and false components a scan, seeds averaged.

    Returns:
        Columns dataset, method, lesions (a seed), sensitivity, false_components.
    """
    chosen = with_intensity(scores, "validation")
    chosen = chosen[chosen.rule == DEFAULT_RULE]
    records = []
    for (dataset, method), rows in chosen.groupby(["dataset", "method"], sort=False):
        lesions = rows.lesions.sum()
        records.append(
            {
                "dataset": dataset,
                "method": method,
                "lesions": int(lesions / rows.seed.nunique()),
                "sensitivity": rows.lesions_detected.sum() / lesions if lesions else np.nan,
                "false_components": rows.false_components.mean(),
            }
        )
    return pd.DataFrame(records)


def format_interval(row: Mapping[str, Any], digits: int = 3) -> str:
    """`0.412 [0.350, 0.470]`, one digit more below 0.005; without an interval just the mean."""
    digits += abs(row["mean"]) < 0.005
    mean = f"{row['mean']:.{digits}f}"
    return mean if np.isnan(row["low"]) else f"{mean} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def mean_cell(values: ArrayLike, subjects: ArrayLike | None = None) -> str:
    """Mean with its bootstrap interval over subjects; a dash where there are no values."""
    interval = bootstrap_interval(values, subjects)
    return NO_VALUE if np.isnan(interval.mean) else format_interval(interval._asdict())


def format_summary(summary: pd.DataFrame, dataset: str, method: str, digits: int = 3) -> str:
    """A cell from `summary_table`: `format_interval`, and `± 0.012` where there are several seeds; a dash for none."""
    picked = summary[(summary.dataset == dataset) & (summary.method == method)] if len(summary) else summary
    if picked.empty:
        return NO_VALUE
    row = picked.iloc[0]
    decimals = digits + (abs(row["mean"]) < 0.005)
    return format_interval(row, digits) + ("" if np.isnan(row.std_seeds) else f" ± {row.std_seeds:.{decimals}f}")


def format_difference(differences: pd.DataFrame, dataset: str, better: str, baseline: str, digits: int = 3) -> str:
    """A cell from `comparison_table`: `format_interval` and the corrected p-value; a dash where there is none."""
    picked = differences[
        (differences.dataset == dataset) & (differences.better == better) & (differences.baseline == baseline)
    ]
    if picked.empty:
        return NO_VALUE
    row = picked.iloc[0]
    return format_interval(row, digits) + ("" if np.isnan(row.p_holm) else f", p {_p_value(row)}")


def _p_value(row: pd.Series) -> str:
    """The corrected p-value; an upper bound where no drawn pattern of signs was as extreme as the data."""
    if row.p_holm < _SMALLEST_P:
        return f"< {_SMALLEST_P}"
    drawn = row.subjects > EXACT_SUBJECTS
    return f"{'≤' if drawn and row.p_value < 1 / SIGN_PATTERNS else '='} {row.p_holm:.4f}"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table of text cells."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines)


def compared_cells(
    scores: pd.DataFrame,
    datasets: Sequence[str],
    metric: str = "auprc",
    noise_level: str = "validation",
    floors: Mapping[str, str] | None = None,
) -> tuple[list[str], dict[str, list[str]]]:
    """For each data set the mean, the difference to DDPM and that to the best floor, on the same subjects.

    The p-values of the differences are Holm-corrected over the table.

    Args:
        scores: as written by the benchmark.
        datasets: in the order of the columns.
        metric: a column.
        noise_level: `validation` or `authors`.
        floors: the best floor of each data set, see `best_floors`.

    Returns:
        Headers, and for each method its cells.
    """
    summary = summary_table(scores[scores.dataset.isin(datasets)], metric, noise_level)
    methods = [name for name in METHOD_NAMES if name in set(summary.method)]
    others = {
        dataset: [name for name in dict.fromkeys((WHOLE, (floors or {}).get(dataset))) if name in methods]
        for dataset in datasets
    }
    pairs = [
        (dataset, metric, name, other)
        for dataset in datasets
        for other in others[dataset]
        for name in methods
        if name != other
    ]
    differences = comparison_table(scores, pairs, noise_level)
    header: list[str] = []
    cells: dict[str, list[str]] = {name: [] for name in methods}
    for dataset in datasets:
        header.append(f"{dataset} (n = {int(summary[summary.dataset == dataset].subjects.max())})")
        header += [f"minus {'best floor, ' if other in FLOORS else ''}{short_name(other)}" for other in others[dataset]]
        for name in methods:
            cells[name].append(format_summary(summary, dataset, name))
            cells[name] += [format_difference(differences, dataset, name, other) for other in others[dataset]]
    return header, cells


def short_name(method: str) -> str:
    """A method's name up to the comma."""
    return METHOD_NAMES[method].split(",")[0]


def headline_markdown(
    scores: pd.DataFrame,
    metric: str = "auprc",
    noise_level: str = "validation",
    floors: Mapping[str, str] | None = None,
) -> str:
    """Methods as rows; for each data set what `compared_cells` gives."""
    datasets = list(summary_table(scores, metric, noise_level).dataset.unique())
    header, cells = compared_cells(scores, datasets, metric, noise_level, floors)
    return markdown_table(["method", *header], [[METHOD_NAMES[name], *row] for name, row in cells.items()])


def subject_markdown(scores: pd.DataFrame, dataset: str) -> str:
    """AUPRC of each subject of a small data set, below the lesions' share of the brain."""
    rows = with_intensity(scores, "validation")
    rows = rows[(rows.dataset == dataset) & (rows.rule == DEFAULT_RULE)]
    methods = [name for name in METHOD_NAMES if name in set(rows.method)]
    table = rows.groupby(["subject", "method"]).auprc.mean().unstack()
    share = rows.groupby("subject").lesion_share.first()
    body = [["lesions' share of brain", *(f"{100 * share[subject]:.2f} %" for subject in table.index)]]
    body += [[METHOD_NAMES[name], *(f"{value:.3f}" for value in table[name])] for name in methods]
    return markdown_table(["method", *table.index], body)
