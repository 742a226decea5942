"""The benchmark end to end on the smoke profile, and the tables made from its scores."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pddm_utils.__main__ import main
from pddm_utils.benchmark.levels import choose_timesteps, levels_at_the_edge
from pddm_utils.benchmark.run import (
    Benchmark,
    rebuild_subjects,
    run_benchmark,
    score_unit,
    train_unit,
)
from pddm_utils.benchmark.tables import (
    headline_markdown,
    lesion_table,
    paired_table,
    read_results,
    scan_auroc_table,
    summary_table,
)
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import prepare_scan
from pddm_utils.detection.detect import detect
from pddm_utils.detection.model import load_model
from pddm_utils.evaluation.metrics import average_precision
from pddm_utils.methods.registry import METHOD_NAMES
from pddm_utils.publish.__main__ import main as publish_main
from pddm_utils.publish.cards import publish
from pddm_utils.publish.pages import fill_marks

TINY = {
    "train_subjects": 2,
    "val_subjects": 1,
    "train_steps": 4,
    "extra_seed_steps": 2,
    "checkpoint_every": 2,
    "timesteps": [499],
    "lesion_kinds": ["tumour"],
    "noise_levels": ["validation", "authors"],
    "threads": 1,
}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Benchmark:
    folder = tmp_path_factory.mktemp("benchmark")
    made = Benchmark(load_settings("smoke", TINY), False, folder / "runs", folder / "results", jobs=1)
    run_benchmark(made)
    return made


def test_scores_are_tidy_and_complete(benchmark: Benchmark) -> None:
    scores, run = read_results(benchmark.results)
    keys = ["dataset", "method", "seed", "subject", "noise_level", "rule"]
    assert not scores.duplicated(keys).any()
    assert set(scores.method) == {"intensity", "atlas", "blur", "ddpm", "pddpm"} and set(scores.seed) == {0, 1}
    assert set(scores.dataset) == {"simulated-t2-tumour", "simulated-t2-healthy"}
    healthy = scores.dataset.str.endswith("healthy")
    assert scores[healthy].auprc.isna().all() and scores[healthy].dice.isna().all()
    assert scores[~healthy].healthy_l1.isna().all() and scores[healthy].healthy_l1.notna().all()
    assert set(scores[~healthy].rule) == {
        "healthy-quantile-0.95",
        "healthy-quantile-0.99",
        "healthy-quantile-0.995",
        "lesion-val",
        "oracle",
    }
    assert run["settings"]["train_steps"] == 4 and run["packages"]["torch"]
    assert run["models"]["ddpm-seed1"]["steps"] == 2


def test_a_rebuilt_subject_is_the_one_that_was_scored(benchmark: Benchmark) -> None:
    scores, _ = read_results(benchmark.results)
    used = scores[(scores.dataset == "simulated-t2-tumour") & (scores.seed == 0)]
    used = used[used.noise_level.isin(["validation", "none"])].groupby("method").first()
    levels, subject = used.timestep.to_dict(), used.subject.iloc[0]
    scans, rebuilt = rebuild_subjects(benchmark, "simulated-t2-tumour", {"best": subject, "worst": subject}, levels)
    assert list(scans) == ["best", "worst"] and scans["best"].subject == subject
    for name, maps in rebuilt.items():
        auprc = average_precision(maps["worst"][1], scans["worst"].lesion_mask)
        assert auprc == pytest.approx(used.auprc[name], rel=1e-4)


def test_second_run_computes_nothing_and_writes_the_same_table(benchmark: Benchmark) -> None:
    before = (benchmark.results / "scores.csv").read_bytes()
    parts = {path: path.stat().st_mtime_ns for path in (benchmark.runs / "parts").iterdir()}
    run_benchmark(benchmark)
    assert (benchmark.results / "scores.csv").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (benchmark.runs / "parts").iterdir()} == parts


def test_run_from_scratch_with_two_jobs_gives_an_identical_table(benchmark: Benchmark, tmp_path: Path) -> None:
    again = dataclasses.replace(benchmark, runs=tmp_path / "runs", results=tmp_path / "results", jobs=2)
    run_benchmark(again)
    for name in ("scores.csv", "curves.csv", "selection.csv"):
        assert (again.results / name).read_bytes() == (benchmark.results / name).read_bytes()


def test_all_trainings_of_a_run_choose_the_noise_levels(benchmark: Benchmark) -> None:
    selection = pd.read_csv(benchmark.results / "selection.csv")
    chose = {name: set(rows.seed) for name, rows in selection.groupby("method")}
    assert chose["ddpm"] == chose["pddpm"] == set(benchmark.settings.seeds) != {0}
    assert chose["atlas"] == chose["intensity"] == {0}
    levels = selection[selection.timestep.isin(benchmark.settings.timesteps)]
    means = levels.groupby(["method", "timestep", "dataset"]).auprc.mean().groupby(["method", "timestep"]).mean()
    scores = pd.read_csv(benchmark.results / "scores.csv")
    for name in ("ddpm", "pddpm"):
        scored = scores[(scores.method == name) & (scores.noise_level == "validation")]
        assert set(scored.timestep) == {means[name].idxmax()}


def test_shipped_models_need_no_training_scans(tmp_path: Path) -> None:
    def splits(shipped: bool) -> list[str]:
        rows = Benchmark(load_settings("smoke"), shipped, tmp_path, tmp_path).rows_to_prepare
        return [row.split for row in rows]

    assert "train" not in splits(shipped=True) and set(splits(shipped=False)) == {"train", "val", "test"}
    assert splits(shipped=True) == [split for split in splits(shipped=False) if split != "train"]


def test_noise_level_is_the_best_on_validation() -> None:
    selection = pd.DataFrame(
        {
            "method": "ddpm",
            "timestep": [499, 499, 818, 818, 899, 899],
            "subject": "s",
            "dataset": ["a", "b"] * 3,
            "auprc": [0.2, 0.0, 0.3, 0.1, 0.9, 0.9],
        }
    )
    assert choose_timesteps(selection, load_settings("smoke")) == {"ddpm": 818}  # 899 is no candidate of the profile


def test_a_level_at_the_edge_of_the_grid_is_said() -> None:
    settings = load_settings("smoke", {"timesteps": [100, 499, 818]})
    chosen = {("ddpm", "a"): 100, ("ddpm", "b"): 100, ("pddpm", "a"): 818, ("pddpm", "b"): 499, ("mddpm", "a"): 499}
    first, last = levels_at_the_edge(chosen, settings)
    assert first.startswith("ddpm: validation chose the smallest noise level there is, 100; a better")
    assert last.startswith("pddpm: validation chose the largest noise level there is, 818 for a; a better")
    assert levels_at_the_edge({("ddpm", "a"): 499}, load_settings("smoke", {"timesteps": [499, 818]})) == []


def made_up_scores() -> pd.DataFrame:
    rows = []
    for method, level, gain in (("intensity", "none", 0.0), ("ddpm", "validation", 0.1), ("pddpm", "validation", 0.3)):
        for seed in [0] if method == "intensity" else [0, 1]:
            for number in range(6):
                for dataset in ("simulated-t2-tumour", "simulated-t2-healthy"):
                    ill = dataset.endswith("tumour")
                    rows.append(
                        {
                            "dataset": dataset,
                            "method": method,
                            "seed": seed,
                            "subject": f"{dataset}-{number}",
                            "noise_level": level,
                            "timestep": 499,
                            "rule": "healthy-quantile-0.99",
                            "auprc": gain + 0.01 * number + 0.02 * seed if ill else np.nan,
                            "scan_score": gain * ill,
                            "lesions": int(ill),
                            "lesions_detected": int(ill and number < 3),
                            "false_components": 2,
                        }
                    )
    return pd.DataFrame(rows)


def test_tables_average_seeds_within_subjects_and_pair_by_subject() -> None:
    scores = made_up_scores()
    row = summary_table(scores, "auprc").set_index("method").loc["pddpm"]
    assert row["mean"] == pytest.approx(0.3 + 0.025 + 0.01) and row.low < row["mean"] < row.high
    assert row.std_seeds == pytest.approx(0.02 / np.sqrt(2)) and (row.subjects, row.seeds) == (6, 2)
    difference = paired_table(scores, "auprc").iloc[0]
    assert difference["mean"] == pytest.approx(0.2) and difference.low == pytest.approx(0.2)
    assert difference.p_value == pytest.approx(2 / 2**6) and difference.p_holm == difference.p_value
    auroc = scan_auroc_table(scores).set_index("method").auroc
    assert auroc["pddpm"] == 1.0 and auroc["intensity"] == 0.5
    lesions = lesion_table(scores).set_index(["dataset", "method"]).loc[("simulated-t2-tumour", "ddpm")]
    assert lesions.lesions == 6 and lesions.sensitivity == 0.5 and lesions.false_components == 2
    text = headline_markdown(scores)
    assert "simulated-t2-tumour (n = 6)" in text and "0.200 [0.200, 0.200]" in text and "healthy" not in text


def test_a_method_that_was_left_out_is_no_error() -> None:
    scores = made_up_scores()
    text = headline_markdown(scores[scores.method != "ddpm"])
    assert METHOD_NAMES["ddpm"] not in text and METHOD_NAMES["pddpm"] in text


def test_published_models_are_what_detect_takes(benchmark: Benchmark, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pddm_utils.publish.cards.weights_root", lambda: tmp_path / "weights")
    folders = publish(benchmark.settings, benchmark.runs, benchmark.results)
    assert [folder.name for folder in folders] == ["simulated-t2-atlas", "simulated-t2-ddpm", "simulated-t2-pddpm"]
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == sorted(folder.name for folder in folders)
    scores, _ = read_results(benchmark.results)
    scan = prepare_scan(ManifestRow("s", "simulated:210003", "", "", "test", "simulated-t2-healthy", "T2"))
    nib.save(nib.Nifti1Image(scan.image.T, scan.affine), tmp_path / "scan.nii.gz")
    for folder, method in zip(folders[1:], ("ddpm", "pddpm"), strict=True):
        used = scores[(scores.method == method) & (scores.seed == 0) & (scores.noise_level == "validation")]
        for map_kind, key in (("residual", "thresholds"), ("z-score", "z_score_thresholds")):
            found = detect(tmp_path / "scan.nii.gz", contrast="T2", model=str(folder), map_kind=map_kind)
            assert found.timestep == used.timestep.iloc[0]
            assert found.threshold == json.loads((folder / "detection.json").read_text())[key]["healthy-quantile-0.99"]
        assert f"| noise level | index {found.timestep}, chosen" in (folder / "README.md").read_text()


def test_a_published_dae_is_what_detect_takes(monkeypatch, tmp_path: Path) -> None:
    """A model without noise: no level, no pipeline, one pass."""
    monkeypatch.setattr("pddm_utils.publish.cards.weights_root", lambda: tmp_path / "weights")
    settings = load_settings("smoke", TINY | {"methods": ["dae"], "seeds": [0], "train_steps": 1})
    made = Benchmark(settings, False, tmp_path / "runs", tmp_path / "results")
    run_benchmark(made)
    (folder,) = publish(settings, made.runs, made.results, suffix="-mine")
    assert folder.name == "simulated-t2-dae-mine" and "T2, mine\n" in (folder / "README.md").read_text()
    assert "| noise level | none |" in (folder / "README.md").read_text()
    scan = prepare_scan(ManifestRow("s", "simulated:210003", "", "", "test", "simulated-t2-healthy", "T2"))
    nib.save(nib.Nifti1Image(scan.image.T, scan.affine), tmp_path / "scan.nii.gz")
    found = detect(tmp_path / "scan.nii.gz", out=tmp_path / "out", contrast="T2", model=str(folder))
    facts = json.loads((folder / "detection.json").read_text())
    assert found.timestep is None and found.threshold == facts["thresholds"]["healthy-quantile-0.99"]
    assert "<td>noise level (timestep)</td><td>none</td>" in (tmp_path / "out" / "report.html").read_text()
    model = load_model(folder)
    np.testing.assert_array_equal(model.reconstruct(found.scan), found.prepared_reconstruction)
    with pytest.raises(InputError, match="no diffusion model"):
        model.pipeline  # noqa: B018
    (folder / "training.json").write_text("{")
    with pytest.raises(InputError, match="training.json: missing or damaged"):
        load_model(folder)


def test_publishing_what_was_not_trained_is_refused(capsys, tmp_path: Path) -> None:
    results = Path(__file__).parents[1] / "results" / "laptop"
    words = ["models", "--profile", "laptop", "--runs", str(tmp_path), "--results", str(results)]
    assert publish_main(words) == 2 and "not trained in" in capsys.readouterr().err
    assert publish_main([*words, "--methods", "dae"]) == 2
    assert "methods dae: no models that are shipped of profile laptop; choose among " in capsys.readouterr().err


def test_methods_scored_on_different_subjects_are_not_paired() -> None:
    scores = made_up_scores()
    scores = scores[~((scores.method == "ddpm") & (scores.subject == "simulated-t2-tumour-3"))]
    with pytest.raises(InputError, match="different subjects"):
        paired_table(scores, "auprc")


def test_missing_results_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="python -m pddm_utils benchmark"):
        read_results(tmp_path)


def test_mistyped_command_line_ends_with_one_line(capsys, tmp_path: Path) -> None:
    for words, message in [
        (["benchmark", "--profile", "smok", "--runs", str(tmp_path)], "error: profile 'smok' does not exist"),
        (["benchmark", "--profile", "smoke", "--set", "train_step=1", "--runs", str(tmp_path)], "unknown setting"),
        (["benchmark", "--profile", "smoke", "--set", "train_steps", "--runs", str(tmp_path)], "write NAME=VALUE"),
    ]:
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_real_profile_without_data_says_what_to_set(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("PDDM_DATA", raising=False)
    assert main(["benchmark", "--profile", "real", "--runs", str(tmp_path)]) == 2
    assert re.search(r"error: .*PDDM_DATA", capsys.readouterr().err)


def test_committed_results_carry_their_provenance() -> None:
    root = Path(__file__).parents[1] / "results"
    for name in ("laptop", "real"):
        scores, run = read_results(root / name)
        assert run["settings"]["profile"] == name and '"/' not in json.dumps(run)
        assert set(scores.method) == {"intensity", "ddpm", "pddpm"}


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "book/results.md",
        "book/model-cards.md",
        "book/validation_search.md",
        "book/recipe.md",
        "book/families.md",
    ],
)
def test_pages_say_what_the_result_files_say(page: str) -> None:
    root = Path(__file__).parents[1]
    text = (root / page).read_text(encoding="utf-8")
    assert "<!-- results:" in text and fill_marks(text, root / "results") == text


def test_unknown_mark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown mark results:auprk laptop"):
        fill_marks("<!-- results:auprk laptop -->\n<!-- /results -->", tmp_path)


@pytest.mark.parametrize(
    "given", [{"jobs": "two"}, {"jobs": 0}, {"jobs": 2.0}, {"folds": "5"}, {"folds": -1}, {"jobs": True}]
)
def test_numbers_of_a_wrong_type_are_refused_before_anything_is_done(given: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{next(iter(given))} .*; give a whole number from [01] on"):
        Benchmark(load_settings("smoke"), True, tmp_path / "runs", tmp_path / "results", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_unit_of_a_wrong_seed_or_noise_level_is_refused(tmp_path: Path) -> None:
    benchmark = Benchmark(load_settings("smoke"), False, tmp_path / "runs", tmp_path / "results")
    with pytest.raises(InputError, match="seed 'first'; give a whole number"):
        train_unit(benchmark, "pddpm", "first")
    with pytest.raises(InputError, match="noise_level 'author'; use validation, authors or none"):
        score_unit(benchmark, "pddpm", 0, "author")
    assert list(tmp_path.iterdir()) == []
