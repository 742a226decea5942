"""One function per question: models and scans in, a tidy table out, one row a scan and variant.

Every function streams over its scans. Its columns are `dataset`, `subject`, `method`, those that tell the variants
apart, `auprc`, and, where no mask is scored, `lesion_map` and `rest_map` (mean anomaly map of the eroded brain inside
and outside the lesion), `passes` (slices the network saw) and `cpu_seconds`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from pddm_utils.benchmark.studies.reconstruct import (
    Model,
    Models,
    Prediction,
    grid_boxes,
    join_boxes,
    predict_boxes,
    scattered_boxes,
    uncovered_share,
)
from pddm_utils.benchmark.studies.tumours import SetTumour
from pddm_utils.data.scan import VOXEL_VOLUME_ML, Scan
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.evaluation.metrics import average_precision, score_scan
from pddm_utils.evaluation.postprocess import (
    EROSION_ITERATIONS,
    MAX_DROPPED_VOXELS,
    anomaly_map,
    erode_in_plane,
    median_filter,
)
from pddm_utils.evaluation.thresholds import HEALTHY_QUANTILES, HealthyQuantile
from pddm_utils.methods.intensity import IntensityThreshold

BOX_AND_STRIDE = ((16, 16), (24, 24), (32, 32), (48, 48), (64, 64), (96, 96), (48, 24), (48, 16))
NOISE_LEVELS = (100, 250, 400, 500, 625, 750, 818, 900)
ENSEMBLE = (250, 500, 750)
STEPS = (1, 2, 5, 10)
DRAWS = 4
RULE = "healthy-quantile-0.99"
_SWITCHES = tuple((erosion, median) for erosion in (True, False) for median in (True, False))
_MASK_SCORES = ("dice", "precision", "recall", "false_components")


def box_size_and_stride(
    models: Models, scans: Iterable[Scan], grids: Iterable[tuple[int, int]] = BOX_AND_STRIDE
) -> pd.DataFrame:
    """How do box and stride at test time matter to a model trained on boxes of 48 px?

    Columns `box_size`, `stride`, `overlap`: `mean` (true averages) or `last` (cut and paste).

    Args:
        models, scans: as everywhere in this module.
        grids: (box size, stride) pairs in pixels.
    """
    records, grids = [], tuple(grids)
    for scan in scans:
        for box, stride in grids:
            boxes = grid_boxes(scan, box, stride)
            prediction = predict_boxes(models.pddpm, scan, boxes)
            overlapping = stride < box or scan.image.shape[-1] % stride > 0
            for overlap in ("mean", "last") if overlapping else ("mean",):
                records.append(
                    record(
                        scan,
                        models.pddpm,
                        join_boxes(prediction, scan, overlap),
                        prediction,
                        box_size=box,
                        stride=stride,
                        overlap=overlap,
                    )
                )
    return pd.DataFrame(records)


def noise_level(
    models: Models, scans: Iterable[Scan], levels: tuple[int, ...] = NOISE_LEVELS, ensemble: tuple[int, ...] = ENSEMBLE
) -> pd.DataFrame:
    """Which noise level suits which lesion, and do several at once do better?

    Columns `timestep` (-1 for the ensemble), `alpha_bar` and `levels`: one, or those whose residuals are averaged.

    Args:
        models, scans: as everywhere in this module.
        levels: timesteps, each by itself.
        ensemble: timesteps whose residuals are averaged.
    """
    records = []
    for scan in scans:
        for model in models:
            whole, residuals, costs = model.pipeline.config.box_size, {}, {}
            for level in sorted({*levels, *ensemble}):
                costs[level] = predict_boxes(model, scan, grid_boxes(scan, whole), timestep=level)
                rebuilt = join_boxes(costs[level], scan)
                residuals[level] = np.abs(scan.image - rebuilt)
                alpha_bar = float(model.pipeline.scheduler.alphas_cumprod[level])
                records.append(
                    record(scan, model, rebuilt, costs[level], timestep=level, alpha_bar=alpha_bar, levels=str(level))
                )
            parts = [costs[level] for level in ensemble]
            records.append(
                _of_residual(
                    scan,
                    model,
                    np.mean([residuals[level] for level in ensemble], axis=0),
                    parts,
                    timestep=-1,
                    alpha_bar=np.nan,
                    levels="+".join(map(str, ensemble)),
                )
            )
    return pd.DataFrame(records)


def box_placement(models: Models, scans: Iterable[Scan]) -> pd.DataFrame:
    """Do boxes at random places do as well as a grid with as many?

    Columns `placement` (`grid` or `random`), `boxes` a slice, and `uncovered`, the share of the brain in no box. What
    no box covers is not assessed; its map is 0.
    """
    records = []
    for scan in scans:
        box = models.pddpm.pipeline.config.box_size
        for stride in (box, box // 2):
            count = len(BoxGrid(tuple(scan.image.shape[1:]), box, stride))
            for placement, boxes in (
                ("grid", grid_boxes(scan, box, stride)),
                ("random", scattered_boxes(scan, box, count)),
            ):
                prediction = predict_boxes(models.pddpm, scan, boxes)
                records.append(
                    record(
                        scan,
                        models.pddpm,
                        join_boxes(prediction, scan),
                        prediction,
                        boxes=count,
                        placement=placement,
                        uncovered=uncovered_share(boxes, scan),
                    )
                )
    return pd.DataFrame(records)


def noise_kind(models: Models, scans: Iterable[Scan]) -> pd.DataFrame:
    """What do other noise at test, and one field for all boxes, change for models trained with Gaussian fields?

    Columns `noise` (`gaussian` or `simplex`) and `fields` (`own` or `shared`).
    """
    records = []
    for scan in scans:
        for model in models:
            boxes = grid_boxes(scan, model.pipeline.config.box_size)
            for noise in ("gaussian", "simplex"):
                for shared in (False, True):
                    prediction = predict_boxes(model, scan, boxes, noise=noise, shared=shared)
                    records.append(
                        record(
                            scan,
                            model,
                            join_boxes(prediction, scan),
                            prediction,
                            noise=noise,
                            fields="shared" if shared else "own",
                        )
                    )
    return pd.DataFrame(records)


def reverse_steps(models: Models, scans: Iterable[Scan]) -> pd.DataFrame:
    """Is it worth walking back in several DDIM steps? Column `steps`."""
    records = []
    for scan in scans:
        for model in models:
            boxes = grid_boxes(scan, model.pipeline.config.box_size)
            for steps in STEPS:
                prediction = predict_boxes(model, scan, boxes, steps=steps)
                records.append(record(scan, model, join_boxes(prediction, scan), prediction, steps=steps))
    return pd.DataFrame(records)


def visible_context(models: Models, scans: Iterable[Scan]) -> pd.DataFrame:
    """Is it training on boxes, or what the network may see at test time? And what if both cost the same?

    Columns `noised` (`box`: one box of 48 px, clean context; `slice`: all of it), `timestep` (the levels that were
    chosen for either model), `draws` of the noise and `average`, over reconstructions or over residuals.
    """
    records = []
    for scan in scans:
        sizes = {"box": models.pddpm.pipeline.config.box_size, "slice": scan.image.shape[-1]}
        for model in models:
            for noised, box in sizes.items():
                for level in sorted({model.timestep for model in models}):
                    prediction = predict_boxes(model, scan, grid_boxes(scan, box), timestep=level)
                    records.append(
                        record(
                            scan,
                            model,
                            join_boxes(prediction, scan),
                            prediction,
                            noised=noised,
                            timestep=level,
                            draws=1,
                            average="",
                        )
                    )
        records += _several_draws(models.ddpm, scan)
    return pd.DataFrame(records)


def _several_draws(model: Model, scan: Scan) -> list[dict[str, Any]]:
    """The whole-image model with as many network passes as four boxes take."""
    boxes = grid_boxes(scan, scan.image.shape[-1])
    drawn = [predict_boxes(model, scan, boxes, draw=draw) for draw in range(DRAWS)]
    rebuilt = [join_boxes(prediction, scan) for prediction in drawn]
    residuals = {
        "reconstructions": np.abs(scan.image - np.mean(rebuilt, axis=0)),
        "residuals": np.mean([np.abs(scan.image - one) for one in rebuilt], axis=0),
    }
    return [
        _of_residual(
            scan, model, residual, drawn, noised="slice", timestep=model.timestep, draws=DRAWS, average=average
        )
        for average, residual in residuals.items()
    ]


def processed_map(scan: Scan, reconstruction: np.ndarray, erosion: bool = True, median: bool = True) -> np.ndarray:
    """The anomaly map with its two steps on or off, `(D, H, W)` float32; with both on that of `anomaly_map`."""
    if median:
        return anomaly_map(scan.image, reconstruction, scan.brain_mask, EROSION_ITERATIONS if erosion else 0)
    return np.abs(scan.image - reconstruction) * erode_in_plane(scan.brain_mask, EROSION_ITERATIONS if erosion else 0)


def healthy_thresholds(models: Models, scans: Iterable[Scan]) -> pd.DataFrame:
    """The 0.99 quantile of healthy validation maps for every method and way of processing.

    Returns:
        Columns `method`, `erosion`, `median`, `threshold`, `subjects`.

    Raises:
        InputError: no scan.
    """
    quantiles = {
        (name, *switches): HealthyQuantile() for name in ("intensity", "ddpm", "pddpm") for switches in _SWITCHES
    }
    for scan in scans:
        for name, reconstruction in _reconstructions(models, scan).items():
            for erosion, median in _SWITCHES:
                inside = erode_in_plane(scan.brain_mask, EROSION_ITERATIONS if erosion else 0)
                quantiles[name, erosion, median].add(processed_map(scan, reconstruction, erosion, median)[inside])
    return pd.DataFrame(
        [
            {
                "method": name,
                "erosion": erosion,
                "median": median,
                "subjects": quantile.subjects,
                "threshold": quantile.threshold(HEALTHY_QUANTILES[RULE]),
            }
            for (name, erosion, median), quantile in quantiles.items()
        ]
    )


def post_processing(models: Models, scans: Iterable[Scan]) -> pd.DataFrame:
    """What do erosion, median and component filter each do, with a threshold made for each?

    Columns `erosion`, `median`, `components` (on or off), `auprc`, `dice`, `precision`, `recall`, `false_components`.
    AUPRC belongs to the map: the component filter cannot change it.
    """
    records = []
    for scan in scans:
        reconstructions = _reconstructions(models, scan)
        for model in models:
            for erosion, median in _SWITCHES:
                values = processed_map(scan, reconstructions[model.name], erosion, median)
                auprc = average_precision(values, scan.lesion_mask)
                for components in (True, False):
                    scores = _mask_scores(scan, values, models.thresholds[model.name, erosion, median], components)
                    records.append(
                        {
                            "dataset": scan.dataset,
                            "subject": scan.subject,
                            "method": model.name,
                            "erosion": erosion,
                            "median": median,
                            "components": components,
                            "auprc": auprc,
                            **{name: scores[name] for name in _MASK_SCORES},
                        }
                    )
    return pd.DataFrame(records)


def lesion_size_and_contrast(models: Models, scans: Iterable[SetTumour]) -> pd.DataFrame:
    """From which size and which contrast on is a tumour found?

    Columns `radius_mm`, `contrast`, `lesion_voxels`, `auprc`, `dice`, `precision`, `recall`, `false_components` and
    `detected` (at least a tenth of the tumour is in the mask); NaN where the tumour lies in none of the slices. The
    intensity threshold is the floor.
    """
    records = []
    for radius, contrast, scan in scans:
        for name, reconstruction in _reconstructions(models, scan).items():
            values = anomaly_map(scan.image, reconstruction, scan.brain_mask)
            scores = _mask_scores(scan, values, models.thresholds[name, True, True])
            records.append(
                {
                    "dataset": scan.dataset,
                    "subject": scan.subject,
                    "method": name,
                    "radius_mm": radius,
                    "contrast": contrast,
                    "lesion_voxels": int(np.count_nonzero(scan.lesion_mask)),
                    "auprc": average_precision(values, scan.lesion_mask),
                    **{name: scores[name] for name in _MASK_SCORES},
                    "detected": scores["lesions_detected"] / scores["lesions"] if scores["lesions"] else np.nan,
                }
            )
    return pd.DataFrame(records)


def _reconstructions(models: Models, scan: Scan) -> dict[str, np.ndarray]:
    """By method, the intensity threshold among them, as the benchmark makes them."""
    rebuilt = {"intensity": IntensityThreshold().reconstruct(scan)}
    for model in models:
        boxes = grid_boxes(scan, model.pipeline.config.box_size)
        rebuilt[model.name] = join_boxes(predict_boxes(model, scan, boxes), scan)
    return rebuilt


def _mask_scores(scan: Scan, values: np.ndarray, threshold: float, components: bool = True) -> dict[str, float]:
    return score_scan(
        values,
        scan.lesion_mask,
        scan.brain_mask,
        threshold,
        voxel_volume_ml=VOXEL_VOLUME_ML,
        max_voxels=MAX_DROPPED_VOXELS if components else 0,
    )


def record(
    scan: Scan, model: Model, reconstruction: np.ndarray, prediction: Prediction, **variant: Any
) -> dict[str, Any]:
    """One row of a table, from a reconstruction.

    Args:
        scan: that was rebuilt.
        model: that did it.
        reconstruction: `(D, H, W)` in [0, 1].
        prediction: the network's outputs, for what they cost.
        **variant: columns that tell variants apart.
    """
    return _of_residual(scan, model, np.abs(scan.image - reconstruction), [prediction], **variant)


def _of_residual(
    scan: Scan, model: Model, residual: np.ndarray, predictions: list[Prediction], **variant: Any
) -> dict[str, Any]:
    """One row, from a residual `(D, H, W)` and everything that was computed for it."""
    eroded = erode_in_plane(scan.brain_mask)
    values = median_filter(residual * eroded, eroded)
    lesion = scan.lesion_mask & eroded
    return {
        "dataset": scan.dataset,
        "subject": scan.subject,
        "method": model.name,
        **variant,
        "auprc": average_precision(values, scan.lesion_mask),
        "lesion_map": float(values[lesion].mean()) if lesion.any() else np.nan,
        "rest_map": float(values[eroded & ~scan.lesion_mask].mean()),
        "passes": sum(prediction.passes for prediction in predictions),
        "cpu_seconds": sum(prediction.cpu_seconds for prediction in predictions),
    }
