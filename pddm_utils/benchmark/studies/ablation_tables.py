"""Tables of the ablations: means over subjects, differences to a reference, and what existing results can tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pddm_utils.benchmark.store import read_study
from pddm_utils.benchmark.tables import NO_VALUE, format_interval, markdown_table, summary_table
from pddm_utils.core.errors import InputError
from pddm_utils.evaluation.statistics import MIN_SUBJECTS, bootstrap_interval, clear_sign, holm, paired_difference
from pddm_utils.evaluation.thresholds import RULES
from pddm_utils.show.figures import method_label


def read_ablation(results: str | Path, question: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of a question and how it was made.

    Args:
        results: folder that `run_ablations` wrote.
        question: its name, such as `noise_level`.

    Raises:
        InputError: it is not there.
    """
    return read_study(results, question, "ablations")


def mean_table(table: pd.DataFrame, by: Sequence[str], metric: str = "auprc") -> pd.DataFrame:
    """Mean of a metric over subjects, with its bootstrap interval.

    Args:
        table: of a question; rows of equal `by` are different subjects.
        by: columns that tell variants apart.
        metric: a column; NaN is left out.

    Returns:
        Columns `by`, `mean`, `low`, `high`, `subjects`, in the order of the table; no interval below 5 subjects.

    Raises:
        InputError: a subject twice in one variant.
    """
    records = []
    for key, rows in table.groupby(list(by), sort=False, dropna=False):
        if rows.subject.duplicated().any():
            raise InputError(f"columns {', '.join(by)}: a subject has several rows of {key}; name more columns")
        interval = bootstrap_interval(rows[metric], rows.subject)
        records.append(
            {
                **dict(zip(by, key, strict=True)),
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "subjects": interval.n,
            }
        )
    return pd.DataFrame(records)


def against_reference(table: pd.DataFrame, variant: str, reference: Any) -> pd.DataFrame:
    """AUPRC of every variant minus the reference's on the same subjects, for each data set and method; with Holm's p.

    Args:
        table: of a question.
        variant: the column that tells variants apart within a data set and method.
        reference: its value for the reference.

    Returns:
        Columns `dataset`, `method`, `variant`'s own, `mean`, `low`, `high`, `p_value`, `p_holm` (over the table) and
        `subjects`.

    Raises:
        InputError: a data set and method without the reference.
    """
    records = []
    for (dataset, method), rows in table.groupby(["dataset", "method"], sort=False):
        wide = rows.pivot(index="subject", columns=variant, values="auprc")
        if reference not in wide:
            raise InputError(f"{dataset}, {method}: no {variant} {reference!r}; choose one of {list(wide.columns)}")
        for value in rows[variant].unique():
            if value != reference:
                d = paired_difference(wide[value], wide[reference])
                records.append(
                    {
                        "dataset": dataset,
                        "method": method,
                        variant: value,
                        "mean": d.mean,
                        "low": d.low,
                        "high": d.high,
                        "p_value": d.p_value,
                        "subjects": d.n,
                    }
                )
    differences = pd.DataFrame(records)
    return differences.assign(p_holm=holm(differences.p_value)) if len(differences) else differences


def made_of(made: dict[str, Any]) -> str:
    """What a question's table was made of, in words.

    Args:
        made: as `read_ablation` gives it.
    """
    used = made["settings"]
    return (
        f"{used['subjects']} simulated test subject(s) of each kind, one slice in {used['slice_step']}, "
        f"one training seed, commit {made['git_commit'][:7] or 'unknown'}"
    )


def difference_lines(table: pd.DataFrame, variant: str, reference: Any) -> str:
    """`against_reference` in words: a line for each variant, its interval and whether it is clear (`clear_sign`)."""
    lines = [f"AUPRC minus that of '{reference}':"]
    for row in against_reference(table, variant, reference).itertuples():
        words = f"{method_label(row.method)}, {getattr(row, variant)}: {row.mean:+.3f}"
        if np.isnan(row.low):
            lines.append(f"{words}, too few subjects for an interval")
            continue
        sign = clear_sign(row.mean, row.low, row.high, row.p_holm)
        verdict = {1: "better", -1: "worse", 0: "no clear difference"}[sign]
        lines.append(f"{words} [{row.low:+.3f}, {row.high:+.3f}], {verdict}")
    return "\n".join(lines)


