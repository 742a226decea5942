"""Metrics of one scan against hand-computed values and scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from pddm_utils.evaluation.metrics import (
    average_precision,
    dice,
    false_positive_volume,
    healthy_l1,
    lesion_detection,
    lesion_share,
    precision_recall,
    scan_auroc,
    scan_score,
    score_scan,
)
from pddm_utils.evaluation.postprocess import erode_in_plane

SHAPE = (6, 20, 20)
EMPTY = np.zeros(SHAPE, dtype=bool)
BRAIN = np.ones(SHAPE, dtype=bool)
VOXEL_ML = 0.008


def cube(*corner, edge=2):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(start, start + edge) for start in corner)] = True
    return mask


def test_average_precision_by_hand():
    anomaly = np.array([[[0.9, 0.8, 0.7, 0.0]]])
    lesion = np.array([[[True, False, True, False]]])
    assert average_precision(anomaly, lesion) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    tie = np.array([[[0.9, 0.9, 0.0, 0.0]]])
    assert average_precision(tie, np.array([[[True, False, False, False]]])) == pytest.approx(0.5)


def test_lesion_voxels_lost_to_erosion_are_misses():
    lesion = np.array([[[True, True, False, False]]])
    anomaly = np.array([[[0.5, 0.0, 0.0, 0.0]]])
    # First half of recall at precision 1; the lost voxel only with everything else, at precision 2/4.
    assert average_precision(anomaly, lesion) == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert average_precision(np.zeros_like(anomaly), lesion) == pytest.approx(0.5)


@settings(max_examples=60)
@given(data=st.data())
def test_average_precision_equals_sklearn_on_all_voxels(data):
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5)))
    elements = st.one_of(st.just(0.0), st.floats(0, 1, width=16), st.sampled_from([0.25, 0.5]))
    anomaly = data.draw(hnp.arrays(np.float32, shape, elements=elements))
    lesion = data.draw(hnp.arrays(bool, shape))
    lesion.flat[0] = True
    expected = average_precision_score(lesion.ravel(), anomaly.ravel())
    assert average_precision(anomaly, lesion) == pytest.approx(expected, abs=1e-12)


def test_average_precision_equals_sklearn_on_a_sparse_volume():
    rng = np.random.default_rng(0)
    brain = rng.random((10, 40, 40)) < 0.3
    anomaly = (rng.random(brain.shape) * brain).astype(np.float32)
    lesion = rng.random(brain.shape) < 0.02
    expected = average_precision_score(lesion.ravel(), anomaly.ravel())
    assert average_precision(anomaly, lesion) == pytest.approx(expected, rel=1e-12)


def test_average_precision_is_nan_without_lesion_and_refuses_bad_maps():
    assert math.isnan(average_precision(np.ones(SHAPE), EMPTY))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="at least 0"):
            average_precision(np.full(SHAPE, bad), EMPTY)
    with pytest.raises(ValueError, match="shape"):
        average_precision(np.ones((1, 2, 3)), EMPTY)


def test_precision_recall_points_are_those_of_the_prediction():
    rng = np.random.default_rng(1)
    anomaly = np.round(rng.random(SHAPE), 2) * (rng.random(SHAPE) < 0.5)
    lesion = rng.random(SHAPE) < 0.05
    curve = precision_recall(anomaly, lesion)
    assert curve.recall[-1] == 1.0 and (np.diff(curve.recall) > 0).all() and (np.diff(curve.values) < 0).all()
    for precision, recall, value in zip(*curve, strict=True):
        predicted = anomaly >= value
        assert precision == pytest.approx((predicted & lesion).sum() / predicted.sum())
        assert recall == pytest.approx((predicted & lesion).sum() / lesion.sum())
    assert precision_recall(anomaly, EMPTY).recall.size == 0


def test_dice_by_hand():
    lesion = cube(1, 1, 1)
    assert dice(lesion, lesion) == 1.0
    assert dice(cube(1, 1, 2), lesion) == pytest.approx(2 * 4 / 16)
    assert dice(EMPTY, lesion) == 0.0
    assert dice(cube(3, 9, 9), lesion) == 0.0
    assert math.isnan(dice(lesion, EMPTY)) and math.isnan(dice(EMPTY, EMPTY))


def test_false_positive_volume_by_hand():
    lesion = cube(1, 1, 1)
    assert false_positive_volume(cube(1, 1, 2), lesion, VOXEL_ML) == pytest.approx(0.032)
    assert false_positive_volume(lesion, EMPTY, VOXEL_ML) == pytest.approx(0.064)
    assert false_positive_volume(lesion, lesion, VOXEL_ML) == 0.0


def test_a_lesion_is_detected_from_a_tenth_on():
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[2, 5:8, 0:10] = True  # 30 voxels: three are a tenth
    for voxels, detected in ((0, 0), (2, 0), (3, 1), (30, 1)):
        prediction = np.zeros(SHAPE, dtype=bool)
        prediction.flat[np.flatnonzero(lesion)[:voxels]] = True
        assert lesion_detection(prediction, lesion) == (1, detected, 0)


def test_one_blob_may_detect_two_lesions_and_neighbours_without_overlap_are_false():
    lesions = cube(1, 1, 1) | cube(1, 1, 5)
    blob = np.zeros(SHAPE, dtype=bool)
    blob[1:3, 1:3, 1:7] = True
    assert lesion_detection(blob, lesions) == (2, 2, 0)
    beside = cube(1, 3, 1)  # shares a face with the first lesion but no voxel
    assert lesion_detection(beside, lesions) == (2, 0, 1)
    assert lesion_detection(cube(1, 1, 1) | cube(4, 10, 10) | cube(4, 15, 15), lesions) == (2, 1, 2)


def test_lesions_that_meet_at_a_corner_are_one():
    assert lesion_detection(EMPTY, cube(1, 1, 1) | cube(3, 3, 3)).lesions == 1
    assert lesion_detection(EMPTY, cube(1, 1, 1) | cube(1, 4, 1)).lesions == 2


def test_lesion_detection_of_nothing():
    assert lesion_detection(EMPTY, EMPTY) == (0, 0, 0)
    assert lesion_detection(cube(1, 1, 1), EMPTY) == (0, 0, 1)
    assert lesion_detection(EMPTY, cube(1, 1, 1)) == (1, 0, 0)


def test_lesion_share_l1_and_scan_score_count_brain_voxels_only():
    brain = cube(0, 0, 0, edge=4)
    assert lesion_share(cube(1, 1, 1), brain) == pytest.approx(8 / 64)
    image = np.where(brain, 0.5, 9.0)
    reconstruction = np.where(cube(1, 1, 1), 0.25, 0.5)
    assert healthy_l1(image, reconstruction, brain) == pytest.approx(0.25 * 8 / 64)
    assert scan_score(np.where(brain, 0.25, 1.0), brain) == 0.25
    for function, arguments in ((lesion_share, 1), (healthy_l1, 2), (scan_score, 1)):
        with pytest.raises(ValueError, match="empty"):
            function(*[image] * arguments, EMPTY)


def test_scan_auroc_by_hand():
    assert scan_auroc([0.1, 0.2, 0.3, 0.4], [False, True, False, True]) == pytest.approx(3 / 4)
    assert scan_auroc([0.3, 0.3], [0, 1]) == pytest.approx(0.5)
    assert math.isnan(scan_auroc([0.1, 0.2], [True, True])) and math.isnan(scan_auroc([0.1], [False]))
    rng = np.random.default_rng(2)
    scores, labels = rng.random(50), rng.random(50) < 0.4
    assert scan_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_score_scan_by_hand():
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[1:3, 4:8, 4:8] = True  # 32 voxels
    anomaly = np.zeros(SHAPE)
    anomaly[1:3, 4:8, 4:6] = 0.5  # 16 hits
    anomaly[4:6, 14:16, 14:16] = 0.5  # 8 voxels elsewhere: stays
    anomaly[0, 18, 0:7] = 0.5  # 7 voxels: dropped
    anomaly[3, 12, 0:9] = 0.25  # at the threshold: not predicted
    scores = score_scan(anomaly, lesion, BRAIN, 0.25, voxel_volume_ml=VOXEL_ML)
    assert scores == {
        "dice": pytest.approx(2 * 16 / (24 + 32)),
        "precision": pytest.approx(16 / 24),
        "recall": pytest.approx(0.5),
        "false_positive_ml": pytest.approx(0.064),
        "predicted_ml": pytest.approx(0.192),
        "lesions": 1,
        "lesions_detected": 1,
        "false_components": 1,
    }
    json.dumps(scores)  # plain numbers


def test_score_scan_of_a_healthy_scan_and_of_an_empty_prediction():
    healthy = score_scan(cube(1, 1, 1) * 0.5, EMPTY, BRAIN, 0.1, voxel_volume_ml=VOXEL_ML)
    assert all(math.isnan(healthy[name]) for name in ("dice", "precision", "recall"))
    assert healthy["false_positive_ml"] == healthy["predicted_ml"] == pytest.approx(0.064)
    assert (healthy["lesions"], healthy["false_components"]) == (0, 1)
    missed = score_scan(np.zeros(SHAPE), cube(1, 1, 1), BRAIN, 0.1, voxel_volume_ml=VOXEL_ML)
    assert missed["dice"] == missed["recall"] == missed["predicted_ml"] == 0.0
    assert math.isnan(missed["precision"])
    assert (missed["lesions"], missed["lesions_detected"]) == (1, 0)


def test_a_lesion_outside_the_eroded_brain_is_a_miss():
    brain = np.zeros(SHAPE, dtype=bool)
    brain[:, 2:18, 2:18] = True
    lesion = cube(2, 2, 2)
    anomaly = np.where(erode_in_plane(brain), 0.5, 0.0)
    assert not anomaly[lesion].any()
    scores = score_scan(anomaly, lesion, brain, 0.1, voxel_volume_ml=VOXEL_ML)
    assert (scores["recall"], scores["lesions"], scores["lesions_detected"]) == (0.0, 1, 0)


def test_score_scan_predicts_nothing_outside_the_brain():
    scores = score_scan(np.ones(SHAPE), EMPTY, cube(1, 1, 1), 0.5, voxel_volume_ml=VOXEL_ML)
    assert scores["predicted_ml"] == pytest.approx(0.064)
    with pytest.raises(ValueError, match="shape"):
        score_scan(np.ones((2, 2, 2)), EMPTY, BRAIN, 0.5, voxel_volume_ml=VOXEL_ML)
