"""The validation search: every form does what its name says, and the choice follows the rule."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import ndimage

from pddm_utils.__main__ import main
from pddm_utils.benchmark.figures import idea_figure
from pddm_utils.benchmark.studies import search as searching
from pddm_utils.benchmark.studies.forms import (
    above_other_side,
    brain_quantiles,
    intensity_score,
    match_quantiles,
    one_minus_ssim,
    over_edges,
    rank_sum,
    signed,
)
from pddm_utils.benchmark.studies.ideas import BASE_LINE, IDEAS, LATER_IDEAS, idea_map
from pddm_utils.benchmark.studies.rebuild import KeptRebuilds, Model, Rebuild, Reference, rebuild_scan
from pddm_utils.benchmark.studies.search import Search, look_at_test, run_search
from pddm_utils.benchmark.studies.search_tables import (
    chosen_ideas,
    idea_differences,
    ideas_markdown,
    outcome_markdown,
    read_search,
    table_digest,
)
from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.network import make_network
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, make_scheduler
from pddm_utils.evaluation.places import HealthyPlaces
from pddm_utils.evaluation.postprocess import anomaly_map, erode_in_plane
from pddm_utils.methods.base import subject_seed

ROOT = Path(__file__).parents[1]
SIZE = 32


@pytest.fixture
def scan() -> Scan:
    """Three slices of smooth tissue, brain but for a rim, a bright lesion on one side."""
    image = ndimage.gaussian_filter(np.random.default_rng(0).random((3, SIZE, SIZE)), 1).astype(np.float32)
    image = 0.2 + 0.4 * (image - image.min()) / np.ptp(image)
    brain, lesion = (np.zeros(image.shape, dtype=bool) for _ in range(2))
    brain[:, 2:-2, 2:-2] = lesion[:, 12:20, 6:12] = True
    image[lesion] += 0.3
    return Scan("s1", "simulated-t2-tumour", "T2", image * brain, brain, lesion, np.eye(4))


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    pipeline = PatchedReconstructionPipeline(
        make_network("smoke", SIZE).eval(), make_scheduler(), 16, 16, "gaussian", 800
    )
    return Model("pddpm", pipeline, 800)


def test_signed_residual_looks_the_way_lesions_do() -> None:
    image, rebuilt = np.array([[[0.9, 0.1]]]), np.array([[[0.5, 0.5]]])
    np.testing.assert_allclose(signed(image, rebuilt, "T2"), [[[0.4, 0]]])
    np.testing.assert_allclose(signed(image, rebuilt, "T1"), [[[0, 0.4]]])


def test_ssim_is_the_formula_at_a_pixel(scan: Scan) -> None:
    other = (scan.image * 0.7 + 0.1).astype(np.float64)
    assert one_minus_ssim(scan.image, scan.image).max() == pytest.approx(0, abs=1e-12)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = (volume[1, 11:22, 11:22].astype(np.float64) for volume in (scan.image, other))  # around (16, 16)
    mx, my = (window * x).sum(), (window * y).sum()
    vx, vy, vxy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum(), (window * (x - mx) * (y - my)).sum()
    ssim = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert one_minus_ssim(scan.image, other)[1, 16, 16] == pytest.approx((1 - ssim) / 2, rel=1e-4)


def test_edges_of_the_reconstruction_lower_the_score_and_only_within_the_slice() -> None:
    rebuilt = np.zeros((2, 8, 8))
    rebuilt[0, :, 4:] = 1
    scores = over_edges(np.ones(rebuilt.shape), rebuilt)
    assert scores[0, 4, 4] < 0.5 * scores[0, 4, 0] and scores[1].min() == pytest.approx(10)


def test_histograms_are_matched_inside_the_brain_and_order_is_kept(scan: Scan) -> None:
    wanted = np.linspace(0.3, 0.9, 101)
    matched = match_quantiles(scan.image, scan.brain_mask, wanted)
    np.testing.assert_allclose(brain_quantiles(matched, scan.brain_mask), wanted, atol=0.01)
    assert (matched[~scan.brain_mask] == scan.image[~scan.brain_mask]).all()
    before, after = (volume[scan.brain_mask] for volume in (scan.image, matched))
    assert (np.diff(after[np.argsort(before)]) >= -1e-6).all()


def test_what_is_on_both_sides_is_taken_away(scan: Scan) -> None:
    residual = np.zeros(scan.image.shape, dtype=np.float32)
    residual[:, 10, 8] = residual[:, 10, 23] = 0.5  # columns 2 to 29 are brain: 8 and 23 are mirror images
    residual[:, 20, 8] = 0.5
    found = above_other_side(residual, scan.brain_mask)
    assert found[:, 10].max() == 0 and (found[:, 20, 8] == 0.5).all() and np.count_nonzero(found) == 3
    blurred = above_other_side(residual, scan.brain_mask, 2.0)
    assert 0 < blurred[0, 10, 8] < 0.5


def test_ranks_count_both_scores_alike() -> None:
    mask = np.array([[[True, True, True, False]]])
    found = rank_sum(np.array([[[1.0, 2, 3, 9]]]), np.array([[[30.0, 20, 25, 9]]]), mask)
    np.testing.assert_allclose(found, [[[4 / 6, 3 / 6, 5 / 6, 0]]], rtol=1e-6)


def test_intensity_has_the_sign_of_the_contrast(scan: Scan) -> None:
    assert (intensity_score(scan) == scan.image).all()
    dark = intensity_score(dataclasses.replace(scan, contrast="T1"))
    assert (dark[~scan.brain_mask] == 0).all() and dark[1, 16, 8] < dark[1, 16, 20]


def test_healthy_places_know_mean_and_spread_of_a_place() -> None:
    rng, mask = np.random.default_rng(1), np.zeros((24, 48, 40), dtype=bool)
    mask[:, 4:44, 4:36] = True
    places = HealthyPlaces()
    left = np.arange(40) < 20
    for _ in range(30):
        places.add(np.where(left, 0.2, 0.0) + rng.normal(0, 0.1, mask.shape), mask)
    statistics = places.statistics()
    mean, deviation = statistics.expected(mask), statistics.spread(mask)
    assert mean[12, 24, 10] == pytest.approx(0.2, abs=0.03) and mean[12, 24, 30] == pytest.approx(0, abs=0.03)
    assert deviation[12, 24, 30] == pytest.approx(0.1, abs=0.02) and mean[12, 0, 10] == 0
    other = np.zeros((12, 96, 60), dtype=bool)  # another brain: the place goes with it
    other[:, 10:90, 10:50] = True
    assert statistics.expected(other)[6, 50, 20] == pytest.approx(0.2, abs=0.03)
    z = places.z_score(np.full(mask.shape, 0.5), mask)
    assert z[12, 24, 30] > z[12, 24, 10] > 0


def test_every_idea_makes_a_map_and_the_base_line_is_the_benchmarks(scan: Scan, model: Model) -> None:
    healthy = dataclasses.replace(scan, subject="h", image=scan.image * 0.9)
    places = HealthyPlaces()
    places.add(healthy.image - rebuild_scan(model, healthy, Rebuild()).image, healthy.brain_mask)
    reference = Reference(brain_quantiles(healthy.image, healthy.brain_mask), places)
    model = dataclasses.replace(model, reference=reference)
    needed = {one for idea in IDEAS for one in idea.rebuilds}
    cheap = {one: dataclasses.replace(one, steps=min(one.steps, 2)) for one in needed}
    volumes = {one: rebuild_scan(model, scan, cheap[one]).image for one in needed}
    maps = {
        idea.name: idea_map(idea, scan, [volumes[one] for one in idea.rebuilds], reference)
        for idea in (*IDEAS, *LATER_IDEAS)
    }
    assert len(maps) == len(IDEAS) + len(LATER_IDEAS)
    rebuilt = model.pipeline.reconstruct_volume(scan.image, scan.brain_mask, 800, subject_seed(scan))
    base = anomaly_map(scan.image, rebuilt, scan.brain_mask)
    np.testing.assert_allclose(maps[BASE_LINE], base, atol=1e-5)
    for name, found in maps.items():
        assert np.isfinite(found).all() and found.min() >= 0 and found.max() > 0, name
    raw = np.abs(scan.image - rebuilt) * erode_in_plane(scan.brain_mask)
    np.testing.assert_allclose(maps["no median filter"], raw, atol=1e-5)
    np.testing.assert_allclose(maps["squared"], base**2, atol=1e-5)  # a median keeps the order: nothing can change


def test_kept_reconstructions_cost_no_second_pass_and_matched_ones_see_the_training_histogram(
    scan: Scan, model: Model, tmp_path: Path, monkeypatch
) -> None:
    row = ManifestRow("s1", "simulated:1", "", "insert:tumour:1", "val", "simulated-t2-tumour", "T2")
    model = dataclasses.replace(model, reference=Reference(np.linspace(0.3, 0.9, 101), HealthyPlaces()))

    def volume(how: Rebuild) -> np.ndarray:
        return KeptRebuilds({"pddpm": model}, scan, tmp_path, row, 1)("pddpm", how).image

    plain, matched = volume(Rebuild()), volume(Rebuild(matched=True))
    np.testing.assert_allclose(plain, rebuild_scan(model, scan, Rebuild()).image, atol=1e-3)  # half precision
    assert matched[scan.brain_mask].mean() > plain[scan.brain_mask].mean()
    monkeypatch.setattr("pddm_utils.benchmark.studies.rebuild.rebuild_scan", lambda *_: pytest.fail("made again"))
    np.testing.assert_array_equal(volume(Rebuild(level=800)), plain)  # its own level
    with pytest.raises(pytest.fail.Exception):
        volume(Rebuild(draw=1))


def test_a_small_search_tries_chooses_and_looks_at_test(tmp_path: Path, monkeypatch) -> None:
    for name, value in {"METHODS": ("ddpm",), "REFERENCE_SUBJECTS": 2, "COHORTS": {"simulated-t2": "smoke"}}.items():
        monkeypatch.setattr(searching, name, value)
    kept = [idea for idea in IDEAS if idea.name in (BASE_LINE, "level 499", "signed", "histogram: scan to training")]
    monkeypatch.setattr(searching, "IDEAS", tuple(kept))
    search = Search(tmp_path / "results", tmp_path / "runs", ("simulated-t2",), slice_step=30, test_subjects=1)
    run_search(search)
    table, made = read_search(search.results, "ideas")
    assert list(table.columns) == ["cohort", "dataset", "subject", "method", "idea", "auprc", "lesion_share"]
    tried = {idea.name for idea in (*kept, *LATER_IDEAS)}
    assert set(table[table.method == "ddpm"].idea) == tried and made["settings"]["slice_step"] == 30
    assert table.groupby("idea").subject.count().nunique() == 1 and (table.method == "intensity").any()
    before = (search.results / "ideas.csv").read_bytes()
    run_search(search)
    assert (search.results / "ideas.csv").read_bytes() == before
    look_at_test(dataclasses.replace(search, slice_step=30))
    test, _ = read_search(search.results, "test")
    assert BASE_LINE in set(test.idea) and not set(test.subject) & set(table.subject)


def made_up(gains: dict[str, float], noise: float = 0.01) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "cohort": "c",
                "dataset": f"c-{kind}",
                "subject": f"s{number}",
                "method": method,
                "idea": idea,
                "auprc": 0.3 + 0.02 * number + gain + noise * rng.normal(),
                "lesion_share": 0.01,
            }
            for method, ideas in (("intensity", {"intensity": 0.0}), ("ddpm", gains))
            for idea, gain in ideas.items()
            for kind in ("tumour", "ms")
            for number in range(6)
        ]
    )


def test_the_rule_takes_the_best_mean_if_its_interval_is_above_zero() -> None:
    assert list(chosen_ideas(made_up({BASE_LINE: 0.0, "a": 0.05, "b": 0.1})).idea) == ["b"]
    assert list(chosen_ideas(made_up({BASE_LINE: 0.0, "a": -0.05})).idea) == [BASE_LINE]
    assert list(chosen_ideas(made_up({BASE_LINE: 0.0, "a": -0.05, LATER_IDEAS[0].name: 0.1})).idea) == [BASE_LINE]
    unsure = made_up({BASE_LINE: 0.0, "a": 0.0}, noise=0.0)  # better on average, thanks to one subject
    gain = np.where(unsure.subject == "s0", 0.6, -0.05)
    choice = chosen_ideas(unsure.assign(auprc=unsure.auprc + np.where(unsure.idea == "a", gain, 0))).iloc[0]
    assert (choice.idea, choice.best) == (BASE_LINE, "a") and choice["mean"] > 0 > choice.low


def test_copies_of_one_scan_are_one_subject() -> None:
    differences = idea_differences(made_up({BASE_LINE: 0.0, "a": 0.05})).set_index("idea")
    assert differences.loc["a", "subjects"] == 6 and differences.loc["a", "mean"] == pytest.approx(0.05, abs=0.01)
    assert np.isnan(differences.loc[BASE_LINE, "p_holm"])


def test_tables_name_every_idea_and_every_patient() -> None:
    table = made_up({BASE_LINE: 0.0, "a": 0.05})
    lines = ideas_markdown(table, "c").splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [BASE_LINE, "a", "intensity threshold, no model"]
    assert "**" in lines[3] and "**" not in lines[2]
    assert "c-ms (n = 6)" in outcome_markdown(table)
    few = outcome_markdown(table[table.subject.isin(["s0", "s1"])])
    assert "s0 MS" in few and "s1 TUMOUR" in few


def test_bad_requests_end_with_one_line(tmp_path: Path, capsys) -> None:
    with pytest.raises(InputError, match="cohorts ixi; choose among simulated-t2, ixi-t1"):
        Search(tmp_path, tmp_path, ("ixi",))
    with pytest.raises(InputError, match="python -m pddm_utils validation-search"):
        look_at_test(Search(tmp_path / "results", tmp_path / "runs"))
    assert main(["validation-search", "--cohorts", "ixi", "--runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_committed_tables_are_of_this_code_and_the_picture_shows_them() -> None:
    ideas, made = read_search(ROOT / "results" / "validation", "ideas")
    assert set(ideas.idea) - {"intensity"} <= {idea.name for idea in (*IDEAS, *LATER_IDEAS)} and made["git_commit"]
    assert not ideas.duplicated(["cohort", "dataset", "subject", "method", "idea"]).any()
    test, _ = read_search(ROOT / "results" / "validation", "test")
    assert not set(test.subject) & set(ideas.subject)
    choice = chosen_ideas(ideas)
    for row in choice.itertuples():
        tested = test[(test.cohort == row.cohort) & (test.method == row.method)]
        assert set(tested.idea) == {BASE_LINE, row.idea}
    picture = Image.open(ROOT / "book" / "figures" / "validation_search.png")
    assert picture.text["Source"] == table_digest(ideas)
    figure = idea_figure(ideas)
    assert [axes.get_title() for axes in figure.axes] == list(ideas.cohort.unique())
