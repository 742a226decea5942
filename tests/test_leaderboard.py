"""Leaderboard, curves, times and the figures made of them, on small made-up results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.metrics import precision_recall_curve

from pddm_utils.benchmark.curves import curves_table, read_curves, reconstruction_times
from pddm_utils.benchmark.figures import (
    cost_quality,
    method_costs,
    precision_recall_bands,
    ranked_panel,
    ranked_subjects,
)
from pddm_utils.benchmark.leaderboard import (
    best_floors,
    best_on_validation,
    finished_runs,
    improvement_markdown,
    leaderboard_markdown,
    network_passes,
    older_methods,
    questions_markdown,
    read_selection,
)
from pddm_utils.benchmark.tables import comparison_table, headline_markdown, summary_table
from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.evaluation.metrics import RECALL_GRID, precision_at_recall, precision_recall
from pddm_utils.evaluation.statistics import bootstrap_band, bootstrap_interval, holm, relative_improvement
from pddm_utils.methods.registry import METHOD_COLOURS, METHOD_NAMES, METHODS, NOISE_LEVEL_METHODS, TRAINED_METHODS
from pddm_utils.publish.how_made import provenance_line
from pddm_utils.publish.pages import fill_marks
from pddm_utils.publish.run_tables import healthy_markdown

RESULTS = Path(__file__).parents[1] / "results"
TUMOUR, HEALTHY = "simulated-t2-tumour", "simulated-t2-healthy"
CURVE = " ".join(["0.5"] * RECALL_GRID.size)


def made_up_scores(methods: tuple[str, ...] = tuple(METHODS), subjects: int = 8) -> pd.DataFrame:
    """Method number m has an AUPRC of about (m + 1) / 20; noise differs by subject and method."""
    rng, rows = np.random.default_rng(0), []
    for place, method in enumerate(methods):
        level = method in NOISE_LEVEL_METHODS
        for seed in (0, 1) if method in TRAINED_METHODS else (0,):
            for number in range(subjects):
                for dataset in (TUMOUR, HEALTHY):
                    ill = dataset == TUMOUR
                    value = (place + 1) / 20 + 0.01 * number + 0.002 * rng.random()
                    rows.append(
                        {
                            "dataset": dataset,
                            "method": method,
                            "seed": seed,
                            "subject": f"s{number}",
                            "noise_level": "validation" if level else "none",
                            "timestep": 499 if level else -1,
                            "rule": "healthy-quantile-0.99",
                            "auprc": value if ill else np.nan,
                            "dice": value if ill else np.nan,
                            "false_positive_ml": 2.0 if ill else 1 + 0.01 * rng.random(),
                            "precisions": CURVE if ill else np.nan,
                            "seconds": place + 1.0,
                            "cpu_seconds": place + 0.5,
                        }
                    )
    return pd.DataFrame(rows)


def made_up_selection(means: dict[str, float]) -> pd.DataFrame:
    """Validation AUPRC at the chosen level; and 0.99 at a level that was not chosen."""
    rows = []
    for method, mean in means.items():
        levels = {499: mean, 899: 0.99} if method in NOISE_LEVEL_METHODS else {-1: mean}
        rows += [
            {"method": method, "timestep": timestep, "dataset": TUMOUR, "subject": f"v{number}", "auprc": value}
            for timestep, value in levels.items()
            for number in range(3)
        ]
    return pd.DataFrame(rows)


def made_up_run() -> dict:
    record = {"parameters": 650_321, "steps": 10, "seconds": 90.0, "cpu_seconds": 120.0}
    settings = {
        "profile": "methods",
        "cohort": "simulated",
        "contrast": "T2",
        "train_subjects": 4,
        "seeds": [0, 1],
        "box_size": 48,
        "stride": 48,
        "ddim_steps": 10,
    }
    return {
        "settings": settings,
        "weights": "trained",
        "packages": {"torch": "2"},
        "hardware": {"cpu": "a CPU", "cores": 2, "gpu": None},
        "models": {f"{name}-seed{seed}": record for name in TRAINED_METHODS for seed in (0, 1)},
        "reconstruction": {name: {"seconds": 2.0, "cpu_seconds": 1.5, "scans": 4} for name in METHODS},
    }


def cells(markdown: str) -> list[list[str]]:
    """Body of a Markdown table."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()[2:]]


