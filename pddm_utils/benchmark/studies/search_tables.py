"""Tables of the validation search: differences to the base line, the choice, and what test scans said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pddm_utils.benchmark.store import read_study
from pddm_utils.benchmark.studies.ideas import BASE_LINE, IDEAS, LATER_IDEAS
from pddm_utils.benchmark.studies.rebuild import INTENSITY
from pddm_utils.benchmark.tables import NO_VALUE, format_interval, markdown_table, short_name
from pddm_utils.evaluation.statistics import holm, paired_difference
from pddm_utils.methods.registry import METHOD_NAMES


def read_search(results: str | Path, name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table `ideas` or `test` and how it was made.

    Raises:
        InputError: it is not there.
    """
    return read_study(results, name, f"validation-search{' --test' if name == 'test' else ''}")


def table_digest(table: pd.DataFrame) -> str:
    """Twelve hexadecimal digits of a table's content; a picture carries those of what it shows."""
    return hashlib.sha256(table.to_csv(index=False, float_format="%.6g").encode()).hexdigest()[:12]


def idea_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Every idea minus the base line on the same scans, for each cohort and method.

    Kinds of lesions count the same; copies of one scan with either kind are one subject.

    Args:
        table: of `run_search`; as many subjects with each kind of lesion.

    Returns:
        Columns cohort, method, idea, value (mean AUPRC over kinds), mean (of the difference), low, high, p_value,
        subjects, p_holm (over all rows of a cohort, both methods); the base line has no difference.
    """
    records = []
    for (cohort, method), rows in table[table.method != INTENSITY].groupby(["cohort", "method"], sort=False):
        wide = rows.pivot(index=["dataset", "subject"], columns="idea", values="auprc")
        subjects = wide.index.get_level_values("subject").to_numpy()
        for idea in rows.idea.unique():
            record = {
                "cohort": cohort,
                "method": method,
                "idea": idea,
                "value": wide[idea].groupby("dataset").mean().mean(),
            }
            if idea != BASE_LINE:
                d = paired_difference(wide[idea], wide[BASE_LINE], subjects)
                record |= {"mean": d.mean, "low": d.low, "high": d.high, "p_value": d.p_value, "subjects": d.n}
            records.append(record)
    differences = pd.DataFrame(records)
    return differences.assign(p_holm=differences.groupby("cohort").p_value.transform(holm))


def in_order(names: Iterable[str]) -> list[str]:
    """Names of ideas, each once, in the order of `IDEAS` and `LATER_IDEAS`; others come last."""
    known = [idea.name for idea in (*IDEAS, *LATER_IDEAS)]
    return sorted(dict.fromkeys(names), key=lambda name: known.index(name) if name in known else len(known))


def chosen_ideas(table: pd.DataFrame) -> pd.DataFrame:
    """The idea of each cohort and method by the rule that was fixed before any score was seen.

    It is the one with the highest mean AUPRC over kinds of lesions; where the interval of its difference to the base
    line does not lie above zero, the base line stays.

    Returns:
        Columns cohort, method, idea, best (the idea with the highest mean, chosen or not) and its mean, low, high.
    """
    records = []
    table = table[~table.idea.isin([idea.name for idea in LATER_IDEAS])]
    for (cohort, method), rows in idea_differences(table).groupby(["cohort", "method"], sort=False):
        best = rows.loc[rows.value.idxmax()]
        records.append(
            {
                "cohort": cohort,
                "method": method,
                "idea": best.idea if best.low > 0 else BASE_LINE,
                "best": best.idea,
                "mean": best["mean"],
                "low": best.low,
                "high": best.high,
            }
        )
    return pd.DataFrame(records)


def ideas_markdown(table: pd.DataFrame, cohort: str) -> str:
    """All ideas of a cohort: mean AUPRC for each kind of lesion, and the difference to the base line; chosen in bold.

    Args:
        table: of `run_search`.
        cohort: its name.
    """
    table = table[table.cohort == cohort]
    differences, choice = idea_differences(table).set_index(["method", "idea"]), chosen_ideas(table)
    means = table.groupby(["method", "idea", "dataset"]).auprc.mean()
    datasets, methods = list(table.dataset.unique()), [name for name in METHOD_NAMES if name in set(choice.method)]
    chosen = dict(zip(choice.method, choice.idea, strict=True))
    kinds = [name.removeprefix(f"{cohort}-") for name in datasets]
    header = ["idea"]
    for method in methods:
        header += [f"{short_name(method)}, {kind}" for kind in kinds] + ["minus base line"]
    rows = []
    for idea in in_order(table[table.method != INTENSITY].idea):
        cells = [idea]
        for method in methods:
            if (method, idea) not in differences.index:
                cells += [NO_VALUE] * (len(datasets) + 1)
                continue
            values = [
                f"{means[method, idea, dataset]:.{_digits(means[method, idea, dataset])}f}" for dataset in datasets
            ]
            cells += [f"**{value}**" if chosen[method] == idea else value for value in values]
            row = differences.loc[(method, idea)]
            cells.append(NO_VALUE if idea == BASE_LINE else f"{format_interval(row)}, p = {row.p_holm:.4f}")
        rows.append(cells)
    floor = [f"{means[INTENSITY, INTENSITY, name]:.{_digits(means[INTENSITY, INTENSITY, name])}f}" for name in datasets]
    rows.append(["intensity threshold, no model", *([*floor, NO_VALUE] * len(methods))])
    return markdown_table(header, rows)


def chosen_idea_lines(table: pd.DataFrame, cohort: str) -> str:
    """What the rule chose for each method of a cohort, in words.

    Args:
        table: of `run_search`.
        cohort: its name.
    """
    choice = chosen_ideas(table)
    lines = []
    for row in choice[choice.cohort == cohort].itertuples():
        best = "" if row.best == row.idea else f" (the best mean has *{row.best}*, whose interval holds zero)"
        lines.append(f"{short_name(row.method)}: **{row.idea}**{best}")
    return f"Chosen by the rule: {'; '.join(lines)}."


def outcome_markdown(table: pd.DataFrame) -> str:
    """What the chosen ideas gave on test scans: means of data sets, single patients where there are few.

    Args:
        table: of `look_at_test`.
    """
    rows = []
    for dataset, part in table.groupby("dataset", sort=False):
        patients = part.subject.nunique() < 5
        for names, group in part.groupby(["subject"], sort=False) if patients else [(("",), part)]:
            what = names[0] or f"{dataset} (n = {group.subject.nunique()})"
            share = f"{100 * group.drop_duplicates('subject').lesion_share.mean():.2f} %"
            rows += [
                [what if not patients else f"{what} {dataset.rsplit('-', 1)[1].upper()}", share, *cells]
                for cells in _outcome_rows(group)
            ]
    return markdown_table(
        ["data set or patient", "lesion share of the brain", "method", "idea", "AUPRC", "minus base line"], rows
    )


def _outcome_rows(group: pd.DataFrame) -> list[list[str]]:
    wide = group.pivot(index="subject", columns=["method", "idea"], values="auprc")
    rows = []
    for method, idea in sorted(wide.columns, key=lambda key: (list(METHOD_NAMES).index(key[0]), key[1] != BASE_LINE)):
        value, difference = wide[method, idea].mean(), NO_VALUE
        if method != INTENSITY and idea != BASE_LINE:
            d = paired_difference(wide[method, idea], wide[method, BASE_LINE])
            difference = format_interval(d._asdict())
        rows.append(
            [METHOD_NAMES[method], NO_VALUE if method == INTENSITY else idea, f"{value:.{_digits(value)}f}", difference]
        )
    return rows


def _digits(value: float) -> int:
    return 4 if np.abs(value) < 0.005 else 3
