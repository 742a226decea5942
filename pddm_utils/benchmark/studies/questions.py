"""The questions of the ablations as data: which variants each compares, and what a variant's row holds.

A row has `dataset`, `subject`, `method`, the columns that tell the variants apart, `auprc`, and, where no mask is
scored, `lesion_map` and `rest_map` (mean anomaly map of the eroded brain inside and outside the lesion), `passes`
(slices the network saw) and `cpu_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pddm_utils.benchmark.studies.rebuild import INTENSITY, Model, Rebuild, Rebuilds, pasted
from pddm_utils.benchmark.studies.study import Variant
from pddm_utils.data.scan import VOXEL_VOLUME_ML, Scan
from pddm_utils.diffusion.boxes import Boxes, BoxGrid, stitch
from pddm_utils.evaluation.metrics import average_precision, score_scan
from pddm_utils.evaluation.postprocess import (
    EROSION_ITERATIONS,
    MAX_DROPPED_VOXELS,
    anomaly_map,
    erode_in_plane,
    median_filter,
)
from pddm_utils.evaluation.thresholds import HEALTHY_QUANTILES, HealthyQuantile

BOX_AND_STRIDE = ((16, 16), (24, 24), (32, 32), (48, 48), (64, 64), (96, 96), (48, 24), (48, 16))
NOISE_LEVELS = (100, 250, 400, 500, 625, 750, 818, 900)
ENSEMBLE = (250, 500, 750)
STEPS = (1, 2, 5, 10)
DRAWS = 4
RULE = "healthy-quantile-0.99"
_SWITCHES = tuple((erosion, median) for erosion in (True, False) for median in (True, False))
_RESIDUALS, _RECONSTRUCTIONS = "residuals", "reconstructions"

Models = Mapping[str, Model]  # `ddpm`, trained on whole slices, and `pddpm`, trained on boxes
Thresholds = Mapping[tuple[str, bool, bool], float]  # by method, erosion, median


def map_scores(variant: Variant, rebuilds: Rebuilds) -> dict[str, float]:
    """Scores of the anomaly map; of several reconstructions the residuals are averaged, unless `average` says else."""
    made = [rebuilds(variant.model, how) for how in variant.rebuilds]
    if variant.columns.get("average") == _RECONSTRUCTIONS:
        residual = np.abs(rebuilds.scan.image - np.mean([one.image for one in made], axis=0))
    else:
        residual = np.mean([np.abs(rebuilds.scan.image - one.image) for one in made], axis=0)
    costs = {"passes": sum(one.passes for one in made), "cpu_seconds": sum(one.cpu_seconds for one in made)}
    return {**_residual_scores(rebuilds.scan, residual), **costs}


def _residual_scores(scan: Scan, residual: np.ndarray) -> dict[str, float]:
    eroded = erode_in_plane(scan.brain_mask)
    values = median_filter(residual * eroded, eroded)
    lesion = scan.lesion_mask & eroded
    return {
        "auprc": average_precision(values, scan.lesion_mask),
        "lesion_map": float(values[lesion].mean()) if lesion.any() else np.nan,
        "rest_map": float(values[eroded & ~scan.lesion_mask].mean()),
    }


def visible_context(models: Models) -> list[Variant]:
    """Is it training on boxes, or what the network may see at test time? And what if both cost the same?

    Columns `noised` (`box`: one box of 48 px, clean context; `slice`: all of it), `timestep` (the levels that were
    chosen for either model), `draws` of the noise and `average`, over reconstructions or over residuals.
    """
    sizes = {"box": models["pddpm"].pipeline.config.box_size, "slice": _side(models)}
    levels = sorted({model.timestep for model in models.values()})
    once = [
        Variant(
            name, {"noised": noised, "timestep": level, "draws": 1, "average": ""}, (Rebuild(level=level, box=box),)
        )
        for name in models
        for noised, box in sizes.items()
        for level in levels
    ]
    drawn = tuple(Rebuild(box=sizes["slice"], draw=draw) for draw in range(DRAWS))  # as many passes as four boxes take
    columns = {"noised": "slice", "timestep": models["ddpm"].timestep, "draws": DRAWS}
    several = [Variant("ddpm", {**columns, "average": what}, drawn) for what in (_RECONSTRUCTIONS, _RESIDUALS)]
    return once + several


def box_size_and_stride(models: Models, grids: Iterable[tuple[int, int]] = BOX_AND_STRIDE) -> list[Variant]:
    """How do box and stride at test time matter to a model trained on boxes of 48 px?

    Columns `box_size`, `stride`, `overlap`: `mean` (true averages) or `last` (cut and paste).
    """
    return [
        Variant(
            "pddpm",
            {"box_size": box, "stride": stride, "overlap": overlap},
            (Rebuild(box=box, stride=stride),),
        )
        for box, stride in grids
        for overlap in (("mean", "last") if stride < box or _side(models) % stride else ("mean",))
    ]


def overlap_scores(variant: Variant, rebuilds: Rebuilds) -> dict[str, float]:
    """As `map_scores`, with boxes averaged or pasted where they overlap."""
    if variant.columns["overlap"] == "mean":
        return map_scores(variant, rebuilds)
    made, scan = rebuilds(variant.model, *variant.rebuilds), rebuilds.scan
    scores = _residual_scores(scan, np.abs(scan.image - pasted(scan, made)))
    return {**scores, "passes": made.passes, "cpu_seconds": made.cpu_seconds}


def box_placement(models: Models) -> list[Variant]:
    """Do boxes at random places do as well as a grid with as many?

    Columns `placement` (`grid` or `random`), `boxes` a slice, and `uncovered`, the share of the brain in no box. What
    no box covers is not assessed; its map is 0.
    """
    box = models["pddpm"].pipeline.config.box_size
    return [
        Variant(
            "pddpm",
            {"boxes": len(BoxGrid(_side(models), box, stride)), "placement": placement},
            (Rebuild(stride=stride, scattered=placement == "random"),),
        )
        for stride in (box, box // 2)
        for placement in ("grid", "random")
    ]


def placement_scores(variant: Variant, rebuilds: Rebuilds) -> dict[str, float]:
    """As `map_scores`, and what the boxes leave out."""
    made = rebuilds(variant.model, *variant.rebuilds)
    return {"uncovered": uncovered_share(made.boxes, rebuilds.scan), **map_scores(variant, rebuilds)}


def uncovered_share(boxes: Boxes, scan: Scan) -> float:
    """Share of the brain's voxels that no box covers."""
    size = (len(boxes.rows), 1, *scan.image.shape[1:])
    covered = stitch(torch.ones(size), boxes.rows.cpu(), boxes.slice_index.cpu(), len(scan.image))[:, 0].numpy() > 0
    return float(np.count_nonzero(scan.brain_mask & ~covered) / np.count_nonzero(scan.brain_mask))


