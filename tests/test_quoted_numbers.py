"""Numbers of the pages, recomputed from the CSV files with numpy and pandas alone.

Nothing of the package's statistics or tables is used here: tables are read as text from the pages, means must come out
to the digit, and intervals within the tolerance below from a small bootstrap of this file's own. `QUOTES` lists numbers
that stand in sentences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr, ndtri

from pddm_utils.methods.registry import METHOD_NAMES

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "book/welcome.md", "book/results.md")
JOINED = ("short", "answer", "overview", "decisions", "floors")  # blocks that join several runs
DEFAULT, DRAWS = "healthy-quantile-0.99", 5_000
TOLERANCE = 0.06  # of an interval's width, for each end: two bootstraps of some thousand draws differ by chance
NUMBER = r"-?\d+\.\d+"
CELL = re.compile(rf"^({NUMBER}) \[({NUMBER}), ({NUMBER})\]")


class Cell(NamedTuple):
    """A value with its interval: page and place in words, the text, and the value of each subject."""

    where: str
    text: str
    values: np.ndarray


@cache
def read(path: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / path)


# --- The page: blocks between markers, and their tables ---
def blocks(page: str) -> Iterator[tuple[list[str], str]]:
    """Words of each marker, and what stands below it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for words, body in re.findall(r"<!-- results:(.*?) -->\n(.*?)<!-- /results -->", text, flags=re.S):
        yield words.split(), body


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of each Markdown table."""
    for lines in re.findall(r"((?:^\|.*\|\n?)+)", text, flags=re.M):
        header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()]
        yield header, rows


# --- The numbers: from `scores.csv` ---
def subjects(scores: pd.DataFrame, column: str = "auprc", rule: str = DEFAULT, level: str = "validation") -> pd.Series:
    """The value of each subject, the mean over seeds."""
    chosen = scores[(scores.rule == rule) & scores.noise_level.isin([level, "none"])]
    return chosen.groupby("subject")[column].mean()


def bca(values: np.ndarray, seed: int = 1) -> tuple[float, float]:
    """The 95 % BCa interval of the mean (Efron and Tibshirani 1993, chapter 14)."""
    rng, n = np.random.default_rng(seed), len(values)
    draws = np.sort(values[rng.integers(n, size=(DRAWS, n))].mean(axis=1))
    below = (np.sum(draws < values.mean()) + np.sum(draws <= values.mean())) / 2 / DRAWS
    shift = ndtri(below)
    left_out = (values.sum() - values) / (n - 1)
    apart = left_out.mean() - left_out
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    z = shift + ndtri(np.array([0.025, 0.975]))
    low, high = np.quantile(draws, ndtr(shift + z / (1 - acceleration * z)))
    return float(low), float(high)


def test_the_bootstrap_of_this_file_is_that_of_the_book():
    """On data with a known answer: symmetric ones have the percentiles of the normal curve."""
    values = np.random.default_rng(0).normal(size=400)
    low, high = bca(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)
    skewed = np.random.default_rng(1).exponential(size=60) ** 2
    low, high = bca(skewed)
    assert high - skewed.mean() > 1.3 * (skewed.mean() - low), "the long tail is on the right"


@cache
def runs() -> tuple[str, ...]:
    return tuple(path.parent.name for path in sorted((ROOT / "results").glob("*/scores.csv")))


@cache
def of(
    run: str, dataset: str, method: str, column: str = "auprc", rule: str = DEFAULT, level: str = "validation"
) -> pd.Series:
    """The value of each subject; what a run lacks is of its other methods, or of the runs of floors."""
    others = [f"{run}-anoddpm", f"{run}-methods", *(other for other in runs() if other.endswith("-floors"))]
    for name in (run, *(other for other in others if other in runs())):
        scores = read(f"results/{name}/scores.csv")
        scores = scores[(scores.dataset == dataset) & (scores.method == method)]
        if len(scores):
            return subjects(scores, column, rule, level)
    raise AssertionError(f"{run}: no scores of {method} on {dataset}")


def method_of(shown: str) -> str:
    """Name of the method that a page shows; floors without what follows their comma."""
    shown = shown.removesuffix("†").removesuffix(", no network")
    exact = [name for name, text in METHOD_NAMES.items() if text == shown]
    found = exact or [name for name, text in METHOD_NAMES.items() if text.split(",")[0] == shown]
    assert len(found) == 1, shown
    return found[0]


def leaderboard_cells(page: str) -> Iterator[Cell]:
    """Tables below a heading that names a run in brackets: AUPRC of each data set, and the differences behind it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for run, section in re.findall(r"^### [^\n]*\(`(\S+)`\)\n(.*?)(?=^#|\Z)", text, flags=re.S | re.M):
        parts = re.split(r"^\*\*At the authors' noise level\*\*", section, flags=re.M)
        for level, part in zip(("validation", "authors"), parts, strict=False):
            for header, rows in tables(part):
                for row in rows if any(re.match(r"\S+ \(n = ", name) for name in header) else []:
                    yield from cells_of_row(f"{page}, {run}", run, header, row, level)