def test_precision_at_recall_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    lesion = rng.random((4, 10, 10)) < 0.25
    lesion.flat[np.flatnonzero(lesion)[100:]] = False  # 100 voxels or fewer: recalls fall on grid points
    anomalies = np.round(rng.random(lesion.shape) + 0.3 * lesion, 2) * (rng.random(lesion.shape) < 0.9)  # with ties
    precision, recall, _ = precision_recall_curve(lesion.ravel(), anomalies.ravel())
    precision, recall = precision[-2::-1], recall[-2::-1]  # recall rises; without the point that no value reaches
    expected = [precision[np.flatnonzero(recall >= point - 1e-9)[0]] for point in RECALL_GRID[1:]]
    np.testing.assert_allclose(precision_at_recall(precision_recall(anomalies, lesion))[1:], expected)
    assert np.isnan(precision_at_recall(precision_recall(anomalies, np.zeros_like(lesion)))).all()


def test_band_is_the_interval_of_every_point() -> None:
    curves = np.random.default_rng(1).random((9, 3))
    mean, low, high = bootstrap_band(curves)
    for point in range(3):
        interval = bootstrap_interval(curves[:, point])
        assert (mean[point], low[point], high[point]) == pytest.approx((interval.mean, interval.low, interval.high))
    assert np.isnan(bootstrap_band(curves[:4])[1]).all()


def test_relative_improvement_is_a_ratio_of_means() -> None:
    b = np.array([0.1, 0.2, 0.3, 0.4, 0.5, np.nan])
    exact = relative_improvement(1.25 * b, b)
    assert (exact.mean, exact.low, exact.high) == pytest.approx((0.25, 0.25, 0.25)) and exact.n == 5
    assert exact.left_out == 1
    uneven = relative_improvement(b[:5] + 0.1, b[:5])
    assert uneven.mean == pytest.approx(0.1 / 0.3) and 0.1 / 0.5 < uneven.low < uneven.mean
    assert np.isnan(relative_improvement(b[:4], b[:4]).low) and np.isnan(relative_improvement(b[:5], 0 * b[:5]).mean)


def test_leaderboard_holds_every_method_best_first() -> None:
    scores, run = made_up_scores(), made_up_run()
    rows = cells(leaderboard_markdown(scores, run))
    assert [row[0] for row in rows] == [METHOD_NAMES[name] for name in reversed(METHODS)]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name[METHOD_NAMES["pddpm"]][2:] == ["2 / 1.5", "650,321", "2, 2"]
    assert by_name[METHOD_NAMES["intensity"]][2:] == ["2 / 1.5", "0", "0"]
    assert by_name[METHOD_NAMES["ddpm"]][1] == "–" and "±" in by_name[METHOD_NAMES["ddpm"]][0]
    differences = comparison_table(scores, [(TUMOUR, "auprc", name, "ddpm") for name in METHODS if name != "ddpm"])
    assert len(differences) == len(METHODS) - 1 and np.array_equal(differences.p_holm, holm(differences.p_value))
    p = differences[differences.better == "pddpm"].p_holm.iloc[0]
    assert by_name[METHOD_NAMES["pddpm"]][1].endswith(f", p = {p:.4f}")


def test_leaderboard_of_an_older_run_has_dashes() -> None:
    run = made_up_run()
    del run["reconstruction"]
    run["models"] = {"ddpm-seed0": {"steps": 10, "cpu_seconds": 6.0}, "pddpm-seed0": {"steps": 10, "cpu_seconds": 90.0}}
    rows = cells(leaderboard_markdown(made_up_scores(("intensity", "ddpm", "pddpm")), run))
    assert [row[3:] for row in rows] == [["–", "–", "2"], ["–", "–", "0.1"], ["–", "0", "0"]]


