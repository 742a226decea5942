"""Tables from a benchmark's `scores.csv`: means, spread over seeds, intervals over subjects, paired differences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pddm_utils.catalogue import METHOD_NAMES
from pddm_utils.errors import InputError
from pddm_utils.evaluation.statistics import bootstrap_auroc, bootstrap_interval, holm, paired_difference, seed_mean
from pddm_utils.evaluation.thresholds import DEFAULT_RULE

_KEYS = ["dataset", "noise_level"]


def read_results(folder: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The scores and the provenance a benchmark left in `folder`.

    Raises:
        InputError: there are none.
    """
    folder = Path(folder)
    if not (folder / "scores.csv").is_file():
        raise InputError(f"{folder}/scores.csv does not exist; make it with: python -m pddm_utils benchmark")
    return (pd.read_csv(folder / "scores.csv", keep_default_na=True),
            json.loads((folder / "run.json").read_text(encoding="utf-8")))


def is_healthy(dataset: str) -> bool:
    """Whether a data set holds scans without lesions."""
    return dataset.endswith("-healthy")


def healthy_twin(dataset: str) -> str:
    """The healthy test scans that a lesioned data set is held against, such as `ixi-t1-healthy` for `ixi-t1-ms`."""
    return f"{dataset.rsplit('-', 1)[0]}-healthy"


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
        records.append({"dataset": dataset, "method": method, "timestep": int(rows.timestep.iloc[0]),
                        "mean": interval.mean, "low": interval.low, "high": interval.high,
                        "std_seeds": by_seed.std(ddof=1) if len(by_seed) > 1 else np.nan,
                        "subjects": interval.n, "seeds": len(by_seed)})
    return pd.DataFrame(records)


def paired_table(
    scores: pd.DataFrame, metric: str, better: str = "pddpm", baseline: str = "ddpm",
    noise_level: str = "validation", rule: str = DEFAULT_RULE,
) -> pd.DataFrame:
    """Differences `better - baseline` on the same subjects, with Holm's correction over the data sets.

    Returns:
        Columns dataset, mean, low, high, p_value, p_holm, subjects.
    """
    records = []
    chosen = with_intensity(scores, noise_level)
    for dataset, rows in chosen[chosen.rule == rule].groupby("dataset", sort=False):
        sides = [seed_mean(part[metric], part.subject) for part in
                 (rows[rows.method == better], rows[rows.method == baseline])]
        (subjects, a), (others, b) = sides
        if not len(a) or not len(b):
            continue
        if not np.array_equal(subjects, others):
            raise InputError(f"{dataset}: {better} and {baseline} were scored on different subjects; run both again")
        if np.isnan(a - b).all():
            continue
        d = paired_difference(a, b, subjects)
        records.append({"dataset": dataset, "mean": d.mean, "low": d.low, "high": d.high, "p_value": d.p_value,
                        "subjects": d.n})
    table = pd.DataFrame(records)
    return table.assign(p_holm=holm(table.p_value)) if len(table) else table


def scan_auroc_table(scores: pd.DataFrame, noise_level: str = "validation", rule: str = DEFAULT_RULE) -> pd.DataFrame:
    """Scan-level AUROC of the mean map over the brain, lesioned against healthy test scans of the same cohort.

    Returns:
        Columns dataset, method, auroc, low, high, subjects; data sets without healthy test scans are left out.
    """
    records = []
    chosen = with_intensity(scores, noise_level)
    chosen = chosen[chosen.rule == rule]
    chosen = chosen.groupby(["dataset", "method", "subject"], as_index=False).scan_score.mean()
    for (dataset, method), rows in chosen.groupby(["dataset", "method"], sort=False):
        healthy = chosen[(chosen.dataset == healthy_twin(dataset)) & (chosen.method == method)]
        if is_healthy(dataset) or healthy.empty:
            continue
        both = pd.concat([rows, healthy])
        interval = bootstrap_auroc(both.scan_score, both.dataset == dataset, both.subject)
        records.append({"dataset": dataset, "method": method, "auroc": interval.mean, "low": interval.low,
                        "high": interval.high, "subjects": interval.n})
    return pd.DataFrame(records)


