"""What a run keeps beside its scores: precision-recall curves, and the times of reconstruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pddm_utils.benchmark.tables import with_intensity
from pddm_utils.evaluation.metrics import RECALL_GRID
from pddm_utils.evaluation.thresholds import DEFAULT_RULE

SIDE_COLUMNS = ["precisions", "seconds", "cpu_seconds"]  # of the benchmark's parts; not in `scores.csv`
_POINTS = [f"recall_{recall:.2f}" for recall in RECALL_GRID]


def curves_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Precision at fixed recalls of every lesioned test scan, seeds averaged: the content of `curves.csv`.

    Args:
        scores: rows with the column `precisions`, numbers at `RECALL_GRID` as text, empty for a scan without lesions.
            Only the noise level that validation chose is kept.

    Returns:
        Columns dataset, method, subject, and one for each recall, `recall_0.00` to `recall_1.00`.
    """
    keys = ["dataset", "method", "subject"]
    rows = _validated(scores)
    rows = rows[rows.precisions.notna() & (rows.precisions != "")]
    if rows.empty:
        return pd.DataFrame(columns=[*keys, *_POINTS])
    values = np.array([[float(number) for number in text.split()] for text in rows.precisions])
    table = pd.DataFrame(values, columns=_POINTS, index=rows.index).assign(**{key: rows[key] for key in keys})
    return table.groupby(keys, as_index=False)[_POINTS].mean()


def read_curves(folder: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """The curves a benchmark left in `folder`: `(subjects, points)` at `RECALL_GRID`, by data set and method.

    Runs made before curves were kept have none, and give an empty dictionary.
    """
    path = Path(folder) / "curves.csv"
    if not path.is_file():
        return {}
    curves: dict[str, dict[str, np.ndarray]] = {}
    for (dataset, method), rows in pd.read_csv(path).groupby(["dataset", "method"], sort=False):
        curves.setdefault(dataset, {})[method] = rows[_POINTS].to_numpy(float)
    return curves


def reconstruction_times(scores: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean wall and CPU seconds of rebuilding one test scan, by method, at the noise level that validation chose.

    Args:
        scores: rows with the columns `seconds` and `cpu_seconds`.

    Returns:
        For each method `seconds`, `cpu_seconds` and the number of `scans` they are means over (seeds counted).
    """
    rows = _validated(scores).dropna(subset=["seconds", "cpu_seconds"])
    return {
        method: {
            "seconds": round(float(part.seconds.mean()), 4),
            "cpu_seconds": round(float(part.cpu_seconds.mean()), 4),
            "scans": len(part),
        }
        for method, part in rows.groupby("method", sort=False)
    }


def _validated(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a scan, at the chosen noise level; parts of an earlier version have empty side columns."""
    rows = with_intensity(scores, "validation")
    rows = rows[rows.rule == DEFAULT_RULE]
    return rows.reindex(columns=rows.columns.union(SIDE_COLUMNS, sort=False))