def test_every_table_has_the_difference_to_ddpm_and_to_the_floor_that_validation_chose() -> None:
    scores = made_up_scores()  # on test the last floor is best
    floors = best_floors(scores, made_up_selection({"intensity": 0.1, "atlas": 0.4, "blur": 0.2}))
    assert floors == {TUMOUR: "atlas"}
    for table in (headline_markdown(scores, floors=floors), leaderboard_markdown(scores, made_up_run(), floors=floors)):
        header, rows = table.splitlines()[0], cells(table)
        assert "| minus DDPM | minus best floor, Atlas |" in header and len(rows) == len(METHODS)
        assert [row[0] for row in rows if row[2] == "–"] == [METHOD_NAMES["ddpm"]]
        assert [row[0] for row in rows if row[3] == "–"] == [METHOD_NAMES["atlas"]]
        by_name = {row[0]: row for row in rows}
        means = summary_table(scores, "auprc").set_index("method")["mean"]
        for column, other in ((2, "ddpm"), (3, "atlas")):
            assert by_name[METHOD_NAMES["pddpm"]][column].startswith(f"{means['pddpm'] - means[other]:.3f} [")
    assert best_floors(scores, made_up_selection({"intensity": 0.1})) == {}
    assert best_floors(made_up_scores(("intensity", "pddpm")), made_up_selection({})) == {TUMOUR: "intensity"}


def test_rows_of_an_older_definition_are_marked() -> None:
    scores, run = made_up_scores(), made_up_run()
    run["settings"] |= {"methods": list(METHODS)}
    changed = [name for name, facts in METHODS.items() if facts.definition > 1]
    for definitions, marked in ({}, changed), ({name: facts.definition for name, facts in METHODS.items()}, []):
        run["definitions"] = definitions
        assert older_methods(run) == marked
        rows = {row[0] for row in cells(leaderboard_markdown(scores, run))}
        assert {name for name, label in METHOD_NAMES.items() if f"{label}†" in rows} == set(marked)
        assert ("as defined then" in provenance_line(run)) == bool(marked)


def test_healthy_error_stands_beside_that_of_the_mean_by_place_and_of_the_median() -> None:
    extra = {"healthy_l1": 0.1, "median_l1": 0.2, "scan_score": 0.5, "lesions": 1, "lesions_detected": 0}
    scores = made_up_scores(("intensity", "atlas", "pddpm")).assign(**extra, false_components=0.0)
    scores.loc[scores.dataset == TUMOUR, ["healthy_l1", "median_l1"]] = np.nan
    rows = {row[1]: row[3] for row in cells(healthy_markdown(scores)) if row[0] == HEALTHY}
    assert rows["the brain's median"] == "0.200 [0.200, 0.200]" and rows[METHOD_NAMES["intensity"]] == ""
    assert rows[METHOD_NAMES["atlas"]] == rows[METHOD_NAMES["pddpm"]] == "0.100 [0.100, 0.100]"


def test_a_pair_both_ways_is_one_comparison() -> None:
    scores = made_up_scores(("intensity", "ddpm", "pddpm"))
    pairs = [(TUMOUR, "auprc", *names) for names in (("ddpm", "intensity"), ("pddpm", "intensity"))]
    once = comparison_table(scores, pairs)
    both = comparison_table(scores, [*pairs, (TUMOUR, "auprc", "intensity", "ddpm")])
    assert list(both.p_holm) == [*once.p_holm, once.p_holm[0]] and both["mean"][2] == -both["mean"][0]


def test_best_baseline_is_chosen_on_validation_and_never_on_test() -> None:
    scores = made_up_scores(("intensity", "ae", "ddpm", "pddpm", "pddpm-random"))  # on test the last baseline is best
    selection = made_up_selection({"intensity": 0.1, "ae": 0.3, "ddpm": 0.2, "pddpm": 0.8, "pddpm-random": 0.9})
    names = ["intensity", "ae", "ddpm", "vae"]
    assert best_on_validation(scores, selection, TUMOUR, names) == ("ae", [])
    lacking = selection[selection.method != "intensity"]
    assert best_on_validation(scores, lacking, TUMOUR, names) == (None, ["intensity"])
    (row,) = cells(improvement_markdown(scores, selection))
    ours, theirs = (summary_table(scores, "auprc").set_index("method").loc[name, "mean"] for name in ("pddpm", "ae"))
    assert row[:2] == [TUMOUR, METHOD_NAMES["ae"]] and row[4].startswith(f"{ours - theirs:.3f} [")
    assert row[5].startswith(f"{100 * (ours / theirs - 1):+.0f} [") and row[5].endswith("] %")