def noise_level(
    models: Models, levels: tuple[int, ...] = NOISE_LEVELS, ensemble: tuple[int, ...] = ENSEMBLE
) -> list[Variant]:
    """Which noise level suits which lesion, and do several at once do better?

    Columns `timestep` (-1 for the ensemble), `alpha_bar` and `levels`: one, or those whose residuals are averaged.
    """
    variants = []
    for name, model in models.items():
        for level in sorted({*levels, *ensemble}):
            alpha_bar = float(model.pipeline.scheduler.alphas_cumprod[level])
            columns = {"timestep": level, "alpha_bar": alpha_bar, "levels": str(level)}
            variants.append(Variant(name, columns, (Rebuild(level=level),)))
        columns = {"timestep": -1, "alpha_bar": np.nan, "levels": "+".join(map(str, ensemble))}
        variants.append(Variant(name, columns, tuple(Rebuild(level=level) for level in ensemble)))
    return variants


def noise_kind(models: Models) -> list[Variant]:
    """What do other noise at test, and one field for all boxes, change for models trained with Gaussian fields?

    Columns `noise` (`gaussian` or `simplex`) and `fields` (`own` or `shared`).
    """
    return [
        Variant(name, {"noise": noise, "fields": fields}, (Rebuild(noise=noise, shared=fields == "shared"),))
        for name in models
        for noise in ("gaussian", "simplex")
        for fields in ("own", "shared")
    ]


def reverse_steps(models: Models) -> list[Variant]:
    """Is it worth walking back in several DDIM steps? Column `steps`."""
    return [Variant(name, {"steps": steps}, (Rebuild(steps=steps),)) for name in models for steps in STEPS]


def post_processing(models: Models) -> list[Variant]:
    """What do erosion, median and component filter each do, with a threshold made for each?

    Columns `erosion`, `median`, `components` (on or off), `auprc`, `dice`, `precision`, `recall`, `false_components`.
    AUPRC belongs to the map: the component filter cannot change it.
    """
    return [
        Variant(name, {"erosion": erosion, "median": median, "components": components})
        for name in models
        for erosion, median in _SWITCHES
        for components in (True, False)
    ]


def processing_scores(thresholds: Thresholds, variant: Variant, rebuilds: Rebuilds) -> dict[str, float]:
    """Scores of the map and of the mask with the steps that a variant switches on."""
    made, scan, switches = rebuilds(variant.model, *variant.rebuilds), rebuilds.scan, variant.columns
    values = processed_map(scan, made.image, switches["erosion"], switches["median"])
    threshold = thresholds[variant.model, switches["erosion"], switches["median"]]
    return _picked(values, scan, _mask_scores(scan, values, threshold, switches["components"]))


