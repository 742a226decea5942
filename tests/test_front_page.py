"""The front page: short, with the main result as the files have it, floors beside methods."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest

from book_build import ROOT
from pddm_utils.benchmark.leaderboard import best_floors, read_selection
from pddm_utils.benchmark.studies.search_tables import table_digest
from pddm_utils.benchmark.tables import read_results
from pddm_utils.publish.front_page import (
    DATASET,
    FLOOR,
    ROWS,
    front_block,
    front_figure,
    front_scores,
    save_front_figures,
)

RESULTS = ROOT / "results"
README = (ROOT / "README.md").read_text("utf-8")


def test_readme_is_one_screen_or_two() -> None:
    assert len(README.splitlines()) <= 80
    assert "make book" in README and "make test" in README


def test_all_methods_were_scored_on_the_same_people() -> None:
    scores = front_scores(RESULTS)
    people = scores.groupby("method").subject.agg(frozenset)
    assert set(people.index) == set(ROWS) and people.nunique() == 1 and len(people.iloc[0]) == 57
    assert not scores.duplicated(["method", "subject", "noise_level", "rule", "seed"]).any()


def test_the_floor_that_is_named_is_the_best_on_validation() -> None:
    folder = RESULTS / "real-floors"
    assert best_floors(read_results(folder)[0], read_selection(folder))[DATASET] == FLOOR


def test_table_has_the_means_of_the_files() -> None:
    """Read without the package: means of the CSV files."""
    rows = [row.split(" | ") for row in front_block(RESULTS).splitlines()[2:]]
    written = {row[0].removeprefix("| "): float(row[1].split()[0]) for row in rows}
    files = pd.concat([pd.read_csv(RESULTS / name / "scores.csv") for name in ("real-methods", "real-floors")])
    files = files[(files.dataset == DATASET) & (files.rule == "healthy-quantile-0.99")]
    for label, method in {"pDDPM, patched": "pddpm", "DAE, coarse noise": "dae"}.items():
        assert written[label] == pytest.approx(files[files.method == method].auprc.mean(), abs=6e-4)
    means = list(written.values())
    assert means == sorted(means, reverse=True)


def test_chart_in_both_themes(tmp_path: Path) -> None:
    source = table_digest(front_scores(RESULTS))
    light, dark = save_front_figures(RESULTS, tmp_path)
    for path in (light, dark):
        assert ET.parse(path).getroot().tag.endswith("svg")
        assert source in path.read_text() and source in (ROOT / "book" / "figures" / path.name).read_text()
    assert light.read_text() != dark.read_text()
    axes = front_figure(RESULTS).axes[0]
    assert len(axes.get_yticklabels()) == len(ROWS)