def cells_of_row(where: str, run: str, header: list[str], row: list[str], level: str) -> Iterator[Cell]:
    dataset, method = "", method_of(row[0])
    for name, text in list(zip(header, row, strict=True))[1:]:
        if named := re.match(r"(\S+) \(n = (\d+)\)$", name):
            dataset, values = named[1], of(run, named[1], method, level=level)
            assert len(values) == int(named[2]), (where, name)
            yield Cell(f"{where}, {row[0]}, {name}", text, values.to_numpy())
        elif name.startswith("minus ") and dataset and CELL.match(text):
            other = "ddpm" if name == "minus DDPM" else method_of(name.removeprefix("minus best floor, "))
            yield Cell(f"{where}, {row[0]}, {dataset} {name}", text, difference(run, dataset, method, other, level))


def difference(run: str, dataset: str, method: str, other: str, level: str = "validation") -> np.ndarray:
    pair = pd.concat([of(run, dataset, name, level=level) for name in (method, other)], axis=1, join="inner")
    return (pair.iloc[:, 0] - pair.iloc[:, 1]).to_numpy()


@cache
def everything() -> tuple[np.ndarray, ...]:
    """What a value with an interval may stand for: scores of a method on a data set, or a difference of two."""
    found = []
    for run in runs():
        scores = read(f"results/{run}/scores.csv")
        for dataset, methods in scores.groupby("dataset").method.unique().items():
            if scores[scores.dataset == dataset].subject.nunique() < 5:
                continue
            floors = ("intensity", "atlas", "blur") if dataset == "ixi-t1-tumour" else ()
            names = list(dict.fromkeys([*methods, *floors]))
            found += [of(run, dataset, m, c).to_numpy() for m in names for c in ("auprc", "dice", "false_positive_ml")]
            found += [difference(run, dataset, m, o) for m in names for o in names if m != o]
    return tuple(values for values in found if not np.isnan(values).all())


def shown(value: float, text: str) -> float:
    """The value with as many digits as the text has."""
    return round(value, len(re.match(NUMBER, text)[0].split(".")[1]))


def test_leaderboards_come_out_of_the_csv_files():
    cells = [cell for cell in leaderboard_cells("book/results.md") if CELL.match(cell.text)]
    assert len(cells) > 20
    wrong = [line for cell in cells if (line := amiss(cell))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES)
def test_values_with_an_interval_come_out_of_the_csv_files(page):
    """In marked blocks: each is the mean and interval of something that the files hold."""
    quoted = {
        match[0]
        for words, body in blocks(page)
        if words[0] in JOINED
        for match in re.finditer(rf"{NUMBER} \[{NUMBER}, {NUMBER}\](?! %)", body)
    }
    assert quoted
    for text in sorted(quoted):
        mean = float(CELL.match(text)[1])
        near = [values for values in everything() if shown(np.nanmean(values), text) == mean]
        assert any(not amiss(Cell(page, text, values)) for values in near), f"{page}: {text} stands for nothing"


def amiss(cell: Cell) -> str:
    """What does not agree; empty for nothing."""
    mean, low, high = map(float, CELL.match(cell.text).groups())
    values = cell.values[~np.isnan(cell.values)]
    digit = 10.0 ** -len(re.match(NUMBER, cell.text)[0].split(".")[1])
    if abs(values.mean() - mean) > 0.5001 * digit:
        return f"{cell.where}: {mean} on the page, {values.mean():.5f} in the file"
    if len(set(values.round(12))) > 1:
        ends = bca(values)
        reach = TOLERANCE * (ends[1] - ends[0]) + digit
        if np.abs(np.array(ends) - [low, high]).max() > reach:
            return f"{cell.where}: [{low}, {high}] on the page, {np.round(ends, 4)} here"
    return ""


# --- Numbers in sentences ---
def validation_search(method: str, idea: str, cohort: str = "ixi-t1") -> float:
    table = read("results/validation/test.csv")
    return table[(table.dataset == f"{cohort}-tumour") & (table.method == method) & (table.idea == idea)].auprc.mean()


