"""What became of every scan of a preprocessing run, and which of them should be looked at."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pddm_utils.core.files import whole_file
from pddm_utils.data.preprocess.checks import COMPARED, outliers
from pddm_utils.data.preprocess.runner import Outcome, read_log


@dataclass(frozen=True)
class Review:
    """One scan of a run.

    Attributes:
        name: data set and subject.
        error: why there is no result; empty for a scan that is done.
        numbers: of `pddm_utils.data.preprocess.checks.measure`.
        reasons: why to look at it.
        steps: of the log: what each step found, and its seconds.
        pictures: gives what `pddm_utils.data.preprocess.checks.pictures` drew; read when asked for.
    """

    name: str
    error: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    steps: tuple[dict[str, Any], ...] = ()
    pictures: Callable[[], np.ndarray] = lambda: np.empty(0)


def review_scans(outcomes: Sequence[Outcome]) -> list[Review]:
    """Review a run: scans with a reason first, each compared with those of its data set and contrast.

    Args:
        outcomes: of `preprocess_manifest`.
    """
    done = [one for one in outcomes if not one.error]
    logs = {one.row.scan_id: read_log(one.folder) for one in done}
    reasons: dict[str, list[str]] = {}
    for group in sorted({(one.row.dataset, one.row.contrast) for one in done}):
        names = [one.row.scan_id for one in done if (one.row.dataset, one.row.contrast) == group]
        reasons |= outliers({name: logs[name]["quality"] for name in names})
    reviews = [_review(one, logs[one.row.scan_id], reasons[one.row.scan_id]) for one in done]
    failed = [Review(one.row.scan_id, one.error) for one in outcomes if one.error]
    return sorted(reviews, key=lambda one: (not one.reasons, one.name)) + failed


def _review(outcome: Outcome, log: dict[str, Any], reasons: Sequence[str]) -> Review:
    return Review(
        outcome.row.scan_id,
        "",
        log["quality"],
        tuple(reasons),
        tuple(log["steps"]),
        lambda: np.load(outcome.folder / "pictures.npy", allow_pickle=False),
    )


def write_quality_table(reviews: Sequence[Review], path: str | Path) -> None:
    """Write the numbers and reasons of finished scans as a CSV.

    Raises:
        InputError: the file cannot be written.
    """
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["scan", "dice", *COMPARED, "reasons"])
        for one in sorted((one for one in reviews if not one.error), key=lambda one: one.name):
            dice = "" if one.numbers["dice"] is None else one.numbers["dice"]
            writer.writerow([one.name, dice, *(one.numbers[key] for key in COMPARED), "; ".join(one.reasons)])
