"""The picture of the page about the method: one slice, step by step."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from pddm_utils.core.files import whole_file
from pddm_utils.data.examples import example_scan
from pddm_utils.data.scan import Scan
from pddm_utils.detection.model import load_model
from pddm_utils.diffusion.boxes import BoxGrid, box_mask, noise_boxes
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.show.figures import FOUND_COLOUR, RESIDUAL_COLOURS, telling_slice
from pddm_utils.show.style import colour_limit, frame_box, outline, panel, radiological, styled

MODEL = "simulated-t2-pddpm"
BOX_COLOUR = "#E69F00"


def save_method_picture(runs: Path, out: Path, subject: int = 0) -> None:
    """Draw what the shipped pDDPM does with one simulated scan with a tumour.

    Args:
        runs: prepared scans are kept here.
        out: the PNG to write; its ground is transparent.
        subject: of `example_scan`.

    Raises:
        InputError: there is no such subject.
    """
    figure = method_picture(example_scan("tumour", subject=subject, runs=runs))
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=220, format="png", facecolor="none")


@styled
def method_picture(scan: Scan) -> Figure:
    """Scan, noise in a box, its prediction, the stitched slice, the residual and the mask, as six panels."""
    model, index = load_model(MODEL), telling_slice(scan)
    pipeline = model.pipeline
    rebuilt = pipeline.reconstruct_volume(scan.image, scan.brain_mask, seed=0)
    values = anomaly_map(scan.image, rebuilt, scan.brain_mask)[index]
    box, noisy, predicted = _one_box(scan, index, pipeline)
    residual = np.abs(scan.image[index] - rebuilt[index]) * scan.brain_mask[index]
    figure, axes = plt.subplots(2, 3, figsize=(6.4, 4.7), layout="constrained")
    steps = {
        "a scan": scan.image[index],
        "1. noise in a box": noisy,
        "2. predict the box": predicted,
        "3. all boxes, stitched": rebuilt[index],
    }
    for one, (title, plane) in zip(axes.flat, steps.items(), strict=False):
        panel(one, plane, title)
    for one in axes.flat[1:3]:
        frame_box(one, box, scan.image[index].shape, BOX_COLOUR, lw=2)
    panel(axes[1, 1], residual, "4. residual", cmap=RESIDUAL_COLOURS, vmax=colour_limit(residual))
    panel(axes[1, 2], scan.image[index], "5. filter, threshold: mask")
    found = np.where(values > model.threshold, 1.0, np.nan)
    axes[1, 2].imshow(radiological(found), cmap=ListedColormap([FOUND_COLOUR]), alpha=0.7, interpolation="nearest")
    for one in (axes[0, 0], axes[1, 2]):
        outline(one, scan.lesion_mask[index])
    return figure


def _one_box(
    scan: Scan, index: int, pipeline: PatchedReconstructionPipeline
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The box with most lesion, the slice `(H, W)` with noise in it, and with the network's answer in it."""
    clean, noised, level = noised_slice(scan.image[index], pipeline)
    box = lesion_box(scan.lesion_mask[index], pipeline)
    noisy = noise_boxes(clean, noised, box)
    with torch.no_grad():
        predicted = noise_boxes(clean, pipeline.unet(noisy, level).sample, box)
    seen, rebuilt = ((one[0, 0].numpy() + 1) / 2 for one in (noisy, predicted))
    return box[0].tolist(), seen, rebuilt


def noised_slice(
    plane: np.ndarray, pipeline: PatchedReconstructionPipeline
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A slice `(H, W)` as the network takes it, the same with the pipeline's noise all over it, and the noise level."""
    clean = torch.from_numpy(plane)[None, None] * 2 - 1
    level = torch.tensor([pipeline.config.timestep])
    noise = NOISES[pipeline.config.noise](tuple(clean.shape), torch.Generator().manual_seed(0))
    return clean, pipeline.scheduler.add_noise(clean, noise, level), level


def lesion_box(lesion: np.ndarray, pipeline: PatchedReconstructionPipeline) -> torch.Tensor:
    """The box of the pipeline's grid, `(1, 4)`, with most of a slice's lesion `(H, W)`."""
    boxes = BoxGrid(tuple(lesion.shape), pipeline.config.box_size).boxes
    inside = (box_mask(boxes, tuple(lesion.shape))[:, 0].numpy() & lesion).sum(axis=(1, 2))
    return boxes[[int(inside.argmax())]]