def test_missing_validation_scores_are_said_and_nothing_is_chosen() -> None:
    scores = made_up_scores(("intensity", "ddpm", "pddpm"))
    (row,) = cells(improvement_markdown(scores, made_up_selection({"ddpm": 0.2, "pddpm": 0.3})))
    assert row[1] == "not chosen: no validation AUPRC of Intensity threshold" and row[2] == row[4] == row[5] == "–"
    (row,) = cells(improvement_markdown(scores, read_selection(Path("nowhere"))))
    assert row[1] == "not chosen: no validation AUPRC of Intensity threshold, DDPM, whole image"


def test_questions_are_answered_by_the_numbers() -> None:
    scores = made_up_scores(("ddpm", "pddpm"))
    dice, alarms = cells(questions_markdown(scores))
    assert dice[1] == TUMOUR and dice[-1] == "yes" and alarms[1] == HEALTHY and alarms[-1] == "not shown"
    turned = scores.assign(dice=-scores.dice, false_positive_ml=1.0 + (scores.method == "pddpm"))
    assert [row[-1] for row in cells(questions_markdown(turned))] == ["no, below", "yes"]
    few = scores[scores.subject.isin(["s0", "s1"])]
    assert {row[-1] for row in cells(questions_markdown(few))} == {"too few subjects"}


def test_every_full_run_gets_a_section(tmp_path: Path) -> None:
    for name in ("methods", "smoke", "laptop-shipped"):
        (tmp_path / name).mkdir()
        made_up_scores(subjects=5).to_csv(tmp_path / name / "scores.csv", index=False)
        (tmp_path / name / "run.json").write_text(json.dumps(made_up_run()))
    assert [folder.name for folder in finished_runs(tmp_path)] == ["methods"]
    text = fill_marks("<!-- results:leaderboards -->\n<!-- /results -->", tmp_path)
    assert text.count("### ") == 1 and all(name in text for name in METHOD_NAMES.values())
    assert "**Simulated**" in text and f"{2 * len(TRAINED_METHODS)} models of 10 to 10 steps" in text
    assert {folder.name for folder in finished_runs(RESULTS)} >= {"laptop", "real"}


def test_curves_average_seeds_and_come_back(tmp_path: Path) -> None:
    scores = made_up_scores(("intensity", "pddpm"))
    scores.loc[(scores.method == "pddpm") & (scores.seed == 1), "precisions"] = CURVE.replace("0.5", "0.7")
    scores.loc[scores.dataset == HEALTHY, "precisions"] = np.nan
    curves_table(scores).to_csv(tmp_path / "curves.csv", index=False, float_format="%.3g")
    curves = read_curves(tmp_path)
    assert set(curves) == {TUMOUR} and set(curves[TUMOUR]) == {"intensity", "pddpm"}
    assert curves[TUMOUR]["pddpm"].shape == (8, RECALL_GRID.size)
    np.testing.assert_allclose(curves[TUMOUR]["pddpm"], 0.6)
    assert read_curves(tmp_path / "older") == {}
    old = scores.drop(columns=["precisions", "seconds", "cpu_seconds"])
    assert curves_table(old).empty and reconstruction_times(old) == {}
    assert reconstruction_times(scores)["pddpm"] == {"seconds": 2.0, "cpu_seconds": 1.5, "scans": 32}


def test_network_passes_count_boxes_and_steps() -> None:
    settings = made_up_run()["settings"]
    assert [network_passes(settings, name) for name in ("intensity", "pca", "vae", "ddpm")] == [0, 0, 1, 1]
    assert [network_passes(settings, name) for name in ("pddpm", "mddpm", "anoddpm", "cddpm")] == [4, 4, 10, 3]


