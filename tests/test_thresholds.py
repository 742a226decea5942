"""Threshold rules: healthy quantile and pooled Dice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pddm_utils.core.errors import InputError
from pddm_utils.evaluation.thresholds import (
    DEFAULT_RULE,
    GRID,
    GRID_STEPS,
    HEALTHY_QUANTILES,
    RULES,
    HealthyQuantile,
    PooledDiceCurve,
    healthy_quantile,
)

STEP = 1 / GRID_STEPS


def pooled_dice(maps, masks, threshold):
    """Pooled Dice by definition."""
    predicted = np.concatenate([(one > threshold).ravel() for one in maps])
    lesion = np.concatenate([one.ravel() for one in masks])
    return 2 * (predicted & lesion).sum() / (predicted.sum() + lesion.sum())


def test_rules_are_named_after_their_quantile():
    assert all(name == f"healthy-quantile-{quantile}" for name, quantile in HEALTHY_QUANTILES.items())
    assert HEALTHY_QUANTILES[DEFAULT_RULE] == 0.99
    assert set(RULES) == {*HEALTHY_QUANTILES, "lesion-val", "oracle"}


@pytest.mark.parametrize("quantile", [0.95, 0.99, 0.995])
def test_healthy_quantile_of_one_subject_is_the_plain_quantile(quantile):
    values = np.random.default_rng(0).random(20_000).astype(np.float32) ** 3
    exact = np.quantile(values, quantile, method="inverted_cdf")
    assert exact <= healthy_quantile([values], quantile) <= exact + STEP


def test_every_subject_weighs_the_same():
    large, small = np.zeros(9_000), np.full(10, 0.5)
    # Pooled voxels would say 0 for any quantile below 0.998; equal weights put half of the mass at 0.5.
    assert healthy_quantile([large, small], 0.49) == 0.0
    assert healthy_quantile([large, small], 0.51) == 0.5
    subjects = [np.repeat([0.125, 0.25], [30, 10]), np.repeat([0.125, 0.75], [1, 1])]
    # Mass: 0.125 -> (3/4 + 1/2) / 2 = 0.625, 0.25 -> 0.125, 0.75 -> 0.25.
    assert [healthy_quantile(subjects, q) for q in (0.6, 0.63, 0.74, 0.76)] == [0.125, 0.25, 0.25, 0.75]


def test_at_most_one_minus_quantile_of_a_mean_subject_exceeds_the_threshold():
    rng = np.random.default_rng(1)
    subjects = [rng.beta(1, 20, size=size).astype(np.float32) for size in (1_000, 5_000, 20_000)]
    threshold = healthy_quantile(subjects, 0.99)
    share = np.mean([(values > threshold).mean() for values in subjects])
    below = np.mean([(values > threshold - STEP).mean() for values in subjects])
    assert share <= 0.01 < below


def test_order_of_subjects_does_not_matter_and_a_generator_will_do():
    rng = np.random.default_rng(2)
    subjects = [rng.random(100) for _ in range(20)]
    assert healthy_quantile(iter(subjects), 0.99) == healthy_quantile(subjects[::-1], 0.99)


def test_quantiles_from_one_pass_rise():
    accumulator = HealthyQuantile()
    accumulator.add(np.random.default_rng(3).random(1_000))
    thresholds = [accumulator.threshold(quantile) for quantile in HEALTHY_QUANTILES.values()]
    assert thresholds == sorted(thresholds) and accumulator.subjects == 1


def test_a_map_of_zeros_gives_zero_and_values_above_one_are_capped():
    assert healthy_quantile([np.zeros(10)], 0.99) == 0.0
    assert healthy_quantile([np.full(10, 3.0)], 0.99) == 1.0


def test_healthy_quantile_refuses_bad_input():
    with pytest.raises(InputError, match="no healthy"):
        healthy_quantile([], 0.99)
    with pytest.raises(ValueError, match="without eroded-brain voxels"):
        healthy_quantile([np.array([])], 0.99)
    with pytest.raises(ValueError, match="finite"):
        healthy_quantile([np.array([0.1, np.nan])], 0.99)
    with pytest.raises(ValueError, match="between 0 and 1"):
        healthy_quantile([np.zeros(3)], 99)


@settings(max_examples=40)
@given(data=st.data(), scans=st.integers(1, 3))
def test_pooled_dice_equals_its_definition_at_grid_thresholds(data, scans):
    shape = (2, 3, 4)
    elements = st.sampled_from([0.0, STEP, 2 * STEP, 0.25, 0.25 + STEP, 0.3, 0.999999, 1.0, 1.5])
    maps = [data.draw(hnp.arrays(np.float32, shape, elements=elements.map(np.float32))) for _ in range(scans)]
    masks = [data.draw(hnp.arrays(bool, shape)) for _ in range(scans)]
    masks[0][0, 0, 0] = True
    curve = PooledDiceCurve()
    for one, mask in zip(maps, masks, strict=True):
        curve.add(one, mask)
    dice = curve.dice()
    for level in (0, 1, 2, 3, GRID_STEPS // 4, GRID_STEPS // 4 + 1, 20_000, GRID_STEPS - 1, GRID_STEPS):
        assert dice[level] == pytest.approx(pooled_dice(maps, masks, GRID[level]))


def test_best_threshold_equals_a_search_over_all_values():
    rng = np.random.default_rng(4)
    masks = [rng.random((4, 8, 8)) < 0.1 for _ in range(3)]
    maps = [(rng.random(mask.shape) * 0.5 + 0.3 * mask).astype(np.float32) for mask in masks]
    curve = PooledDiceCurve()
    for one, mask in zip(maps, masks, strict=True):
        curve.add(one, mask)
    threshold, best = curve.best_threshold()
    exact = max(pooled_dice(maps, masks, value) for value in np.unique(np.concatenate(maps)))
    assert best == pytest.approx(pooled_dice(maps, masks, threshold))
    assert best == pytest.approx(exact, abs=1e-3)


def test_dice_is_pooled_over_scans_not_averaged():
    curve = PooledDiceCurve()
    curve.add(np.full((1, 1, 10), 0.5), np.ones((1, 1, 10), dtype=bool))
    curve.add(np.full((1, 1, 30), 0.5), np.zeros((1, 1, 30), dtype=bool))
    assert curve.best_threshold()[1] == pytest.approx(2 * 10 / (40 + 10))


def test_lesion_voxels_with_a_zero_map_are_misses():
    lesion = np.array([[[True, True, False]]])
    curve = PooledDiceCurve()
    curve.add(np.array([[[0.5, 0.0, 0.0]]]), lesion)
    assert curve.best_threshold()[1] == pytest.approx(2 / 3)
    blank = PooledDiceCurve()
    blank.add(np.zeros((1, 1, 3)), lesion)
    assert blank.best_threshold()[1] == 0.0


def test_of_equal_thresholds_the_highest_wins_and_still_predicts_the_lesion():
    anomaly, lesion = np.array([[[0.0, 0.25, 0.75]]]), np.array([[[False, False, True]]])
    curve = PooledDiceCurve()
    curve.add(anomaly, lesion)
    threshold, best = curve.best_threshold()
    assert (threshold, best) == (0.75 - STEP, 1.0)
    np.testing.assert_array_equal(anomaly > threshold, lesion)


def test_pooled_dice_needs_a_lesion_and_equal_shapes():
    curve = PooledDiceCurve()
    curve.add(np.ones((1, 2, 3)), np.zeros((1, 2, 3), dtype=bool))
    with pytest.raises(InputError, match="no lesion voxel"):
        curve.best_threshold()
    with pytest.raises(ValueError, match="shape"):
        curve.add(np.ones((1, 2, 3)), np.zeros((1, 2, 4), dtype=bool))
    with pytest.raises(ValueError, match="finite"):
        curve.add(np.full((1, 2, 3), np.inf), np.zeros((1, 2, 3), dtype=bool))
