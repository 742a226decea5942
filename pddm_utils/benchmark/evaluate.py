"""From one fitted method to its scores: thresholds from validation scans, then every test scan, streamed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pddm_utils.core.settings import Settings
from pddm_utils.data.manifest import ManifestRow, lesion_family
from pddm_utils.data.prepare import ScanCache, load_scan, load_twin
from pddm_utils.data.scan import VOXEL_VOLUME_ML, Scan
from pddm_utils.evaluation.metrics import (
    average_precision,
    brain_median,
    healthy_l1,
    lesion_contrast,
    lesion_l1,
    lesion_share,
    precision_at_recall,
    precision_recall,
    scan_score,
    score_scan,
)
from pddm_utils.evaluation.postprocess import erode_in_plane, score_map
from pddm_utils.evaluation.thresholds import HEALTHY_QUANTILES, LESION_VAL, ORACLE, HealthyQuantile, PooledDiceCurve
from pddm_utils.methods.base import Method


def map_scan(method: Method, scan: Scan, timestep: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruct a scan and take the post-processed residual, or the method's own score.

    Returns:
        Reconstruction and anomaly map, both `(D, H, W)` float32.
    """
    reconstruction = method.reconstruct(scan, timestep)
    return reconstruction, score_map(method.score(scan, reconstruction), scan.brain_mask)