def floor_on_validation(method: str) -> float:
    table = read("results/real-floors/selection.csv")
    return table[(table.method == method) & (table.dataset == "ixi-t1-tumour")].auprc.mean()


def by_level(run: str, dataset: str, method: str) -> pd.Series:
    table = read(f"results/{run}/selection.csv")
    return table[(table.dataset == dataset) & (table.method == method)].groupby("timestep").auprc.mean()


def recipe(method: str, noise: str, draw: str, rate: str = "1e-3 cosine") -> float:
    """The plain map of a finished training, at its best level."""
    table = read("results/recipe/soop.csv")
    table = table[(table.method == method) & (table.noise == noise) & (table.draw == draw) & (table.rate == rate)]
    table = table[(table.step == 1000) & (table.steps == 1000)]
    return table[table.dataset == "soop-flair"].groupby("timestep").auprc.mean().max()


def on_tumours(run: str, method: str) -> float:
    """The default rule's AUPRC on the tumours in IXI, all trainings."""
    table = read(f"results/{run}/scores.csv")
    return subjects(table[(table.dataset == "ixi-t1-tumour") & (table.method == method)]).mean()


def on_strokes(method: str, run: str = "soop-methods") -> float:
    """Mean AUPRC of another method on the SOOP test patients."""
    return float(of(run, "soop-flair", method).mean())


def on_t2(method: str) -> float:
    """Mean AUPRC on simulated T2 tumours, by the recipe of today."""
    return float(of("simplex", "simulated-t2-tumour", method).mean())


def each_training(method: str, run: str = "ixi") -> list[float]:
    table = read(f"results/{run}/scores.csv")
    table = table[(table.dataset == "ixi-t1-tumour") & (table.method == method)]
    return [subjects(rows).mean() for _, rows in table.groupby("seed")]


PLACE = "z-score by place, signed"
# (page, the sentence's words, and the numbers in them, in their order)
QUOTES: list[tuple[str, str, Callable[[], list[float]]]] = [
    (
        "book/validation_search.md",
        "it lifts pDDPM from 0.337 to 0.560, and the whole-image DDPM from 0.184 to 0.507",
        lambda: [validation_search(method, idea) for method in ("pddpm", "ddpm") for idea in ("base line", PLACE)],
    ),
    (
        "book/results.md",
        "DAE 0.800, DDPM 0.678, pDDPM 0.655 and VAE 0.638, the atlas 0.571",
        lambda: [on_tumours("ixi-place", name) for name in ("dae", "ddpm", "pddpm", "vae", "atlas")],
    ),
    (
        "book/results.md",
        "where its trainings agree (0.624, 0.674 and 0.669)",
        lambda: each_training("pddpm", "ixi-place"),
    ),
    (
        "book/results.md",
        "have 0.529, 0.328 and 0.433; those of DDPM 0.562, 0.569 and 0.574",
        lambda: [*each_training("pddpm"), *each_training("ddpm")],
    ),
    (
        "notebooks/06_diffusion_on_slices.ipynb",
        "0.150, 0.212, 0.243, 0.247, 0.244 and 0.221 at the six levels",
        lambda: list(by_level("laptop", "simulated-t2-tumour", "ddpm")),
    ),
    (
        "book/results.md",
        "VAE 0.417, VAE with a spatial latent 0.411, PCA 0.387, cDDPM 0.370, AnoDDPM in 25 steps 0.345, AE 0.304",
        lambda: [
            *(on_strokes(name) for name in ("vae", "svae", "pca", "cddpm")),
            on_strokes("anoddpm", "soop-anoddpm"),
            on_strokes("ae"),
        ],
    ),
    ("book/results.md", "in one training: pDDPM with them has 0.458", lambda: [on_strokes("pddpm-random")]),
    (
        "book/results.md",
        "pDDPM 0.449 and DDPM 0.403, difference 0.046",
        lambda: [on_t2("pddpm"), on_t2("ddpm"), on_t2("pddpm") - on_t2("ddpm")],
    ),
    ("book/evaluation.md", "where it has an AUPRC of 0.125", lambda: [floor_on_validation("blur")]),
    (
        "book/recipe.md",
        "For pDDPM the first recipe has 0.253; with simplex noise alone 0.250, with the even draw alone 0.248, with "
        "both 0.361",
        lambda: [
            recipe("pddpm", noise, draw)
            for noise, draw in (("gaussian", "high"), ("simplex", "high"), ("gaussian", "even"), ("simplex", "even"))
        ],
    ),
]


