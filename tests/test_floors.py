"""The floors, which need no network: their maps on numbers, and that they pass as methods of the benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pddm_utils.benchmark.evaluate import map_scan
from pddm_utils.benchmark.units import models_needed, units_to_score
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache
from pddm_utils.data.scan import Scan
from pddm_utils.data.slices import HealthySlices
from pddm_utils.evaluation.metrics import average_precision, healthy_l1
from pddm_utils.evaluation.places import LARGEST_SCORE, SPREAD_OFFSET, HealthyPlaces
from pddm_utils.methods.blur import blurred_brain
from pddm_utils.methods.registry import FLOORS, METHODS, make_method, open_method, training_key
from pddm_utils.training.loop import read_training
from test_training import ArraySlices

TRAIN, VAL = (
    [ManifestRow(f"s{n}", f"simulated:{n}", "", "", "train", "mine", "T2") for n in ns] for ns in ((1, 2), (3,))
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> ScanCache:
    return ScanCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def atlas(cache: ScanCache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "atlas"
    make_method("atlas", load_settings("smoke")).fit(HealthySlices(TRAIN, cache), HealthySlices(VAL, cache), folder)
    return folder


def spotted(scan: Scan, change: float) -> Scan:
    """The scan with a brighter or darker ball in the middle of its brain, which is its lesion."""
    z, y, x = np.indices(scan.image.shape)
    centre = [int(axis.mean()) for axis in np.nonzero(scan.brain_mask)]
    ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= 49
    ball &= scan.brain_mask
    return replace(scan, image=np.clip(scan.image + change * ball, 0, 1).astype(np.float32), lesion_mask=ball)


def test_floors_are_methods_without_a_network() -> None:
    assert FLOORS == ("intensity", "atlas", "blur")
    assert all(not METHODS[name].noise_level and not METHODS[name].patched for name in FLOORS)


def test_atlas_is_the_signed_z_score_of_the_intensity_by_place(atlas: Path, cache: ScanCache) -> None:
    counted = HealthyPlaces()
    for row in TRAIN:
        scan = cache.load(row)
        counted.add(scan.image, scan.brain_mask)
    scan, method = cache.load(VAL[0]), open_method("atlas", load_settings("smoke"), folder=atlas)
    statistics = counted.statistics()
    mean, deviation = statistics.expected(scan.brain_mask), statistics.spread(scan.brain_mask)
    expected = ((scan.image - mean) / (deviation + SPREAD_OFFSET)).clip(min=0) / LARGEST_SCORE
    inside = scan.brain_mask
    rebuilt = method.reconstruct(scan)
    scores = method.score(scan, rebuilt)
    np.testing.assert_allclose(scores[inside], expected[inside], atol=2e-3)  # half precision
    np.testing.assert_allclose(rebuilt[inside], mean[inside], atol=1e-3)
    assert not rebuilt[~inside].any() and scores[inside].max() < 1 and (scores[inside] > 0).mean() < 0.7
    dark = method.score(replace(scan, contrast="T1"), rebuilt)
    assert ((dark > 0) & (scores > 0))[inside].sum() == 0  # the two contrasts look in opposite directions


def test_atlas_is_counted_once_for_every_seed_and_not_again(atlas: Path, cache: ScanCache) -> None:
    settings = load_settings("smoke")
    record = read_training(atlas)
    scan = cache.load(VAL[0])
    rebuilt = open_method("atlas", settings, folder=atlas).reconstruct(scan)
    loss = record["history"][0]["validation_loss"]
    assert loss == pytest.approx(healthy_l1(scan.image, rebuilt, scan.brain_mask), abs=1e-4)
    assert 0 < loss < healthy_l1(scan.image, np.zeros_like(rebuilt), scan.brain_mask)
    before = (atlas / "training.json").stat().st_mtime_ns
    make_method("atlas", settings, 7).fit(HealthySlices(TRAIN, cache), HealthySlices(VAL, cache), atlas)
    assert (atlas / "training.json").stat().st_mtime_ns == before
    longer = load_settings("smoke", {"train_steps": 99, "network": "laptop", "batch_size": 8})
    assert training_key(settings, "atlas", 0) == training_key(longer, "atlas", 3)
    both = load_settings("smoke", {"methods": ["intensity", "atlas", "blur"]})
    assert models_needed(both, [0, 1]) == [("atlas", 0)]
    assert units_to_score(both, [0, 1]) == [("blur", 0, "none"), ("atlas", 0, "none"), ("intensity", 0, "none")]


def test_atlas_refuses_what_it_cannot_count_or_open(tmp_path: Path) -> None:
    method = make_method("atlas", load_settings("smoke"))
    with pytest.raises(InputError, match="atlas learns from whole scans with their brain masks"):
        method.fit(ArraySlices(2), ArraySlices(2), tmp_path / "atlas")
    with pytest.raises(InputError, match="no such file; train atlas first"):
        method.open(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="not readable"):
        method.open(tmp_path)


def test_blur_leaves_a_constant_brain_alone_up_to_its_edge() -> None:
    mask = np.zeros((6, 40, 40), dtype=bool)
    mask[:, 5:30, 8:35] = True
    image = np.where(mask, 0.6, 0).astype(np.float32)
    np.testing.assert_allclose(blurred_brain(image, mask, 4.0), image, atol=1e-6)
    one = np.ascontiguousarray(image[:1]), np.ascontiguousarray(mask[:1])
    np.testing.assert_allclose(blurred_brain(*one, 4.0), one[0], atol=1e-6)  # a scan of one slice


@pytest.mark.parametrize("name", FLOORS)
def test_every_floor_looks_in_the_direction_of_the_contrast(name: str, atlas: Path, cache: ScanCache) -> None:
    method = open_method(name, load_settings("smoke"), folder=atlas)
    healthy = cache.load(VAL[0])
    for contrast, change in (("T2", 0.6), ("FLAIR", 0.6), ("T1", -0.6)):
        scan = replace(spotted(healthy, change), contrast=contrast)
        values = map_scan(method, scan)[1]
        opposite = map_scan(method, replace(spotted(healthy, -change), contrast=contrast))[1]
        lesion = scan.lesion_mask
        assert 0 <= values.min() and values.max() <= 1 and values.dtype == np.float32
        assert values[lesion].mean() > 3 * opposite[lesion].mean()
        assert average_precision(values, lesion) > 3 * lesion.sum() / scan.brain_mask.sum()
