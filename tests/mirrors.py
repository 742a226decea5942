"""What the scripts of the interactive figures compute in a browser, computed again from the same `frames`.

All arrays are as displayed; levels are uint8 `(H, W)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pddm_utils.diffusion.boxes import BoxGrid, stitch
from pddm_utils.evaluation.metrics import dice
from pddm_utils.show.style import radiological
from pddm_utils.show.widgets.box_explorer import BoxExplorer
from pddm_utils.show.widgets.comparison import Comparison
from pddm_utils.show.widgets.component_explorer import ComponentExplorer
from pddm_utils.show.widgets.noise_explorer import DISPLAY_RANGE, ForwardExplorer
from pddm_utils.show.widgets.packing import TOP_LEVEL, to_levels, unpack
from pddm_utils.show.widgets.threshold_explorer import ThresholdExplorer
from pddm_utils.show.widgets.training_explorer import MEAN_OF, TrainingExplorer
from pddm_utils.show.widgets.volume_viewer import VolumeViewer

AXIS = {"axial": 0, "coronal": 1, "sagittal": 2}


def noisy(figure: ForwardExplorer, timestep: int, noise: str, schedule: str) -> np.ndarray:
    """The noisy slice, float64; x_0 in [-1, 1], noise packed in steps of 1/32 around 128."""
    shape, alpha_bar = figure.frames["size"], figure.frames["alpha_bars"][schedule][timestep]
    clean = unpack(figure.frames["image"], shape) / TOP_LEVEL * 2 - 1
    field = (unpack(figure.frames["noise"][noise], shape).astype(float) - 128) / 32
    return np.sqrt(alpha_bar) * clean + np.sqrt(1 - alpha_bar) * field


def noisy_levels(figure: ForwardExplorer, timestep: int, noise: str, schedule: str) -> np.ndarray:
    values = noisy(figure, timestep, noise, schedule).clip(-DISPLAY_RANGE, DISPLAY_RANGE)
    return to_levels((values / DISPLAY_RANGE + 1) / 2, 1.0)


def coverage(figure: BoxExplorer, box_size: int, stride: int) -> np.ndarray:
    """Number of boxes over each pixel."""
    return radiological(BoxGrid(tuple(figure.frames["size"]), box_size, stride).coverage.numpy())


def stitched(figure: BoxExplorer, box_size: int, stride: int) -> np.ndarray:
    """Levels of the slice stitched from made-up predictions: the slice plus an error of each box, -30 to 30."""
    size = tuple(figure.frames["size"])
    grid = BoxGrid(size, box_size, stride)
    errors = np.arange(len(grid)) * 37 % 61 - 30
    image = torch.from_numpy(radiological(unpack(figure.frames["image"], size)).astype(np.float64))
    predictions = image[None, None] + torch.from_numpy(errors)[:, None, None, None]
    whole = stitch(predictions, grid.boxes, torch.zeros(len(grid), dtype=torch.long), 1)[0, 0].numpy()
    return np.floor(radiological(whole).clip(0, TOP_LEVEL) + 0.5).clip(0, TOP_LEVEL).astype(np.uint8)


def found(figure: ThresholdExplorer, slice_index: int, level: int) -> np.ndarray:
    """What lies above a level in a shown slice, bool."""
    shape = (len(figure.frames["slices"]), *figure.frames["size"])
    return unpack(figure.frames["map"], shape)[figure.frames["slices"].index(slice_index)] > level


def residual(figure: ComponentExplorer, count: int) -> np.ndarray:
    """Residual levels of the slice rebuilt from so many components."""
    counts, size = figure.frames["counts"], figure.frames["size"]
    rebuilt = unpack(figure.frames["rebuilt"], (len(counts), *size))[counts.index(count)]
    difference = np.abs(unpack(figure.frames["image"], size).astype(float) - rebuilt)
    return np.minimum(np.floor(difference / figure.frames["limit"] + 0.5), TOP_LEVEL).astype(np.uint8)


def plane(figure: VolumeViewer, view: str, place: int, level: int, opacity: float) -> np.ndarray:
    """Colours of a plane, uint8 `(rows, columns, 3)`; the map shows above a level, with its share of the colour."""
    size = figure.frames["size"]
    image, levels = (
        unpack(figure.frames[name], size).take(place, axis=AXIS[view])[::-1, ::-1] for name in ("image", "map")
    )
    grey = image[..., None].astype(float)
    colours = unpack(figure.frames["palette"], (TOP_LEVEL + 1, 3))[levels]
    mixed = np.floor((1 - opacity) * grey + opacity * colours + 0.5)
    return np.where(levels[..., None] > level, mixed, grey).astype(np.uint8)


def slice_dice(comparison: Comparison, method: str, slice_index: int, timestep: int, level: int, source: str) -> float:
    """Dice of one slice: levels above a threshold against the lesion mask; NaN in a slice without a lesion."""
    above = comparison.levels(method, slice_index, timestep, source) > level
    return dice(above[None], comparison.plane("lesion", slice_index)[None] > 0)


def mean_loss(figure: TrainingExplorer, name: str, step: int) -> float:
    """Mean loss of up to ten steps that end at `step`; NaN before the first."""
    last = _learner(figure, name)["losses"][max(0, step - MEAN_OF) : step]
    return float(np.mean(last)) if last else float("nan")


def rebuilt_slice(figure: TrainingExplorer, name: str, step: int, slice_index: int) -> np.ndarray:
    """Levels of a slice as a model rebuilt it after a recorded step."""
    steps, slices = figure.frames["steps"], figure.frames["slices"]
    volume = unpack(_learner(figure, name)["rebuilt"], (len(steps), len(slices), *figure.frames["size"]))
    return volume[steps.index(step), slices.index(slice_index)]


def error_in_healthy_brain(figure: TrainingExplorer, name: str, step: int, slice_index: int) -> float:
    """Mean of |x - x^| over the brain in that slice, outside the lesion, in scaled intensity."""
    slices = figure.frames["slices"]
    shape, place = (len(slices), *figure.frames["size"]), slices.index(slice_index)
    image, healthy = (unpack(figure.frames[key], shape)[place] for key in ("image", "healthy"))
    difference = np.abs(image.astype(float) - rebuilt_slice(figure, name, step, slice_index))
    return float(difference[healthy > 0].mean()) / TOP_LEVEL


def _learner(figure: TrainingExplorer, name: str) -> dict[str, Any]:
    return next(one for one in figure.frames["learners"] if one["name"] == name)
