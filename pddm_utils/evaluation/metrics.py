"""Metrics of one scan, and the scan-level AUROC. The prediction rule is `map > threshold` everywhere.

Where a metric is undefined it is NaN, to be left out of means and counted. Lesion voxels that erosion removed
have a map of zero and count as misses.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from pddm_utils.evaluation.postprocess import (
    CONNECTIVITY_26,
    MAX_DROPPED_VOXELS,
    bounding_box,
    drop_small_components,
    same_shape,
)

DETECTED_SHARE = 0.1
RECALL_GRID = np.linspace(0, 1, 101)


class PrecisionRecall(NamedTuple):
    """Precision-recall curve; the point at a value v describes the voxels with `map >= v`."""

    precision: np.ndarray
    recall: np.ndarray
    values: np.ndarray


class LesionDetection(NamedTuple):
    """Counts of lesions, detected lesions and predicted components that touch no lesion."""

    lesions: int
    detected: int
    false_components: int


def precision_recall(anomaly_map: np.ndarray, lesion_mask: np.ndarray) -> PrecisionRecall:
    """Precision-recall curve over all voxels of the frame, at every value where recall rises.

    These are the distinct map values of lesion voxels, in falling order: average precision sums over them.

    Args:
        anomaly_map: `(D, H, W)` floats, at least 0.
        lesion_mask: `(D, H, W)` bool.

    Returns:
        Precision, recall (rising to 1) and map values, each `(points,)`; empty for a lesion-free scan.

    Raises:
        ValueError: if the shapes differ or the map is negative or not finite.
    """
    same_shape(anomaly_map=anomaly_map, lesion_mask=lesion_mask)
    if not (np.isfinite(anomaly_map).all() and anomaly_map.min(initial=0) >= 0):
        raise ValueError("an anomaly map must be finite and at least 0")
    # Zeros, most of the frame, are one tie that comes last: only the other values need sorting.
    values = np.sort(anomaly_map[anomaly_map > 0])
    points, counts = np.unique(anomaly_map[np.asarray(lesion_mask, dtype=bool)], return_counts=True)
    points, hits = points[::-1], counts[::-1].cumsum()
    predicted = values.size - np.searchsorted(values, points, side="left")
    predicted[points == 0] = anomaly_map.size
    return PrecisionRecall(hits / predicted, hits / max(counts.sum(), 1), points)


def precision_at_recall(curve: PrecisionRecall, recall: ArrayLike = RECALL_GRID) -> np.ndarray:
    """Precision at given recalls: that of the largest map value which reaches the recall, without interpolation.

    Args:
        curve: of `precision_recall`.
        recall: `(points,)` in [0, 1].

    Returns:
        `(points,)` precisions; NaN for a lesion-free scan.

    Example:
        >>> curve = PrecisionRecall(np.array([1.0, 0.5]), np.array([0.5, 1.0]), np.array([0.9, 0.2]))
        >>> precision_at_recall(curve, [0.0, 0.5, 0.6]).tolist()
        [1.0, 1.0, 0.5]
    """
    recall = np.asarray(recall, dtype=float)
    if curve.recall.size == 0:
        return np.full(recall.shape, np.nan)
    first = np.searchsorted(curve.recall, recall - 1e-9)  # the margin: 29 of 100 voxels are a recall of 0.29
    return curve.precision[first.clip(max=curve.recall.size - 1)]


def average_precision(anomaly_map: np.ndarray, lesion_mask: np.ndarray) -> float:
    """Average precision (AUPRC) over all voxels of the frame, as scikit-learn's `average_precision_score`.

    Args:
        anomaly_map: `(D, H, W)` floats, at least 0.
        lesion_mask: `(D, H, W)` bool.

    Returns:
        A value in [0, 1]; NaN for a lesion-free scan (scikit-learn would return 0).

    Raises:
        ValueError: if the shapes differ or the map is negative or not finite.
    """
    curve = precision_recall(anomaly_map, lesion_mask)
    if curve.values.size == 0:
        return float("nan")
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.precision))


def dice(prediction: np.ndarray, lesion_mask: np.ndarray) -> float:
    """Dice overlap of a predicted and a lesion mask.

    Args:
        prediction: `(D, H, W)` bool.
        lesion_mask: `(D, H, W)` bool.

    Returns:
        A value in [0, 1]; 0 for an empty prediction of a lesion; NaN for a lesion-free scan.

    Raises:
        ValueError: if the shapes differ.
    """
    same_shape(prediction=prediction, lesion_mask=lesion_mask)
    lesion_voxels = np.count_nonzero(lesion_mask)
    if lesion_voxels == 0:
        return float("nan")
    hits = np.count_nonzero(prediction & lesion_mask)
    return float(2.0 * hits / (np.count_nonzero(prediction) + lesion_voxels))


def false_positive_volume(prediction: np.ndarray, lesion_mask: np.ndarray, voxel_volume_ml: float) -> float:
    """Volume predicted outside every lesion, in millilitres; on a lesion-free scan all that is predicted.

    Args:
        prediction: `(D, H, W)` bool.
        lesion_mask: `(D, H, W)` bool.
        voxel_volume_ml: volume of a voxel in ml (0.008 at 2 mm).

    Raises:
        ValueError: if the shapes differ.
    """
    same_shape(prediction=prediction, lesion_mask=lesion_mask)
    return float(np.count_nonzero(prediction & ~lesion_mask) * voxel_volume_ml)


def lesion_detection(prediction: np.ndarray, lesion_mask: np.ndarray) -> LesionDetection:
    """Lesion-wise detection with 26-connected components.

    A lesion is detected when at least `DETECTED_SHARE` of its voxels are predicted, by any number of
    predicted components. A predicted component that shares no voxel with any lesion is a false component.

    Args:
        prediction: `(D, H, W)` bool.
        lesion_mask: `(D, H, W)` bool.

    Returns:
        Numbers of lesions, detected lesions and false components.

    Raises:
        ValueError: if the shapes differ.
    """
    same_shape(prediction=prediction, lesion_mask=lesion_mask)
    prediction, lesion_mask = np.asarray(prediction, dtype=bool), np.asarray(lesion_mask, dtype=bool)
    box = bounding_box(prediction | lesion_mask)
    prediction, lesion_mask = prediction[box], lesion_mask[box]
    lesions, lesion_count = ndimage.label(lesion_mask, structure=CONNECTIVITY_26)
    components, component_count = ndimage.label(prediction, structure=CONNECTIVITY_26)
    sizes = np.bincount(lesions[lesion_mask], minlength=lesion_count + 1)[1:]
    hits = np.bincount(lesions[lesion_mask & prediction], minlength=lesion_count + 1)[1:]
    touching = np.unique(components[lesion_mask & prediction]).size
    return LesionDetection(
        lesions=int(lesion_count),
        detected=int(np.count_nonzero(hits / sizes >= DETECTED_SHARE)),
        false_components=int(component_count - touching),
    )


def lesion_share(lesion_mask: np.ndarray, brain_mask: np.ndarray) -> float:
    """Lesion voxels as a share of brain voxels; the AUPRC of a random map is about this small.

    Args:
        lesion_mask: `(D, H, W)` bool.
        brain_mask: `(D, H, W)` bool, before erosion.

    Raises:
        ValueError: if the shapes differ or the brain is empty.
    """
    same_shape(lesion_mask=lesion_mask, brain_mask=brain_mask)
    return float(np.count_nonzero(lesion_mask) / _brain_voxels(brain_mask))


def lesion_contrast(image: np.ndarray, lesion_mask: np.ndarray, brain_mask: np.ndarray) -> float:
    """How far a lesion's mean intensity lies from the rest of its brain: in standard deviations of that, signed.

    Args:
        image: `(D, H, W)` prepared scan in [0, 1].
        lesion_mask: `(D, H, W)` bool; NaN where it is empty.
        brain_mask: `(D, H, W)` bool, before erosion.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> brain, lesion = np.ones((1, 2, 3), dtype=bool), np.zeros((1, 2, 3), dtype=bool)
        >>> lesion[0, 0, 0] = True
        >>> image = np.array([[[0.9, 0.4, 0.6], [0.4, 0.6, 0.5]]])
        >>> round(lesion_contrast(image, lesion, brain), 2)
        4.47
    """
    same_shape(image=image, lesion_mask=lesion_mask, brain_mask=brain_mask)
    rest = image[brain_mask & ~lesion_mask]
    if not lesion_mask.any() or not rest.size or rest.std() == 0:
        return float("nan")
    return float((image[lesion_mask].mean() - rest.mean()) / rest.std())


def healthy_l1(image: np.ndarray, reconstruction: np.ndarray, brain_mask: np.ndarray) -> float:
    """Mean absolute error of the reconstruction over the brain, |x - x^| before any post-processing.

    Args:
        image: `(D, H, W)` prepared scan in [0, 1].
        reconstruction: `(D, H, W)` pseudo-healthy scan.
        brain_mask: `(D, H, W)` bool, before erosion.

    Raises:
        ValueError: if the shapes differ or the brain is empty.
    """
    same_shape(image=image, reconstruction=reconstruction, brain_mask=brain_mask)
    _brain_voxels(brain_mask)
    return float(np.abs(image[brain_mask] - reconstruction[brain_mask]).mean(dtype=np.float64))


def lesion_l1(volume: np.ndarray, twin: np.ndarray, lesion_mask: np.ndarray, brain_mask: np.ndarray) -> float:
    """Mean absolute difference to the healthy twin inside the lesion; of a reconstruction, its restoration error.

    Args:
        volume: `(D, H, W)` reconstruction, or the scan with its lesion to compare with.
        twin: `(D, H, W)` the same scan before the lesion was inserted, on the same scale.
        lesion_mask: `(D, H, W)` bool.
        brain_mask: `(D, H, W)` bool, before erosion.

    Returns:
        NaN where no lesion lies in the brain.

    Raises:
        ValueError: if the shapes differ.
    """
    same_shape(volume=volume, twin=twin, lesion_mask=lesion_mask, brain_mask=brain_mask)
    inside = lesion_mask & brain_mask
    return float(np.abs(volume[inside] - twin[inside]).mean(dtype=np.float64)) if inside.any() else float("nan")


def brain_median(image: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """The constant that predicts a brain with the least absolute error, its own median; 0 outside the brain.

    Args:
        image: `(D, H, W)` prepared scan in [0, 1].
        brain_mask: `(D, H, W)` bool.

    Returns:
        `(D, H, W)` float32.
    """
    return np.where(brain_mask, np.median(image[brain_mask]), 0).astype(np.float32)


def scan_score(anomaly_map: np.ndarray, brain_mask: np.ndarray) -> float:
    """Mean of the anomaly map over the brain: the score of a whole scan.

    Args:
        anomaly_map: `(D, H, W)` floats.
        brain_mask: `(D, H, W)` bool, before erosion.

    Raises:
        ValueError: if the shapes differ or the brain is empty.
    """
    same_shape(anomaly_map=anomaly_map, brain_mask=brain_mask)
    return float(anomaly_map[brain_mask].sum(dtype=np.float64) / _brain_voxels(brain_mask))


def _brain_voxels(brain_mask: np.ndarray) -> int:
    count = int(np.count_nonzero(brain_mask))
    if count == 0:
        raise ValueError("the brain mask is empty")
    return count


def scan_auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """AUROC of scan scores, lesioned against healthy scans.

    Args:
        scores: `(scans,)` floats, see `scan_score`.
        labels: `(scans,)` bool, True for a scan with a lesion.

    Returns:
        A value in [0, 1], ties counted half; NaN when only one class is present.
    """
    labels = np.asarray(labels, dtype=bool)
    if labels.all() or not labels.any():
        return float("nan")
    return float(roc_auc_score(labels, np.asarray(scores)))


def score_scan(
    anomaly_map: np.ndarray,
    lesion_mask: np.ndarray,
    brain_mask: np.ndarray,
    threshold: float,
    *,
    voxel_volume_ml: float,
    max_voxels: int = MAX_DROPPED_VOXELS,
) -> dict[str, float | int]:
    """All metrics of one scan at one threshold.

    The prediction is `map > threshold` inside the brain mask, without components of `max_voxels` or fewer.

    Args:
        anomaly_map: `(D, H, W)` floats, at least 0.
        lesion_mask: `(D, H, W)` bool; voxels outside the brain or lost to erosion are misses.
        brain_mask: `(D, H, W)` bool.
        threshold: from a rule of `pddm_utils.evaluation.thresholds`.
        voxel_volume_ml: volume of a voxel in ml (0.008 at 2 mm).
        max_voxels: largest component dropped, in voxels.

    Returns:
        `dice`, `precision`, `recall` (voxel-wise, NaN on a lesion-free scan; precision also when nothing is
        predicted), `false_positive_ml`, `predicted_ml`, `lesions`, `lesions_detected`, `false_components`.

    Raises:
        ValueError: if the shapes differ.
    """
    same_shape(anomaly_map=anomaly_map, lesion_mask=lesion_mask, brain_mask=brain_mask)
    lesion_mask = np.asarray(lesion_mask, dtype=bool)
    prediction = drop_small_components((anomaly_map > threshold) & brain_mask, max_voxels)
    predicted, lesion_voxels = int(np.count_nonzero(prediction)), int(np.count_nonzero(lesion_mask))
    hits = int(np.count_nonzero(prediction & lesion_mask))
    detection = lesion_detection(prediction, lesion_mask)
    return {
        "dice": dice(prediction, lesion_mask),
        "precision": hits / predicted if predicted and lesion_voxels else float("nan"),
        "recall": hits / lesion_voxels if lesion_voxels else float("nan"),
        "false_positive_ml": false_positive_volume(prediction, lesion_mask, voxel_volume_ml),
        "predicted_ml": predicted * voxel_volume_ml,
        "lesions": detection.lesions,
        "lesions_detected": detection.detected,
        "false_components": detection.false_components,
    }