@pytest.mark.parametrize(("page", "quote", "numbers"), QUOTES, ids=[quote[:40] for _, quote, _ in QUOTES])
def test_numbers_in_sentences_come_out_of_the_csv_files(page, quote, numbers):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert quote in text, f"{page} no longer says {quote!r}: mend QUOTES in this file"
    said = re.findall(NUMBER, quote)
    values = numbers()
    assert len(said) == len(values)
    for number, value in zip(said, values, strict=True):
        assert shown(value, number) == float(number), f"{page}: {number}, the file has {value:.5f}"


# --- The page of the GPU: its file, and the runs that were trained on it ---
GPU_RUNS = {"strokes": ("gpu-soop", "soop", "soop-flair"), "T1": ("gpu-ixi", "ixi", "ixi-t1-tumour")}
GPU_RUNS["simulated T2"] = ("gpu-simulated", "simplex", "simulated-t2-tumour")


def gpu_tables() -> dict[str, list[list[str]]]:
    """Rows of each table of the page, by its first header."""
    return {header[1]: rows for header, rows in tables((ROOT / "book" / "gpu.md").read_text(encoding="utf-8"))}


def on_validation(run: str, dataset: str, method: str) -> pd.Series:
    """The value of each validation subject at the method's best level, the mean over seeds."""
    table = read(f"results/{run}/selection.csv")
    best = by_level(run, dataset, method).idxmax()
    rows = table[(table.dataset == dataset) & (table.method == method) & (table.timestep == best)]
    return rows.groupby("subject").auprc.mean()


def test_what_the_gpu_measured_is_what_its_file_says():
    speed = json.loads((ROOT / "results" / "gpu" / "h200.json").read_text(encoding="utf-8"))["speed"]
    goals = {row[0]: row[2] for row in gpu_tables()["goal"]}
    paper = speed["training step, paper"]
    assert float(goals["training step, paper's network: ours / bare"]) == round(paper["over_bare"], 2)
    assert f"**{paper['share_of_peak']:.3f}: not reached**" == goals["the same: share of the card's bf16 peak"]
    busy = goals["share of a training step in which the GPU computes (middle network)"]
    assert float(busy) == round(speed["busy share, middle"]["busy_share"], 3)
    for name, parameters, step, naive, bare, share, memory in gpu_tables()["parameters"]:
        found = speed[f"training step, {name}"]
        assert step == f"{found['batch']}, {found['seconds_a_step']:.3f}" and parameters == f"{found['parameters']:,}"
        assert naive == f"{found['naive_over_ours']:.3g}" and bare == f"{found['over_bare']:.2f}"
        assert share == f"{found['share_of_peak']:.3f}" and memory == f"{found['peak_memory_gib']:.1f}"
    for name, volume, naive, bare, share, memory in gpu_tables()[
        "reconstruction of 80 slices, 282 boxes: at once, seconds"
    ]:
        found = speed[f"reconstruction, {name}"]
        assert volume == f"{found['boxes_at_once']}, {found['seconds_a_volume']:.3f}"
        assert naive == f"{found['naive_over_ours']:.0f}" and bare == f"{found['over_bare']:.2f}"
        assert share == f"{found['share_of_peak']:.3f}" and memory == f"{found['peak_memory_gib']:.1f}"


def test_what_was_trained_on_the_gpu_scores_as_the_page_says():
    rows = gpu_tables()["atlas"]
    assert len(rows) == len(GPU_RUNS)
    for row, (run, _, dataset) in zip(rows, GPU_RUNS.values(), strict=True):
        for number, method in zip(row[1:5], ("atlas", "dae", "ddpm", "pddpm"), strict=True):
            assert number == f"{of(run, dataset, method).mean():.3f}", (run, method)
        for text, other in zip(row[5:], ("ddpm", "atlas"), strict=True):
            assert not (wrong := amiss(Cell(f"gpu.md {run}", text, difference(run, dataset, "pddpm", other)))), wrong


def test_larger_against_small_networks_on_validation_as_the_page_says():
    header = next(h for h, _ in tables((ROOT / "book" / "gpu.md").read_text(encoding="utf-8")) if "strokes (76)" in h)
    for row in gpu_tables()["strokes (76)"]:
        for text, people, (large, small, dataset) in zip(row[1:], header[1:], GPU_RUNS.values(), strict=True):
            one, other = (on_validation(run, dataset, row[0].lower()) for run in (large, small))
            values = (one - other).dropna().to_numpy()
            assert f"({len(values)})" in people
            assert not (wrong := amiss(Cell(f"gpu.md {large} {row[0]}", text, values))), wrong