def map_scans(
    method: Method, scans: Mapping[str, Scan], timestep: int | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`map_scan` of each of several scans, by the same names."""
    return {name: map_scan(method, scan, timestep) for name, scan in scans.items()}


def every_nth_slice(scan: Scan, step: int) -> Scan:
    """The scan with every `step`-th slice, and at least one, for cheap comparisons between noise levels."""
    return scan.with_slices(nth_slices(len(scan.image), step))


def nth_slices(count: int, step: int) -> slice:
    """Every `step`-th of so many slices, and at least one."""
    return slice(min(step // 2, count - 1), None, step)


def score_noise_level(
    method: Method, rows: Iterable[ManifestRow], cache: ScanCache, timestep: int | None, slice_step: int
) -> pd.DataFrame:
    """AUPRC of every lesioned validation subject at one noise level, on every `slice_step`-th slice.

    With slices left out the map is filtered in-plane and over the slices that are kept, so these values serve to
    compare noise levels, and methods on validation scans, and nothing else. The timestep of a method without one is -1.
    """
    records = []
    for row in rows:
        scan = every_nth_slice(load_scan(row, cache), slice_step)
        if scan.lesion_mask.any():
            auprc = average_precision(map_scan(method, scan, timestep)[1], scan.lesion_mask)
            records.append(
                {
                    "method": method.name,
                    "timestep": -1 if timestep is None else timestep,
                    "dataset": lesion_family(row.dataset),
                    "subject": row.subject,
                    "auprc": auprc,
                }
            )
    return pd.DataFrame(records, columns=["method", "timestep", "dataset", "subject", "auprc"])


def choose_timesteps(selection: pd.DataFrame, settings: Settings) -> dict[str, int]:
    """For each method the noise level with the best validation AUPRC (mean over subjects, then over lesion kinds)."""
    if selection.empty:
        return {}
    candidates = selection[selection.timestep.isin(settings.timesteps)]
    means = candidates.groupby(["method", "timestep", "dataset"]).auprc.mean().groupby(["method", "timestep"]).mean()
    return {method: int(means[method].idxmax()) for method in candidates.method.unique()}


def validation_thresholds(
    method: Method, rows: Iterable[ManifestRow], cache: ScanCache, timestep: int | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Thresholds that never see a test scan.

    Args:
        method: fitted.
        rows: validation rows, healthy and lesioned.
        cache: prepared scans.
        timestep: noise level.

    Returns:
        The healthy quantiles by rule name, and the best pooled-Dice threshold by lesioned data set.
    """
    healthy = HealthyQuantile()
    lesioned: dict[str, PooledDiceCurve] = {}
    for row in rows:
        scan = load_scan(row, cache)
        residual = map_scan(method, scan, timestep)[1]
        if row.lesion_mask:
            lesioned.setdefault(lesion_family(row.dataset), PooledDiceCurve()).add(residual, scan.lesion_mask)
        else:
            healthy.add(residual[erode_in_plane(scan.brain_mask)])
    quantiles = {rule: float(healthy.threshold(quantile)) for rule, quantile in HEALTHY_QUANTILES.items()}
    return quantiles, {dataset: float(curve.best_threshold()[0]) for dataset, curve in lesioned.items()}


def score_test_scans(
    method: Method,
    thresholds: tuple[dict[str, float], dict[str, float]],
    test: list[ManifestRow],
    cache: ScanCache,
    timestep: int | None,
    scratch: Path,
) -> pd.DataFrame:
    """Scores of one fitted method at one noise level: a row for each test scan and threshold rule.

    The columns `precisions` (precision at `RECALL_GRID`, as text), `seconds` and `cpu_seconds` (of the reconstruction)
    go to files of their own, see `pddm_utils.benchmark.tables`.

    Maps wait on disk while the oracle threshold is found, so memory does not grow with the number of scans.

    Args:
        method: fitted.
        thresholds: of `validation_thresholds`.
        test: manifest rows; the oracle threshold is found over those of the same data set.
        cache: prepared scans.
        timestep: noise level; None for methods without one.
        scratch: folder for the maps, emptied at the end.
    """
    quantiles, lesion_val = thresholds
    records: list[dict] = []
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        curves: dict[str, PooledDiceCurve] = {}
        scans = []
        for number, row in enumerate(test):
            scan = load_scan(row, cache)
            wall, cpu = time.perf_counter(), time.process_time()
            reconstruction = method.reconstruct(scan, timestep)
            times = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
            residual = score_map(method.score(scan, reconstruction), scan.brain_mask)
            np.save(Path(folder) / f"{number}.npy", residual, allow_pickle=False)
            if scan.lesion_mask.any():
                curves.setdefault(row.dataset, PooledDiceCurve()).add(residual, scan.lesion_mask)
            twin = load_twin(row, cache) if row.inserted_lesion else None
            restored = restoration_scores(scan, reconstruction, twin)
            scans.append({**_scan_scores(scan, reconstruction, residual), **restored, **times})
        oracle = {dataset: curve.best_threshold()[0] for dataset, curve in curves.items()}
        for number, row in enumerate(test):
            scan, residual = load_scan(row, cache), np.load(Path(folder) / f"{number}.npy", allow_pickle=False)
            for rule, threshold in _rules(row.dataset, quantiles, lesion_val, oracle):
                scores = score_scan(
                    residual, scan.lesion_mask, scan.brain_mask, threshold, voxel_volume_ml=VOXEL_VOLUME_ML
                )
                records.append(
                    {
                        "dataset": row.dataset,
                        "subject": row.subject,
                        "rule": rule,
                        "threshold": threshold,
                        **scans[number],
                        **scores,
                    }
                )
    return pd.DataFrame(records)


def restoration_scores(scan: Scan, reconstruction: np.ndarray, twin: np.ndarray | None) -> dict[str, float]:
    """How far the lesion is from the healthy twin, rebuilt (`restoration_l1`) and as it is (`lesion_l1`).

    NaN where no lesion was inserted, `twin` is None then: nobody knows the healthy twin of a patient.
    """
    if twin is None:
        return {"restoration_l1": float("nan"), "lesion_l1": float("nan")}
    masks = (scan.lesion_mask, scan.brain_mask)
    return {"restoration_l1": lesion_l1(reconstruction, twin, *masks), "lesion_l1": lesion_l1(scan.image, twin, *masks)}


def _scan_scores(scan: Scan, reconstruction: np.ndarray, residual: np.ndarray) -> dict[str, float | str]:
    """What does not depend on a threshold; `healthy_l1` is the reconstruction error of lesion-free scans.

    `median_l1`, the same for every method, is that of the constant which predicts a brain best: its own median.
    """
    healthy = not scan.lesion_mask.any()
    median = brain_median(scan.image, scan.brain_mask)
    return {
        "auprc": average_precision(residual, scan.lesion_mask),
        "healthy_l1": healthy_l1(scan.image, reconstruction, scan.brain_mask) if healthy else float("nan"),
        "median_l1": healthy_l1(scan.image, median, scan.brain_mask) if healthy else float("nan"),
        "scan_score": scan_score(residual, scan.brain_mask),
        "lesion_ml": float(scan.lesion_mask.sum() * VOXEL_VOLUME_ML),
        "lesion_share": lesion_share(scan.lesion_mask, scan.brain_mask),
        "lesion_contrast": lesion_contrast(scan.image, scan.lesion_mask, scan.brain_mask),
        "precisions": ""
        if healthy
        else " ".join(f"{value:.4g}" for value in precision_at_recall(precision_recall(residual, scan.lesion_mask))),
    }


def _rules(
    dataset: str, quantiles: dict[str, float], lesion_val: dict[str, float], oracle: dict[str, float]
) -> Iterator[tuple[str, float]]:
    """Rules that exist for a data set: the ones that need lesions only where there are some."""
    yield from quantiles.items()
    if dataset in lesion_val:
        yield LESION_VAL, lesion_val[dataset]
    if dataset in oracle:
        yield ORACLE, oracle[dataset]