def lesion_size_and_contrast(models: Models) -> list[Variant]:
    """From which size and which contrast on is a tumour found?

    Columns `radius_mm`, `contrast`, `lesion_voxels`, `auprc`, `dice`, `precision`, `recall`, `false_components` and
    `detected` (at least a tenth of the tumour is in the mask); NaN where the tumour lies in none of the slices. The
    intensity threshold is the floor.
    """
    return [Variant(name, {}) for name in (INTENSITY, *models)]


def size_scores(thresholds: Thresholds, variant: Variant, rebuilds: Rebuilds) -> dict[str, float]:
    """Scores of the map and of the mask that the benchmark would make."""
    made, scan = rebuilds(variant.model, *variant.rebuilds), rebuilds.scan
    values = anomaly_map(scan.image, made.image, scan.brain_mask)
    scores = _mask_scores(scan, values, thresholds[variant.model, True, True])
    detected = scores["lesions_detected"] / scores["lesions"] if scores["lesions"] else np.nan
    voxels = int(np.count_nonzero(scan.lesion_mask))
    return {"lesion_voxels": voxels, **_picked(values, scan, scores), "detected": detected}


def _picked(values: np.ndarray, scan: Scan, scores: Mapping[str, float]) -> dict[str, float]:
    shown = ("dice", "precision", "recall", "false_components")
    return {"auprc": average_precision(values, scan.lesion_mask), **{name: scores[name] for name in shown}}


def _mask_scores(scan: Scan, values: np.ndarray, threshold: float, components: bool = True) -> dict[str, float]:
    return score_scan(
        values,
        scan.lesion_mask,
        scan.brain_mask,
        threshold,
        voxel_volume_ml=VOXEL_VOLUME_ML,
        max_voxels=MAX_DROPPED_VOXELS if components else 0,
    )


def processed_map(scan: Scan, reconstruction: np.ndarray, erosion: bool = True, median: bool = True) -> np.ndarray:
    """The anomaly map with its two steps on or off, `(D, H, W)` float32; with both on that of `anomaly_map`."""
    if median:
        return anomaly_map(scan.image, reconstruction, scan.brain_mask, EROSION_ITERATIONS if erosion else 0)
    return np.abs(scan.image - reconstruction) * erode_in_plane(scan.brain_mask, EROSION_ITERATIONS if erosion else 0)


def healthy_thresholds(models: Models, scans: Iterable[Scan]) -> list[tuple[str, bool, bool, float]]:
    """The 0.99 quantile of healthy validation maps: rows of method, erosion, median and threshold.

    Raises:
        InputError: no scan.
    """
    quantiles = {(name, *switches): HealthyQuantile() for name in (INTENSITY, *models) for switches in _SWITCHES}
    for scan in scans:
        rebuilds = Rebuilds(models, scan)
        for name, erosion, median in quantiles:
            inside = erode_in_plane(scan.brain_mask, EROSION_ITERATIONS if erosion else 0)
            values = processed_map(scan, rebuilds(name, Rebuild()).image, erosion, median)
            quantiles[name, erosion, median].add(values[inside])
    return [(*key, quantile.threshold(HEALTHY_QUANTILES[RULE])) for key, quantile in quantiles.items()]


def _side(models: Models) -> int:
    """Of a slice in pixels."""
    return models["ddpm"].pipeline.unet.config.sample_size


@dataclass(frozen=True)
class Question:
    """How a question is asked.

    Attributes:
        variants: what is compared, from the models.
        score: of a variant; where masks are scored, thresholds come first.
        kinds: of lesions.
        half: on half of the subjects, because it costs most.
        masks: whether it scores masks and so needs thresholds from healthy scans.
        tumours: on tumours of set size and contrast instead of the cohort's.
    """

    variants: Callable[[Models], list[Variant]]
    score: Callable[..., Mapping[str, Any]] = map_scores
    kinds: tuple[str, ...] = ("tumour",)
    half: bool = False
    masks: bool = False
    tumours: bool = False


QUESTIONS = {
    "visible_context": Question(visible_context),
    "box_size_and_stride": Question(box_size_and_stride, overlap_scores, half=True),
    "box_placement": Question(box_placement, placement_scores, half=True),
    "noise_level": Question(noise_level, kinds=("tumour", "ms"), half=True),
    "noise_kind": Question(noise_kind, half=True),
    "reverse_steps": Question(reverse_steps, half=True),
    "post_processing": Question(post_processing, processing_scores, masks=True),
    "lesion_size_and_contrast": Question(lesion_size_and_contrast, size_scores, half=True, masks=True, tumours=True),
}