def paired_line(table: pd.DataFrame, first: str, second: str) -> str:
    """Mean AUPRC of two methods and their difference on the same subjects, in words.

    Args:
        table: one row a subject and method.
        first, second: of the column `method`.
    """
    wide = table.pivot(index="subject", columns="method", values="auprc")
    d = paired_difference(wide[first], wide[second])
    means = ", ".join(f"{method_label(name)} {wide[name].mean():.3f}" for name in (first, second))
    return f"{means}; difference {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p = {d.p_value:.2g}"


def threshold_rules(scores: pd.DataFrame) -> pd.DataFrame:
    """How much of a Dice value is the rule behind its threshold?

    Args:
        scores: of a benchmark with lesioned data sets.

    Returns:
        Columns of `summary_table` for `dice`, and `rule`, and `of_oracle`, the mean as a share of the oracle's.
    """
    tables = [summary_table(scores, "dice", rule=rule).assign(rule=rule) for rule in RULES if rule in set(scores.rule)]
    table = pd.concat(tables, ignore_index=True)
    oracle = table[table.rule == "oracle"].set_index(["dataset", "method"])["mean"]
    keys = pd.MultiIndex.from_frame(table[["dataset", "method"]])
    return table.assign(of_oracle=table["mean"].to_numpy() / oracle.reindex(keys).to_numpy())


def training_budget(scores: pd.DataFrame, run: dict[str, Any]) -> pd.DataFrame:
    """AUPRC of every trained model of a benchmark beside what its training took.

    Models of different length are also of different seeds, so a difference may be either's.

    Args:
        scores, run: what `read_results` returns.

    Returns:
        Columns `dataset`, `method`, `seed`, `steps`, `cpu_minutes`, `validation_loss`, `mean`, `low`, `high` and
        `subjects`.
    """
    used = scores[(scores.noise_level == "validation") & (scores.rule == RULES[0])]
    records = []
    for (dataset, method, seed), rows in used.groupby(["dataset", "method", "seed"], sort=False):
        model = run["models"].get(f"{method}-seed{seed}")
        interval = bootstrap_interval(rows.auprc, rows.subject)
        if model and not np.isnan(interval.mean):
            records.append(
                {
                    "dataset": dataset,
                    "method": method,
                    "seed": seed,
                    "steps": model["steps"],
                    "cpu_minutes": model["cpu_seconds"] / 60,
                    "validation_loss": model["validation_loss"],
                    "mean": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "subjects": interval.n,
                }
            )
    return pd.DataFrame(records).sort_values(["dataset", "method", "cpu_minutes"], ignore_index=True)


def trained_markdown(table: pd.DataFrame) -> str:
    """AUPRC of every training, a row each, and its difference to the first one on the largest data set.

    Args:
        table: of a question with trainings of its own; data sets of fewer than five subjects give a column a patient.

    Returns:
        A Markdown table; noise levels as validation chose them.
    """
    table = table[table.noise_level == "validation"]
    columns, largest = {}, table.groupby("dataset").subject.nunique().idxmax()
    for dataset, part in table.groupby("dataset", sort=False):
        subjects = list(part.subject.unique())
        if len(subjects) >= MIN_SUBJECTS:
            columns[f"{dataset} (n = {len(subjects)})"] = part.groupby("variant").auprc.mean()
            continue
        for subject in subjects:
            values = part[part.subject == subject].set_index("variant").auprc
            columns[f"{subject} {dataset.rsplit('-', 1)[1].upper()}"] = values
    wide = table[table.dataset == largest].pivot(index="subject", columns="variant", values="auprc")
    reference, *_ = variants = list(table.variant.unique())
    rows = []
    for variant in variants:
        cells = [format_interval({"mean": values[variant], "low": np.nan}) for values in columns.values()]
        difference = paired_difference(wide[variant], wide[reference])
        rows.append([variant, *cells, NO_VALUE if variant == reference else format_interval(difference._asdict())])
    return markdown_table(["training", *columns, f"minus {reference}, {largest}"], rows)