def lesion_table(scores: pd.DataFrame, noise_level: str = "validation", rule: str = DEFAULT_RULE) -> pd.DataFrame:
    """Lesion-wise sensitivity (share of all lesions detected) and false components a scan, seeds averaged.

    Returns:
        Columns dataset, method, lesions (a seed), sensitivity, false_components.
    """
    chosen = with_intensity(scores, noise_level)
    chosen = chosen[chosen.rule == rule]
    records = []
    for (dataset, method), rows in chosen.groupby(["dataset", "method"], sort=False):
        lesions = rows.lesions.sum()
        records.append({"dataset": dataset, "method": method, "lesions": int(lesions / rows.seed.nunique()),
                        "sensitivity": rows.lesions_detected.sum() / lesions if lesions else np.nan,
                        "false_components": rows.false_components.mean()})
    return pd.DataFrame(records)


def format_interval(row: Mapping[str, Any], digits: int = 3) -> str:
    """`0.412 [0.350, 0.470]`, one digit more below 0.005; without an interval just the mean."""
    digits += abs(row["mean"]) < 0.005
    mean = f"{row['mean']:.{digits}f}"
    return mean if np.isnan(row["low"]) else f"{mean} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table of text cells."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines)


def headline_markdown(scores: pd.DataFrame, metric: str = "auprc", noise_level: str = "validation") -> str:
    """Data sets as rows, methods as columns, and paired differences with p-values, Holm-corrected over the table."""
    summary = summary_table(scores, metric, noise_level)
    paired = {baseline: paired_table(scores, metric, baseline=baseline, noise_level=noise_level)
              for baseline in ("ddpm", "intensity")}
    paired = pd.concat([table.assign(baseline=name) for name, table in paired.items()], ignore_index=True)
    paired = paired.assign(p_holm=holm(paired.p_value)) if len(paired) else paired
    methods = [name for name in METHOD_NAMES if name in set(summary.method)]
    rows = []
    for dataset in summary.dataset.unique():
        cells = []
        for method in methods:
            row = summary[(summary.dataset == dataset) & (summary.method == method)].iloc[0]
            spread = "" if np.isnan(row.std_seeds) else f" ± {row.std_seeds:.3f}"
            cells.append(format_interval(row) + spread)
        for baseline in ("ddpm", "intensity"):
            difference = paired[(paired.dataset == dataset) & (paired.baseline == baseline)] if len(paired) else paired
            cells.append(_format_difference(difference.iloc[0]) if len(difference) else "")
        count = int(summary[summary.dataset == dataset].subjects.max())
        rows.append([f"{dataset} (n = {count})", *cells])
    header = ["data set", *(METHOD_NAMES[m] for m in methods), "pDDPM − DDPM", "pDDPM − intensity"]
    return markdown_table(header, rows)


def _format_difference(row: Mapping[str, Any]) -> str:
    p = row["p_holm"]
    return format_interval(row) + ("" if np.isnan(p) else f", p = {p:.4f}")


def subject_markdown(scores: pd.DataFrame, dataset: str, noise_level: str = "validation") -> str:
    """AUPRC of each subject of a small data set beside the lesions' share of the brain."""
    rows = with_intensity(scores, noise_level)
    rows = rows[(rows.dataset == dataset) & (rows.rule == DEFAULT_RULE)]
    methods = [name for name in METHOD_NAMES if name in set(rows.method)]
    table = rows.groupby(["subject", "method"]).auprc.mean().unstack()
    share = rows.groupby("subject").lesion_share.first()
    body = [[subject, f"{100 * share[subject]:.2f} %", *(f"{table.loc[subject, m]:.3f}" for m in methods)]
            for subject in table.index]
    return markdown_table(["patient", "lesions' share of brain", *(METHOD_NAMES[m] for m in methods)], body)