def test_costs_are_seconds_where_all_were_measured() -> None:
    run = made_up_run()
    assert method_costs(run, ["ddpm", "pddpm"]) == ({"ddpm": 1.5, "pddpm": 1.5}, "CPU seconds a volume")
    del run["reconstruction"]["ddpm"]
    assert method_costs(run, ["ddpm", "pddpm"]) == ({"ddpm": 1, "pddpm": 4}, "network passes a slice")


def test_cost_and_quality_of_each_method_is_one_point() -> None:
    scores = made_up_scores()
    costs, unit = method_costs(made_up_run() | {"reconstruction": {}}, list(METHODS))
    axes = cost_quality(summary_table(scores, "auprc"), TUMOUR, costs, unit).axes[0]
    points = {bar.get_label(): bar.lines[0].get_xydata()[0] for bar in axes.containers}
    means = summary_table(scores, "auprc").set_index("method")["mean"]
    assert len(points) == len(METHODS) and axes.get_xlabel() == unit
    for name in METHODS:
        np.testing.assert_allclose(points[METHOD_NAMES[name]], [costs[name], means[name]])
    with pytest.raises(InputError, match="no method"):
        cost_quality(summary_table(scores, "auprc"), "elsewhere", costs, unit)


def test_bands_are_drawn_in_the_methods_colours() -> None:
    rng = np.random.default_rng(0)
    curves = {name: rng.random((6, RECALL_GRID.size)) for name in ("pddpm", "ddpm")}
    axes = precision_recall_bands(curves, "made up").axes[0]
    assert [line.get_label() for line in axes.lines] == [METHOD_NAMES[name] for name in ("ddpm", "pddpm")]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), curves["pddpm"].mean(axis=0)[1:])
    assert to_hex(axes.collections[1].get_facecolor()[0]).upper() == METHOD_COLOURS["pddpm"]
    with pytest.raises(InputError, match="read_curves"):
        precision_recall_bands({"ddpm": np.zeros((6, 5))})


def test_subjects_are_chosen_by_rank_of_the_mean_over_seeds() -> None:
    auprc = {"a": (0.9, 0.1), "b": (0.3, 0.3), "c": (0.8, 0.8), "d": (0.6, 0.7)}
    rows = [
        {
            "dataset": TUMOUR,
            "method": "pddpm",
            "seed": seed,
            "subject": subject,
            "noise_level": "validation",
            "rule": "healthy-quantile-0.99",
            "auprc": value,
        }
        for subject, values in auprc.items()
        for seed, value in enumerate(values)
    ]
    scores = pd.DataFrame(rows)
    assert ranked_subjects(scores, TUMOUR) == {"worst": "b", "median": "a", "best": "c"}
    assert set(ranked_subjects(scores[scores.subject == "d"], TUMOUR).values()) == {"d"}
    with pytest.raises(InputError, match="no AUPRC of ddpm"):
        ranked_subjects(scores, TUMOUR, "ddpm")


def test_panel_shows_each_method_on_each_scan() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((4, 8, 6)).astype(np.float32)
    lesion = np.zeros(image.shape, bool)
    lesion[2, 3:5, 2:4] = True
    scan = Scan("s7", TUMOUR, "T2", image, np.ones(image.shape, bool), lesion, np.diag([2.0, 2.0, 2.0, 1.0]))
    pairs = {rank: (image / 2, lesion * 0.5 + image / 8) for rank in ("worst", "best")}
    figure = ranked_panel(dict.fromkeys(pairs, scan), {"ddpm": pairs, "pddpm": pairs})
    shown = [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]
    assert len(shown) == 2 * 3
    np.testing.assert_array_equal(shown[0].images[0].get_array(), image[2][::-1, ::-1])
    titles = [axes.get_title() for axes in shown]
    assert titles[0] == "worst:\ns7" and titles.count("AUPRC 1.000") == 4
    with pytest.raises(InputError, match="each of them"):
        ranked_panel({"worst": scan}, {"ddpm": pairs})
