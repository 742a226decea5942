"""Which map is scored: the residual's size, its part towards lesions, or the z-score of that by place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pddm_utils.benchmark.scoring import reference_rows, score_depends_on, scored
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings, load_settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.evaluation.places import LARGEST_SCORE, HealthyPlaces
from pddm_utils.methods.base import UnlearnedMethod
from pddm_utils.methods.intensity import IntensityThreshold


class Half(UnlearnedMethod):
    """Rebuilds half of every intensity."""

    def reconstruct(self, scan, timestep=None):
        return scan.image / 2


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings("smoke")


@pytest.fixture(scope="module")
def rows(settings: Settings):
    return cohort_rows(settings)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> ScanCache:
    return ScanCache(tmp_path_factory.mktemp("cache"))


def with_score(settings: Settings, score: str) -> Settings:
    return dataclasses.replace(settings, score=score, selection_slice_step=1)


def test_absolute_leaves_the_method_as_it_is_and_floors_keep_their_own(settings, rows, cache) -> None:
    method, floor = Half("dae"), IntensityThreshold("intensity")
    assert scored(method, with_score(settings, "absolute"), rows, cache, None) is method
    assert scored(floor, with_score(settings, "place"), rows, cache, None) is floor


def test_signed_keeps_what_speaks_of_lesions(settings, rows, cache) -> None:
    scan = load_scan(rows[0], cache)
    method = scored(Half("dae"), with_score(settings, "signed"), rows, cache, None)
    assert method.name == "dae"
    rebuilt = method.reconstruct(scan)
    np.testing.assert_array_equal(method.score(scan, rebuilt), scan.image - rebuilt)  # T2: brighter than rebuilt
    dark = dataclasses.replace(scan, contrast="T1")
    assert not method.score(dark, rebuilt).any()


def test_place_is_the_z_score_of_rebuilt_training_scans(settings, rows, cache) -> None:
    chosen = with_score(settings, "place")
    method = scored(Half("dae"), chosen, rows, cache, None)
    reference, seen = reference_rows(rows, cache, 1), HealthyPlaces()
    assert reference and {(row.split, row.lesion_mask) for row in reference} == {("train", "")}
    for row in reference:
        scan = load_scan(row, cache)
        seen.add(scan.image / 2, scan.brain_mask)
    test = load_scan(next(row for row in rows if row.split == "test"), cache)
    expected = seen.statistics().z_score(test.image / 2, test.brain_mask).clip(min=0) / LARGEST_SCORE
    np.testing.assert_allclose(method.score(test, test.image / 2), expected, rtol=1e-6)


def test_results_depend_on_the_score_and_on_the_scans_behind_it(settings, rows, cache) -> None:
    assert score_depends_on("ddpm", with_score(settings, "absolute"), rows, cache) == ({}, [])
    assert score_depends_on("atlas", with_score(settings, "place"), rows, cache) == ({}, [])
    assert score_depends_on("ddpm", with_score(settings, "signed"), rows, cache) == ({"score": "signed"}, [])
    more, reference = score_depends_on("ddpm", with_score(settings, "place"), rows, cache)
    assert more["score"] == "place" and reference == reference_rows(rows, cache, 1)


def test_another_score_is_refused() -> None:
    with pytest.raises(InputError, match="score='squared'"):
        load_settings("smoke", {"score": "squared"})


def test_a_run_scored_by_place_takes_other_parts_than_one_by_size(tmp_path: Path) -> None:
    from pddm_utils.benchmark.run import Benchmark, run_benchmark

    small = {"methods": ["intensity", "ddpm"], "train_steps": 2, "seeds": [0], "timesteps": [499, 818]}
    tables = {}
    for score in ("absolute", "place"):
        run = Benchmark(load_settings("smoke", small | {"score": score}), False, tmp_path / "runs", tmp_path / score)
        tables[score] = run_benchmark(run).set_index("method")
    same, other = ([tables[score].loc[name, "auprc"].to_numpy() for score in tables] for name in ("intensity", "ddpm"))
    np.testing.assert_array_equal(*same)
    assert not np.allclose(*other, equal_nan=True)
