"""What is read off the scores of a factorial, on scores that were made up to have one answer."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
from PIL import Image

from book_build import ROOT
from pddm_utils.benchmark.studies.factorial_tables import (
    SCORES,
    best_levels,
    factorial_figure,
    factorial_markdown,
    patching_markdown,
    read_factorial,
)
from pddm_utils.benchmark.studies.search_tables import table_digest

SUBJECTS = [f"s{number}" for number in range(6)]


@pytest.fixture
def table() -> pd.DataFrame:
    """pDDPM is best at level 249, DDPM at 499, the edge; more steps help; healthy error grows with the level."""
    rows = []
    for method, step, level, (number, subject) in itertools.product(
        ("ddpm", "pddpm"), (250, 1000), (100, 249, 499), enumerate(SUBJECTS)
    ):
        best = 249 if method == "pddpm" else 499
        score = 0.2 + 0.1 * (level == best) + 0.1 * (step == 1000) + 0.05 * (method == "pddpm") + 0.01 * number
        cell = {"method": method, "noise": "simplex", "draw": "even", "rate": "1e-3 cosine", "steps": 1000}
        facts = {**cell, "network": "laptop", "step": step, "timestep": level}
        rows.append({**facts, "dataset": "lesioned", "subject": subject, **dict.fromkeys(SCORES, score)})
        rows.append({**facts, "dataset": "free", "subject": f"f{number}", "healthy_l1": level / 1000})
    for method in ("intensity", "mean by place", "brain median"):
        rows += [
            {"method": method, "dataset": "lesioned", "subject": s, **dict.fromkeys(SCORES, 0.3)} for s in SUBJECTS
        ]
        rows.append({"method": method, "dataset": "free", "subject": "f0", "healthy_l1": 0.1})
    return pd.DataFrame(rows)


def test_the_best_level_of_each_snapshot(table) -> None:
    best = best_levels(table, "lesioned").set_index(["method", "step"])
    assert best.timestep.to_dict() == {
        ("ddpm", 250): 499,
        ("ddpm", 1000): 499,
        ("pddpm", 250): 249,
        ("pddpm", 1000): 249,
    }
    assert best.healthy_l1[("pddpm", 1000)] == pytest.approx(0.249)
    assert best.edge.to_dict()[("ddpm", 1000)] and not best.edge.to_dict()[("pddpm", 1000)]


def test_table_names_levels_floors_and_the_edge(table) -> None:
    text = factorial_markdown(table, "lesioned")
    assert text.count("\n") == 1 + 3 + 2
    assert "(499, edge)" in text and "(249)" in text and "brain median" in text
    assert "0.475 [" in text  # pDDPM after 1,000 steps


def test_patched_minus_whole_is_paired_by_subject(table) -> None:
    text = patching_markdown(table, "lesioned")
    assert text.splitlines()[2].startswith("| simplex, even draw, 1e-3 cosine | 1000 | 0.050 [0.050, 0.050]")


def test_figure_has_a_curve_for_each_cell_and_a_line_for_each_floor(table) -> None:
    upper, lower = factorial_figure(table, "lesioned").axes
    assert len(upper.lines) == 2 + 3 and len(lower.lines) == 2 + 2
    assert list(upper.lines[0].get_xdata()) == [250, 1000]


def test_the_picture_of_the_page_is_of_the_committed_scores() -> None:
    scores = read_factorial(ROOT / "results" / "recipe", "soop")[0]
    picture = Image.open(ROOT / "book" / "figures" / "recipe.png")
    assert picture.text["Source"] == table_digest(scores)
