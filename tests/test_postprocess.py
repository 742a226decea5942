"""Erosion, median filter, anomaly map and component filter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from pddm_utils.evaluation.postprocess import (
    anomaly_map,
    bounding_box,
    drop_small_components,
    erode_in_plane,
    median_filter,
    same_shape,
)

SHAPES = st.tuples(st.integers(3, 7), st.integers(3, 9), st.integers(3, 9))


def ball(shape=(12, 20, 18), radius=0.45):
    grid = np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in shape), indexing="ij")
    return sum(axis**2 for axis in grid) < radius**2


def test_erosion_takes_a_cross_off_each_slice():
    mask = np.zeros((2, 9, 9), dtype=bool)
    mask[0, 1:8, 1:8] = True
    mask[1, 4, 4] = True
    eroded = erode_in_plane(mask, iterations=2)
    expected = np.zeros_like(mask)
    expected[0, 3:6, 3:6] = True
    np.testing.assert_array_equal(eroded, expected)
    assert mask.sum() == 50  # the input is left alone


def test_erosion_treats_the_outside_of_the_frame_as_background():
    eroded = erode_in_plane(np.ones((1, 7, 7), dtype=bool))
    assert eroded.sum() == 1 and eroded[0, 3, 3]


@settings(max_examples=60)
@given(data=st.data(), iterations=st.integers(0, 4))
def test_erosion_keeps_voxels_whose_diamond_in_the_slice_lies_in_the_mask(data, iterations):
    mask = data.draw(hnp.arrays(bool, SHAPES, elements=st.integers(0, 4).map(bool)))
    padded, n = np.pad(mask, ((0, 0), (iterations,) * 2, (iterations,) * 2)), iterations
    expected = np.ones_like(mask)
    for dy in range(-n, n + 1):
        for dx in range(abs(dy) - n, n - abs(dy) + 1):
            expected &= padded[:, n + dy : n + dy + mask.shape[1], n + dx : n + dx + mask.shape[2]]
    eroded = erode_in_plane(mask, iterations)
    np.testing.assert_array_equal(eroded, expected)
    assert eroded is not mask


@settings(max_examples=40)
@given(data=st.data(), size=st.sampled_from([1, 3, 5]))
def test_median_equals_scipy_inside_the_mask_and_is_zero_outside(data, size):
    shape = data.draw(SHAPES)
    values = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=16)))
    mask = data.draw(hnp.arrays(bool, shape))
    expected = np.where(mask, ndimage.median_filter(values, size=size), 0)
    np.testing.assert_array_equal(median_filter(values, mask, size), expected)


def test_median_of_a_full_size_volume_equals_scipy():
    mask = ball((30, 96, 96))
    values = (np.random.default_rng(0).random(mask.shape) * mask).astype(np.float32)
    expected = ndimage.median_filter(values, size=5) * mask
    result = median_filter(values, mask)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32


def test_median_at_the_frame_mirrors_the_volume():
    values = np.zeros((5, 5, 5))
    values[0] = 1.0  # mirrored: planes 1 0 | 0 1 2 at the border, so 2 of 5 planes are ones
    everywhere = np.ones(values.shape, dtype=bool)
    assert not median_filter(values, everywhere).any()
    values[1] = 1.0  # now 4 of 5 at plane 0, 3 of 5 at plane 1, 2 of 5 at plane 2
    assert median_filter(values, everywhere)[:, 2, 2].tolist() == [1, 1, 0, 0, 0]


def test_median_of_an_empty_mask_is_zero():
    assert not median_filter(np.ones((3, 4, 5)), np.zeros((3, 4, 5), dtype=bool)).any()


@pytest.mark.parametrize("size", [0, 2, -1])
def test_median_refuses_even_sizes(size):
    with pytest.raises(ValueError, match="odd"):
        median_filter(np.zeros((3, 3, 3)), np.ones((3, 3, 3), dtype=bool), size)


def test_median_refuses_nan_and_other_shapes():
    with pytest.raises(ValueError, match="NaN"):
        median_filter(np.full((3, 3, 3), np.nan), np.ones((3, 3, 3), dtype=bool))
    with pytest.raises(ValueError, match="shape"):
        median_filter(np.zeros((3, 3, 3)), np.ones((3, 3, 4), dtype=bool))
    with pytest.raises(ValueError, match="shape"):
        same_shape(image=np.zeros((3, 3)))


def test_anomaly_map_is_the_median_of_the_masked_residual():
    brain = ball((14, 30, 30))
    rng = np.random.default_rng(1)
    image = rng.random(brain.shape).astype(np.float32)  # not zero outside the brain, on purpose
    reconstruction = rng.random(brain.shape).astype(np.float32)
    eroded = erode_in_plane(brain)
    expected = ndimage.median_filter(np.abs(image - reconstruction) * eroded, size=5) * eroded
    result = anomaly_map(image, reconstruction, brain)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32 and not result[~eroded].any() and result[eroded].any()
    np.testing.assert_array_equal(result, anomaly_map(image, reconstruction, brain))


def test_anomaly_map_sees_darker_and_brighter_alike_and_a_perfect_reconstruction_as_zero():
    brain = np.ones((9, 20, 20), dtype=bool)
    image = np.full(brain.shape, 0.5, dtype=np.float32)
    assert not anomaly_map(image, image, brain).any()
    brighter, darker = anomaly_map(image, image - 0.25, brain), anomaly_map(image, image + 0.25, brain)
    np.testing.assert_array_equal(brighter, darker)
    assert brighter[4, 10, 10] == 0.25


def test_anomaly_map_of_a_brain_that_erodes_away_is_zero():
    brain = np.zeros((4, 12, 12), dtype=bool)
    brain[:, 5:7, 5:7] = True
    assert not anomaly_map(np.ones(brain.shape), np.zeros(brain.shape), brain).any()


def test_components_of_seven_go_and_of_eight_stay():
    mask = np.zeros((3, 6, 20), dtype=bool)
    mask[1, 1, 0:7] = True
    mask[1, 4, 0:8] = True
    kept = drop_small_components(mask)
    assert kept.sum() == 8 and kept[1, 4, 0:8].all()
    assert drop_small_components(mask, max_voxels=0).sum() == 15
    assert not drop_small_components(mask, max_voxels=8).any()


def test_components_connect_over_corners():
    mask = np.zeros((8, 8, 8), dtype=bool)
    diagonal = np.arange(8)
    mask[diagonal, diagonal, diagonal] = True
    np.testing.assert_array_equal(drop_small_components(mask), mask)


def test_empty_prediction_stays_empty():
    assert not drop_small_components(np.zeros((3, 4, 5), dtype=bool)).any()


@settings(max_examples=40)
@given(mask=hnp.arrays(bool, SHAPES), max_voxels=st.integers(0, 9))
def test_component_filter_equals_a_loop_over_components(mask, max_voxels):
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    expected = np.zeros_like(mask)
    for label in range(1, count + 1):
        if (labels == label).sum() > max_voxels:
            expected |= labels == label
    np.testing.assert_array_equal(drop_small_components(mask, max_voxels), expected)


def test_bounding_box():
    mask = np.zeros((5, 6, 7), dtype=bool)
    assert mask[bounding_box(mask)].size == 0
    mask[1, 2, 3] = mask[3, 2, 6] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 3), slice(3, 7))
