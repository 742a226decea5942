"""The picture on the front page: the median test subject, chosen by rank and not by eye."""

from __future__ import annotations

from pathlib import Path

from pddm_utils.benchmark.evaluate import map_scan
from pddm_utils.benchmark.models import load_method
from pddm_utils.benchmark.ranked_figures import ranked_subjects
from pddm_utils.benchmark.tables import read_results
from pddm_utils.core.files import whole_file
from pddm_utils.core.settings import Settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.methods.registry import SHIPPED_METHODS
from pddm_utils.show.figures import compare_methods


def save_hero(settings: Settings, runs: Path, results: Path, out: Path) -> str:
    """Draw both shipped models on the median tumour subject of a profile; returns the subject.

    Args:
        settings: the profile of the finished benchmark.
        runs: prepared scans are kept here.
        results: the benchmark's tables.
        out: the PNG to write.
    """
    dataset = f"{settings.cohort}-{settings.contrast.lower()}-tumour"
    subject = ranked_subjects(read_results(results)[0], dataset)["median"]
    row = next(row for row in cohort_rows(settings) if (row.dataset, row.subject) == (dataset, subject))
    scan = load_scan(row, ScanCache(runs / "cache"))
    pairs = {
        name: map_scan(load_method(settings, name, settings.seeds[0], runs, shipped=True), scan)
        for name in SHIPPED_METHODS
    }
    figure = compare_methods(
        scan, {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}
    )
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=110, bbox_inches="tight")
    return subject
