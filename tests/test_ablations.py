"""Ablations: what is changed changes, what is not stays, and finished tables are not made again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from pddm_utils.__main__ import main
from pddm_utils.benchmark.figures import draw_curves, draw_variants, variants_figure
from pddm_utils.benchmark.studies.ablation_tables import (
    against_reference,
    difference_lines,
    mean_table,
    paired_line,
    read_ablation,
    threshold_rules,
    trained_markdown,
    training_budget,
)
from pddm_utils.benchmark.studies.ablations import NAMES, Ablations, run_ablations
from pddm_utils.benchmark.studies.questions import (
    box_placement,
    box_size_and_stride,
    healthy_thresholds,
    lesion_size_and_contrast,
    map_scores,
    noise_kind,
    noise_level,
    overlap_scores,
    placement_scores,
    post_processing,
    processed_map,
    processing_scores,
    reverse_steps,
    size_scores,
    uncovered_share,
    visible_context,
)
from pddm_utils.benchmark.studies.rebuild import (
    Model,
    Rebuild,
    Rebuilds,
    pasted,
    rebuild_scan,
    scattered_boxes,
)
from pddm_utils.benchmark.studies.study import Study, Variant
from pddm_utils.benchmark.studies.tumours import SetTumour
from pddm_utils.benchmark.tables import read_results
from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import Scan
from pddm_utils.data.sources.simulated import simulated_rows
from pddm_utils.diffusion.boxes import Boxes, BoxGrid, grid_boxes
from pddm_utils.diffusion.network import make_network
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, make_scheduler
from pddm_utils.evaluation.metrics import average_precision
from pddm_utils.evaluation.postprocess import anomaly_map, erode_in_plane
from pddm_utils.evaluation.thresholds import healthy_quantile
from pddm_utils.methods.base import subject_seed
from pddm_utils.methods.registry import METHOD_COLOURS

SIZE = 32
ROOT = Path(__file__).parents[1]


def model(name: str, box: int, timestep: int) -> Model:
    torch.manual_seed(len(name))
    network = make_network("smoke", SIZE).eval()
    pipeline = PatchedReconstructionPipeline(network, make_scheduler(), box, box, "gaussian", timestep)
    return Model(name, pipeline, timestep)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {"ddpm": model("ddpm", SIZE, 700), "pddpm": model("pddpm", 16, 800)}


@pytest.fixture
def scan() -> Scan:
    """Three slices of random tissue, brain but for a rim, a bright lesion in all of them."""
    image = np.random.default_rng(0).uniform(0.2, 0.6, (3, SIZE, SIZE)).astype(np.float32)
    brain, lesion = (np.zeros(image.shape, dtype=bool) for _ in range(2))
    brain[:, 2:-2, 2:-2] = lesion[:, 12:20, 10:18] = True
    image[lesion] += 0.3
    return Scan("s1", "simulated-t2-tumour", "T2", image * brain, brain, lesion, np.eye(4))


def rebuilt(model: Model, scan: Scan, **changes) -> np.ndarray:
    return rebuild_scan(model, scan, Rebuild(**changes)).image


def table_of(variants: list[Variant], models: dict[str, Model], scan: Scan, score=map_scores) -> pd.DataFrame:
    """The rows of one scan."""
    rebuilds = Rebuilds(models, scan)
    return pd.DataFrame([{"method": one.model, **one.columns, **score(one, rebuilds)} for one in variants])


def test_defaults_give_what_the_pipeline_gives(models, scan: Scan) -> None:
    for one in models.values():
        expected = one.pipeline.reconstruct_volume(scan.image, scan.brain_mask, one.timestep, subject_seed(scan))
        np.testing.assert_allclose(rebuilt(one, scan), expected, atol=1e-6)


def test_patched_weights_on_one_box_are_a_whole_image_model(models, scan: Scan) -> None:
    pipeline = models["pddpm"].pipeline
    whole = PatchedReconstructionPipeline(pipeline.unet, pipeline.scheduler, SIZE, SIZE, "gaussian", 800)
    expected = whole.reconstruct_volume(scan.image, scan.brain_mask, seed=subject_seed(scan))
    np.testing.assert_allclose(rebuilt(models["pddpm"], scan, box=SIZE), expected, atol=1e-6)


@pytest.mark.parametrize("noise", ["gaussian", "simplex"])
def test_shared_noise_is_shared(models, scan: Scan, noise: str) -> None:
    same = dataclasses.replace(scan, image=np.repeat(scan.image[:1], 3, axis=0))
    shared = rebuilt(models["ddpm"], same, noise=noise, shared=True)
    np.testing.assert_allclose(shared[1:], shared[:-1], atol=1e-6)
    own = rebuilt(models["ddpm"], same, noise=noise)
    assert np.abs(own[1] - own[0]).mean() > 1e-4
    assert not np.allclose(rebuilt(models["ddpm"], same, noise=noise, draw=1), own)


def test_overlaps_are_averaged_or_pasted(models, scan: Scan) -> None:
    boxes = Boxes(torch.tensor([[0, 0, 16, 16], [8, 8, 16, 16]]), torch.tensor([1, 1]))
    made = rebuild_scan(models["pddpm"], scan, Rebuild(), boxes)
    first, second = (made.predictions[:, 0].numpy() + 1) / 2
    mean, last = made.image, pasted(scan, made)
    np.testing.assert_allclose(mean[1, 8:16, 8:16], (first + second)[8:16, 8:16] / 2, atol=1e-6)
    np.testing.assert_allclose(last[1, 8:24, 8:24], second[8:24, 8:24], atol=1e-6)
    np.testing.assert_allclose(last[1, :8, :16], first[:8, :16], atol=1e-6)
    for volume in (mean, last):  # where no box is, the scan
        np.testing.assert_allclose(volume[[0, 2]], scan.image[[0, 2]], atol=1e-6)
        np.testing.assert_allclose(volume[1, 24:], scan.image[1, 24:], atol=1e-6)


@torch.no_grad()
def test_steps_back_keep_the_context_clean(models, scan: Scan) -> None:
    boxes = Boxes(torch.tensor([[4, 4, 16, 16]]), torch.tensor([0]))
    pipeline, clean = models["pddpm"].pipeline, torch.from_numpy(scan.image[:1])[None] * 2 - 1
    abar = pipeline.scheduler.alphas_cumprod
    noise = torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(subject_seed(scan)))
    seen, inside = clean.clone(), (..., slice(4, 20), slice(4, 20))
    state = abar[799].sqrt() * clean + (1 - abar[799]).sqrt() * noise
    for now, after in ((799, abar[399]), (399, torch.tensor(1.0))):
        seen[inside] = state[inside]
        x0 = pipeline.unet(seen, now).sample.clamp(-1, 1)
        state = after.sqrt() * x0 + (1 - after).sqrt() * (state - abar[now].sqrt() * x0) / (1 - abar[now]).sqrt()
    made = rebuild_scan(models["pddpm"], scan, Rebuild(level=799, steps=2), boxes)
    torch.testing.assert_close(made.predictions[inside], state[inside], atol=1e-4, rtol=0)
    assert made.passes == 2


def test_ensemble_is_the_mean_of_the_residuals(models, scan: Scan) -> None:
    table = table_of(noise_level(models, (300, 600), (300, 600)), models, scan).set_index(["method", "levels"])
    for name, one in models.items():
        residuals = [np.abs(scan.image - rebuilt(one, scan, level=level)) for level in (300, 600)]
        mean = anomaly_map(np.mean(residuals, axis=0), np.zeros_like(scan.image), scan.brain_mask)
        row = table.loc[name, "300+600"]
        assert row.auprc == pytest.approx(average_precision(mean, scan.lesion_mask))
        assert row.passes == table.loc[name, ["300", "600"], :].passes.sum() and row.timestep == -1
    alone = table_of(noise_level(models, (300,), (300,)), models, scan)
    assert alone.groupby("method").auprc.nunique().eq(1).all()


def test_scattered_boxes_and_what_they_leave_out(scan: Scan) -> None:
    boxes = scattered_boxes(scan, 16, 2)
    assert boxes.slice_index.tolist() == [0, 0, 1, 1, 2, 2]
    covered = np.zeros(scan.image.shape, dtype=bool)
    for (top, left, height, width), index in zip(boxes.rows.tolist(), boxes.slice_index.tolist(), strict=True):
        assert (height, width) == (16, 16) and 0 <= top <= 16 and 0 <= left <= 16
        covered[index, top : top + 16, left : left + 16] = True
    assert uncovered_share(boxes, scan) == pytest.approx((~covered)[scan.brain_mask].mean())
    assert uncovered_share(grid_boxes(BoxGrid(SIZE, 16), torch.from_numpy(scan.brain_mask)[:, None]), scan) == 0


def test_tables_name_every_variant_once(models, scan: Scan) -> None:
    grids = box_size_and_stride(models, [(8, 8), (16, 16), (16, 8)])
    boxes = table_of(grids, models, scan, overlap_scores)
    assert list(zip(boxes.box_size, boxes.stride, boxes.overlap, boxes.passes, strict=True)) == [
        (8, 8, "mean", 48),
        (16, 16, "mean", 12),
        (16, 8, "mean", 27),
        (16, 8, "last", 27),
    ]
    assert boxes.auprc[2] != boxes.auprc[3]
    placed = table_of(box_placement(models), models, scan, placement_scores)
    assert list(zip(placed.placement, placed.boxes, strict=True)) == [
        ("grid", 4),
        ("random", 4),
        ("grid", 9),
        ("random", 9),
    ]
    assert placed[placed.placement == "grid"].uncovered.eq(0).all() and placed.uncovered.max() > 0
    kinds = table_of(noise_kind(models), models, scan)
    assert not kinds.duplicated(["method", "noise", "fields"]).any() and len(kinds) == 8
    steps = table_of(reverse_steps(models), models, scan).set_index(["method", "steps"]).passes
    assert steps["pddpm", 10] == 10 * steps["pddpm", 1] == 120
    reference = boxes.set_index("stride").loc[16].auprc
    assert placed.auprc[0] == kinds[kinds.method == "pddpm"].auprc.iloc[0] == pytest.approx(reference)


def test_visible_context_at_equal_compute(models, scan: Scan) -> None:
    table = table_of(visible_context(models), models, scan)
    once = table[table.draws == 1]
    assert not once.duplicated(["method", "noised", "timestep"]).any() and len(once) == 8
    assert set(once.timestep) == {700, 800}
    several = table[table.draws > 1].set_index("average")
    patched = once[(once.method == "pddpm") & (once.noised == "box")]
    assert (several.method == "ddpm").all() and set(several.passes) == set(patched.passes)
    mean = np.mean([rebuilt(models["ddpm"], scan, draw=draw) for draw in range(4)], axis=0)
    expected = average_precision(anomaly_map(scan.image, mean, scan.brain_mask), scan.lesion_mask)
    assert several.auprc["reconstructions"] == pytest.approx(expected)
    assert several.auprc["residuals"] != several.auprc["reconstructions"]


def test_what_several_variants_need_is_made_once(models, scan: Scan) -> None:
    rebuilds = Rebuilds(models, scan)
    assert rebuilds("pddpm", Rebuild()) is rebuilds("pddpm", Rebuild(level=800, box=16, stride=16, noise="gaussian"))
    assert rebuilds("pddpm", Rebuild()) is not rebuilds("pddpm", Rebuild(draw=1))


def test_post_processing_switches(models, scan: Scan) -> None:
    volume = rebuilt(models["ddpm"], scan)
    np.testing.assert_array_equal(processed_map(scan, volume), anomaly_map(scan.image, volume, scan.brain_mask))
    raw = processed_map(scan, volume, erosion=False, median=False)
    np.testing.assert_array_equal(raw, np.abs(scan.image - volume) * scan.brain_mask)
    healthy = dataclasses.replace(scan, subject="s2", lesion_mask=np.zeros_like(scan.lesion_mask))
    thresholds = {tuple(key): threshold for *key, threshold in healthy_thresholds(models, [healthy])}
    assert len(thresholds) == 12
    again = rebuilt(models["ddpm"], healthy)
    values = processed_map(healthy, again)[erode_in_plane(healthy.brain_mask)]
    assert thresholds["ddpm", True, True] == healthy_quantile([values], 0.99)
    scored = table_of(post_processing(models), models, scan, partial(processing_scores, thresholds))
    assert len(scored) == 16
    assert scored.groupby(["method", "erosion", "median"]).auprc.nunique().eq(1).all()
    fewer = scored.pivot_table(index=["method", "erosion", "median"], columns="components", values="false_components")
    assert (fewer[True] <= fewer[False]).all()


def test_tumours_have_the_size_and_contrast_that_were_set(models) -> None:
    row = ManifestRow("s", "simulated:210003", "", "insert:tumour:210003", "test", "simulated-t2-tumour", "T2")
    set_to = [SetTumour(8.0, 0.4), SetTumour(16.0, 0.4), SetTumour(16.0, 0.9)]
    small, large, bright = (tumour.scan(row) for tumour in set_to)
    for tumour, scan in zip(set_to[:2], (small, large), strict=True):
        sphere = 4 / 3 * np.pi * (tumour.radius_mm / 2) ** 3
        assert scan.lesion_mask.sum() == pytest.approx(sphere, rel=0.35)
    np.testing.assert_array_equal(bright.lesion_mask, large.lesion_mask)
    means = [scan.image[scan.lesion_mask].mean() for scan in (large, bright)]
    assert means[1] > means[0] + 0.1
    cut = {name: np.ascontiguousarray(getattr(small, name)[30:32, 32:64, 32:64]) for name in ("image", "brain_mask")}
    crop = dataclasses.replace(small, **cut, lesion_mask=np.ones((2, 32, 32), dtype=bool))
    thresholds = {(name, True, True): 0.5 for name in ("intensity", "ddpm", "pddpm")}
    table = table_of(lesion_size_and_contrast(models), models, crop, partial(size_scores, thresholds))
    assert list(table.method) == ["intensity", "ddpm", "pddpm"] and table.detected.between(0, 1).all()


def test_a_study_has_a_row_for_every_scan_and_variant(tmp_path: Path) -> None:
    row = next(row for row in simulated_rows("T2", 0, 0, 0, 1) if row.inserted_lesion)
    tumours = (SetTumour(8.0, 0.4), SetTumour(16.0, 0.9))
    scored = []

    def score(variant: Variant, rebuilds: Rebuilds) -> dict[str, float]:
        scored.append(variant)
        return {"value": float(rebuilds.scan.lesion_mask.sum()), "slices": len(rebuilds.scan.image)}

    def study(slice_step: int) -> Study:
        scans = [(row, tumour) for tumour in tumours]
        return Study("q", {}, [Variant("intensity", {"a": a}) for a in (1, 2)], scans, score, slice_step)

    table = study(40).table(tmp_path)
    assert list(zip(table.radius_mm, table.a, strict=True)) == [(8.0, 1), (8.0, 2), (16.0, 1), (16.0, 2)]
    assert list(table.columns) == ["dataset", "subject", "method", "a", "radius_mm", "contrast", "value", "slices"]
    pd.testing.assert_frame_equal(study(40).table(tmp_path), table)
    assert len(scored) == 4  # the second time from disk
    study(30).table(tmp_path)
    assert len(scored) == 8


def made_up() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "dataset": "d",
                "method": "pddpm",
                "subject": f"s{n}",
                "noise": noise,
                "strength": strength,
                "auprc": 0.1 * n + gain,
            }
            for n in range(6)
            for noise, strength, gain in (("a", 1, 0.0), ("b", 2, 0.05))
        ]
    )


def test_means_and_differences_are_over_subjects() -> None:
    means = mean_table(made_up(), ["method", "noise"]).set_index("noise")
    assert means.loc["b", "mean"] == pytest.approx(0.3) and means.loc["b", "subjects"] == 6
    assert means.loc["b", "low"] < 0.3 < means.loc["b", "high"]
    difference = against_reference(made_up(), "noise", "a").iloc[0]
    assert difference["mean"] == pytest.approx(0.05) == difference.low and difference.p_value == pytest.approx(2 / 2**6)
    with pytest.raises(InputError, match="several rows"):
        mean_table(made_up(), ["method"])
    with pytest.raises(InputError, match="no noise 'c'"):
        against_reference(made_up(), "noise", "c")


def test_differences_in_words() -> None:
    lines = difference_lines(made_up(), "noise", "a").splitlines()
    assert lines == ["AUPRC minus that of 'a':", "pDDPM, patched, b: +0.050 [+0.050, +0.050], better"]
    few = made_up()[made_up().subject.isin(made_up().subject.unique()[:3])]
    assert "too few subjects" in difference_lines(few, "noise", "a")
    first = made_up()[made_up().noise == "a"]
    line = paired_line(pd.concat([first, first.assign(method="ddpm", auprc=first.auprc - 0.1)]), "pddpm", "ddpm")
    assert line.startswith("pDDPM, patched 0.250, DDPM") and "difference +0.100 [+0.100, +0.100]" in line


def test_figures_draw_the_means() -> None:
    _, (left, right) = plt.subplots(1, 2)
    means = draw_curves(left, made_up(), "strength")
    line = left.lines[0]
    assert line.get_color() == METHOD_COLOURS["pddpm"] and left.get_ylim()[0] == 0
    np.testing.assert_allclose(line.get_data(), [[1, 2], [0.25, 0.3]])
    drawn = draw_variants(right, made_up(), ["noise"])
    assert [text.get_text() for text in right.get_yticklabels()] == ["a", "b"], "one method"
    both = pd.concat([made_up(), made_up().assign(method="ddpm")])
    labels = [text.get_text() for text in variants_figure(both, ["noise"]).axes[0].get_yticklabels()]
    assert labels[0] == "pDDPM, patched\na" and len(labels) == 4
    diamonds = [line.get_xdata()[0] for line in right.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(diamonds, drawn["mean"])
    np.testing.assert_allclose(means["mean"], drawn["mean"])
    plt.close("all")


def test_what_the_benchmark_tells_without_a_new_run() -> None:
    scores, run = read_results(ROOT / "results" / "laptop")
    rules = threshold_rules(scores)
    oracle = rules[rules.rule == "oracle"]
    assert (oracle.of_oracle == 1).all() and not oracle.duplicated(["dataset", "method"]).any()
    budget = training_budget(scores, run)
    assert not budget.duplicated(["dataset", "method", "seed"]).any() and set(budget.method) == {"ddpm", "pddpm"}
    row = budget[(budget.dataset == "simulated-t2-tumour") & (budget.method == "pddpm") & (budget.seed == 0)].iloc[0]
    used = scores[
        (scores.dataset == row.dataset)
        & (scores.method == "pddpm")
        & (scores.seed == 0)
        & (scores.noise_level == "validation")
    ]
    assert row["mean"] == pytest.approx(used.groupby("subject").auprc.first().mean())
    assert row.cpu_minutes * 60 == pytest.approx(run["models"]["pddpm-seed0"]["cpu_seconds"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Ablations:
    folder = tmp_path_factory.mktemp("ablations")
    made = Ablations(folder / "results", folder / "runs", ROOT / "results" / "laptop", subjects=3, slice_step=60)
    assert [path.name for path in run_ablations(made, ["noise_kind", "threshold_rules"])] == [
        "noise_kind.csv",
        "threshold_rules.csv",
    ]
    return made


def test_what_is_there_is_not_made_again(finished: Ablations) -> None:
    assert run_ablations(finished, ["noise_kind", "threshold_rules"]) == []
    table, made = read_ablation(finished.results, "noise_kind")
    assert table.subject.nunique() == 2 == made["settings"]["subjects"]  # half of three, rounded up
    assert made["git_commit"] is not None and made["packages"]["torch"] and made["hardware"]["cores"]


def test_killed_between_parts_it_goes_on(finished: Ablations) -> None:
    table = finished.results / "noise_kind.csv"
    before = table.read_text().splitlines()
    table.unlink()
    lost, *kept = sorted((finished.runs / "parts").glob("ablation-noise_kind-*"))
    assert len(kept) == 2 * 8 - 1  # subjects, variants
    lost.unlink()
    stamps = [path.stat().st_mtime_ns for path in kept]
    assert run_ablations(finished, ["noise_kind"]) == [table]
    assert [path.stat().st_mtime_ns for path in kept] == stamps and lost.is_file()
    after = table.read_text().splitlines()
    assert [line.rsplit(",", 1)[0] for line in after] == [line.rsplit(",", 1)[0] for line in before]  # but for seconds


def test_other_settings_make_another_table(finished: Ablations, tmp_path: Path) -> None:
    fewer = dataclasses.replace(finished, subjects=1, results=shutil.copytree(finished.results, tmp_path / "results"))
    assert run_ablations(fewer, ["noise_kind"]) == [fewer.results / "noise_kind.csv"]
    assert read_ablation(fewer.results, "noise_kind")[0].subject.nunique() == 1


def test_table_of_trainings_has_a_column_for_each_patient_of_a_small_data_set() -> None:
    rows = [
        ("ixi-t1-tumour", f"s{number}", name, level, 0.1 * number + gain)
        for name, gain in (("real", 0.0), ("other", 0.25))
        for number in range(5)
        for level in ("validation", "authors")
    ]
    rows += [("mslub-t2", "p1", name, "validation", value) for name, value in (("real", 0.5), ("other", 0.001))]
    table = pd.DataFrame(rows, columns=["dataset", "subject", "variant", "noise_level", "auprc"])
    head, _, first, second = trained_markdown(table).splitlines()
    assert head == "| training | ixi-t1-tumour (n = 5) | p1 T2 | minus real, ixi-t1-tumour |"
    assert first == "| real | 0.200 | 0.500 | – |"
    assert second == "| other | 0.450 | 0.0010 | 0.250 [0.250, 0.250] |"


def test_bad_requests_end_with_one_line(capsys, tmp_path: Path) -> None:
    words = ["ablations", "--results", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    for extra, message in [
        (["--questions", "boxes"], "choose among visible_context"),
        (["--subjects", "0"], "subjects=0; it must be at least 1"),
        (["--benchmark", str(tmp_path), "--questions", "threshold_rules"], "python -m pddm_utils benchmark"),
    ]:
        assert main([*words, *extra]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())
    with pytest.raises(InputError, match="python -m pddm_utils ablations"):
        read_ablation(tmp_path, "noise_kind")


def test_committed_tables_carry_their_provenance() -> None:
    results = ROOT / "results" / "ablations"
    for name in NAMES:
        table, made = read_ablation(results, name)
        assert len(table) and made["git_commit"] and '"/' not in json.dumps(made)
