"""Healthy residuals by place: the file beside a model says what was counted, and the z-score map follows from it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pddm_utils.benchmark.store import weights_digest
from pddm_utils.core.errors import InputError
from pddm_utils.core.shipped import HEALTHY_PLACES, stored_parameters, weights_folder, weights_root
from pddm_utils.data.scan import Scan
from pddm_utils.detection.z_score import lesion_z_score, z_score_map, z_score_thresholds
from pddm_utils.evaluation.places import GRID, HealthyPlaces, PlaceStatistics
from pddm_utils.evaluation.postprocess import erode_in_plane

SHAPE = (20, 40, 36)
MOST_BYTES = 40_000_000  # of all weights together


def scan_of(image: np.ndarray, contrast: str = "T2") -> Scan:
    brain = np.zeros(image.shape, dtype=bool)
    brain[1:-1, 4:-4, 3:-3] = True
    return Scan("s", "simulated", contrast, (image * brain).astype(np.float32), brain, np.zeros_like(brain), np.eye(4))


def healthy(seed: int) -> tuple[Scan, np.ndarray]:
    """A scan and a reconstruction that is 0.1 too dark and as noisy on the left as nowhere else."""
    noise = np.random.default_rng(seed).normal(0, 1, SHAPE)
    scan = scan_of(np.full(SHAPE, 0.5))
    rebuilt = scan.image - 0.1 + noise * np.where(np.arange(SHAPE[2]) < 18, 0.1, 0.01)
    return scan, (rebuilt * scan.brain_mask).astype(np.float32)


@pytest.fixture(scope="module")
def places() -> HealthyPlaces:
    counted = HealthyPlaces()
    for seed in range(8):
        scan, rebuilt = healthy(seed)
        counted.add(scan.image - rebuilt, scan.brain_mask)
    return counted


def test_file_says_what_was_counted_to_half_precision(places: HealthyPlaces, tmp_path: Path) -> None:
    path = tmp_path / HEALTHY_PLACES
    places.statistics().save(path)
    scan, rebuilt = healthy(99)
    residual = scan.image - rebuilt
    again = PlaceStatistics.load(path)
    np.testing.assert_allclose(
        again.z_score(residual, scan.brain_mask), places.z_score(residual, scan.brain_mask), atol=0.01
    )
    assert again.z_score(residual, scan.brain_mask).std() > 0.1 and path.stat().st_size < 200_000
    assert [p.name for p in tmp_path.iterdir()] == [HEALTHY_PLACES]


def test_files_that_cannot_be_used_are_refused(places: HealthyPlaces, tmp_path: Path) -> None:
    path = tmp_path / HEALTHY_PLACES
    for content in (None, b"", b"no safetensors"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(
            InputError, match=f"{HEALTHY_PLACES}: not readable .*; .*python -m pddm_utils.publish models"
        ):
            PlaceStatistics.load(path)
    for stored in ({"mean": np.zeros(GRID)}, {"mean": np.zeros((2, 2)), "deviation": np.zeros(GRID)}):
        save_file(stored, path)
        with pytest.raises(InputError, match="does not hold a mean and a deviation on a grid"):
            PlaceStatistics.load(path)


def test_map_is_in_healthy_deviations_and_in_the_direction_of_lesions(places: HealthyPlaces) -> None:
    statistics = places.statistics()
    scan, _ = healthy(0)
    brighter = scan.image - 0.1 - 0.2  # 0.2 above what healthy scans have
    values = z_score_map(scan, brighter, statistics)
    assert values[10, 20, 8] == pytest.approx(0.2 / 0.12, rel=0.3) and values[10, 20, 28] > 2 * values[10, 20, 8]
    assert not values[~erode_in_plane(scan.brain_mask)].any() and values.dtype == np.float32
    dark = replace(scan, contrast="T1")
    assert not z_score_map(dark, brighter, statistics).any()
    assert lesion_z_score(dark, scan.image - 0.1 + 0.2, statistics)[10, 20, 28] > 2


def test_thresholds_let_their_share_of_healthy_voxels_pass(places: HealthyPlaces) -> None:
    pairs, statistics = [healthy(seed) for seed in range(20, 24)], places.statistics()
    thresholds = z_score_thresholds(pairs, statistics)
    for rule, share in {"healthy-quantile-0.95": 0.05, "healthy-quantile-0.99": 0.01}.items():
        above = [
            (z_score_map(*pair, statistics) > thresholds[rule])[erode_in_plane(pair[0].brain_mask)].mean()
            for pair in pairs
        ]
        assert np.mean(above) == pytest.approx(share, rel=0.05)
    with pytest.raises(InputError, match="no healthy validation scan"):
        z_score_thresholds([], statistics)


def test_every_shipped_model_has_its_places_and_all_of_them_stay_small() -> None:
    folders = [path.parent for path in weights_root().glob("*/detection.json")]
    assert folders and all(PlaceStatistics.load(folder / HEALTHY_PLACES).deviation.min() > 0 for folder in folders)
    assert sum(path.stat().st_size for path in weights_root().rglob("*") if path.is_file()) < MOST_BYTES


def test_places_are_no_weights(tmp_path: Path) -> None:
    folder = weights_folder("simulated-t2-pddpm")
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / HEALTHY_PLACES).unlink()
    assert stored_parameters(tmp_path / "model") == stored_parameters(folder)
    assert weights_digest(tmp_path / "model") == weights_digest(folder)
