"""The overview of all results: real lesions first, from the files alone, with and without a run on real strokes."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from book_build import ROOT
from pddm_utils.methods.registry import FLOORS, NOISE_LEVEL_METHODS, TRAINED_METHODS
from pddm_utils.publish.overview import cost, ordered_methods, overview_block, panels
from pddm_utils.publish.overview_chart import overview_digest, overview_figure, save_overview
from pddm_utils.publish.overview_words import answer_block, decisions_block, floors_block, short_block
from pddm_utils.publish.pages import fill_marks
from pddm_utils.publish.run_tables import leaderboards_block, run_groups

RESULTS = ROOT / "results"
README = (ROOT / "README.md").read_text("utf-8")
COLOURS = {"text": "black", "line": "grey", "colour": "blue", "shade": "#00000010"}
STROKES = {"intensity": 0.40, "atlas": 0.42, "blur": 0.2, "dae": 0.30, "ddpm": 0.34, "pddpm": 0.35}


@pytest.fixture
def strokes(tmp_path: Path) -> Path:
    """Committed results of real scans and a small run of the shape that `--profile soop` writes."""
    for name in ("ixi", "ixi-place", "real-methods", "real-floors"):
        shutil.copytree(RESULTS / name, tmp_path / name)
    rng, rows, selection = np.random.default_rng(0), [], []
    offsets = {f"sub-{number}": rng.normal(0, 0.05) for number in range(12)}
    for method, mean in STROKES.items():
        level = method in NOISE_LEVEL_METHODS
        place = {"noise_level": "validation" if level else "none", "timestep": 100 if level else -1}
        seeds = (0, 1, 2) if method in TRAINED_METHODS and method != "atlas" else (0,)
        for dataset in ("soop-flair", "soop-flair-small", "soop-flair-free"):
            for subject, offset in offsets.items():
                ill = not dataset.endswith("free")
                for seed in seeds:
                    value = mean + offset + rng.normal(0, 0.005)
                    known = {"dataset": dataset, "method": method, "seed": seed, "subject": f"{subject}{dataset[10:]}"}
                    scored = {"auprc": value, "dice": value} if ill else {}
                    found = {"lesions": int(ill), "lesions_detected": int(ill), "false_components": 1}
                    rest = {
                        "false_positive_ml": 1 + rng.random(),
                        "scan_score": rng.random(),
                        "lesion_share": 0.03 * ill,
                    }
                    rows += [
                        {**known, **place, **scored, **found, **rest, "rule": rule}
                        for rule in ("healthy-quantile-0.99", "oracle")
                    ]
        selection += [
            {
                "method": method,
                "timestep": place["timestep"],
                "dataset": "soop-flair",
                "subject": f"v{n}",
                "auprc": mean,
            }
            for n in range(3)
        ]
    folder = tmp_path / "soop"
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    pd.DataFrame(selection).to_csv(folder / "selection.csv", index=False)
    run = json.loads((RESULTS / "real-floors" / "run.json").read_text())
    run["settings"] |= {
        "profile": "soop",
        "cohort": "soop",
        "contrast": "FLAIR",
        "score": "place",
        "methods": list(STROKES),
        "seeds": [0, 1, 2],
    }
    record = {"parameters": 647_297, "steps": 1000, "seconds": 500.0, "cpu_seconds": 480.0}
    run |= {"seeds": [0, 1, 2], "models": {f"{name}-seed{seed}": record for name in STROKES for seed in (0, 1, 2)}}
    (folder / "run.json").write_text(json.dumps(run))
    return tmp_path


def test_readme_is_one_screen_or_two() -> None:
    assert len(README.splitlines()) <= 80
    assert "make book" in README and "make test" in README and "<!-- results:short -->" in README
    assert len(re.findall(r"\d\.\d+ \[", README)) == 3, "three numbers with their intervals; the rest is in the book"


def test_methods_of_a_panel_were_scored_on_the_same_people() -> None:
    for one in panels(RESULTS):
        people = one.scores.groupby("method").subject.agg(frozenset)
        assert people.nunique() == 1 and len(people.iloc[0]) == one.people
        assert not one.scores.duplicated(["method", "subject", "noise_level", "rule", "seed"]).any()


def test_real_lesions_come_first_and_a_run_on_strokes_before_all(strokes: Path) -> None:
    order = [one.simulated for one in panels(RESULTS)]
    assert order == sorted(order) and order[-1]
    assert [one.dataset for one in panels(strokes)] == ["soop-flair", "mslub-t1", "ixi-t1-tumour"]
    first = answer_block(strokes).splitlines()[0]
    assert "Real strokes" in first and "12 patients" in first and "chance 0.030" in first
    assert ordered_methods(panels(strokes))[:3] == ["atlas", "intensity", "pddpm"]
    without = panels(strokes)[1:]
    shutil.rmtree(strokes / "soop")
    assert [one.dataset for one in panels(strokes)] == [one.dataset for one in without]
    assert "validation scans only" in answer_block(strokes).splitlines()[0]
    for block in (decisions_block, overview_block, floors_block, leaderboards_block):
        assert "troke" not in block(strokes)


def test_the_front_page_names_the_best_network_the_floor_and_patches(strokes: Path) -> None:
    means = panels(strokes)[0].summary.set_index("method")["mean"]
    text = short_block(strokes)
    assert text.startswith("Real strokes on FLAIR (12 patients with at least 20 lesion pixels; chance 0.030): ")
    assert f"(the atlas) **{means['atlas']:.3f} [" in text and f"(pDDPM) **{means['pddpm']:.3f} [" in text
    assert text.count("**") == 4, "pDDPM is the best network of this run"
    real = short_block(RESULTS)
    assert "(DAE) **" in real and real.index("DAE") < real.index("atlas") < real.index("pDDPM")


def test_what_is_said_of_strokes_is_what_the_files_say(strokes: Path) -> None:
    scores = pd.read_csv(strokes / "soop" / "scores.csv")
    scores = scores[(scores.dataset == "soop-flair") & (scores.rule == "oracle")]
    means = scores.groupby("method").auprc.mean()
    text = answer_block(strokes).splitlines()[0]
    assert f"Without a network, the atlas: {means['atlas']:.3f} [" in text
    assert f"Best network, pDDPM: {means['pddpm']:.3f} [" in text and "behind)." in text
    assert f"difference {means['pddpm'] - means['ddpm']:.3f} [" in text
    row = decisions_block(strokes).splitlines()[2]
    assert "strokes on FLAIR | the atlas (best on validation)" in row and "every network" in row
    table = [line for line in overview_block(strokes).splitlines() if line.startswith("| Atlas")]
    assert f" {means['atlas']:.3f} [" in table[0] and "Real strokes" in overview_block(strokes)
    assert f"| {means['blur']:.3f} [" in floors_block(strokes)


def test_every_run_has_its_section_once_with_the_floors_of_its_subjects(strokes: Path) -> None:
    shutil.copytree(RESULTS / "real", strokes / "real")  # a part of real-methods
    groups = [[folder.name for folder in group] for group in run_groups(strokes)]
    assert groups == [["ixi"], ["ixi-place"], ["real-methods", "real-floors"], ["soop"]]  # two have floors of their own
    text = leaderboards_block(strokes)
    assert text.index("### Real strokes on FLAIR (`soop`)") < text.index("### Tumours inserted into real T1 scans")
    for said in (text, answer_block(strokes)):
        assert said.count("ap of every network: the residual's z-score by place") == 2
    assert text.count("### ") == 4 and text.count("{dropdown} How this was made") == 4
    tumours = text[text.index("### Tumours") :]
    assert "| Atlas, z-score by place | 0.571 [" in tumours and "minus best floor, Atlas" in tumours


def test_other_methods_on_the_same_patients_stand_in_the_section_of_their_run() -> None:
    groups = {folders[0].name: [folder.name for folder in folders] for folders in run_groups(RESULTS)}
    assert groups["soop"] == ["soop", "soop-anoddpm", "soop-methods"] and "soop-methods" not in groups
    assert groups["gpu-soop"] == ["gpu-soop"], "another network"
    strokes = panels(RESULTS)[0]
    assert {"dae", "ddpm", "anoddpm", "vae"} <= set(strokes.summary.method)
    assert cost(strokes.runs.run, "anoddpm")[1] == "25"
    assert set(strokes.scores[strokes.scores.method == "ddpm"].seed) == {0, 1, 2}


def test_costs_are_those_of_the_run() -> None:
    tumours = next(one for one in panels(RESULTS) if one.dataset == "ixi-t1-tumour")
    models = json.loads((RESULTS / "ixi-place" / "run.json").read_text())["models"]
    minutes = [models[f"dae-seed{seed}"]["cpu_seconds"] / 60 for seed in (0, 1, 2)]
    assert cost(tumours.runs.run, "dae") == (f"{np.mean(minutes):.0f}", "1")
    assert cost(tumours.runs.run, "pddpm")[1] == "4" and cost(tumours.runs.run, "intensity") == ("0", "0")


def test_marks_of_the_overview_are_filled(strokes: Path) -> None:
    for kind in ("answer", "overview", "decisions", "floors", "patients mslub-t1 ixi-place"):
        text = fill_marks(f"<!-- results:{kind} -->\n<!-- /results -->", strokes)
        assert len(text.splitlines()) > 3


def test_chart_in_both_themes_and_shapes(strokes: Path, tmp_path: Path) -> None:
    source = overview_digest(RESULTS)
    for path in (ROOT / "book" / "figures").glob("overview*.svg"):
        assert source in path.read_text("utf-8"), "draw it again: python -m pddm_utils.publish overview"
    written = save_overview(strokes, tmp_path)
    assert len({path.read_bytes() for path in written}) == 4
    assert {ET.parse(path).getroot().tag.rpartition("}")[2] for path in written} == {"svg"}
    found = panels(strokes)
    wide, narrow = (overview_figure(found, shape, **COLOURS) for shape in (False, True))
    assert len(wide.axes) == len(narrow.axes) == 3 and wide.axes[0].get_title(loc="left").startswith("Real strokes")
    marks = {one.get_marker() for one in wide.axes[0].lines if one.get_linestyle() == "None"}
    assert marks == {"o", "s"}, "several trainings, and no network"
    floors = [one for one in wide.axes[0].lines if one.get_marker() == "s"]
    assert len(floors) == len(FLOORS) and {one.get_markerfacecolor() for one in floors} == {"none"}
    assert wide.axes[2].get_facecolor() != wide.axes[0].get_facecolor(), "simulated lesions have another ground"
