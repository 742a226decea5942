"""The picture that a shared link shows: what a patched diffusion model does to one simulated scan."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from pddm_utils.core.files import whole_file
from pddm_utils.core.settings import Settings
from pddm_utils.core.shipped import weights_folder
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.boxes import BoxGrid, box_mask, noise_boxes
from pddm_utils.diffusion.noise import gaussian_noise
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.show.figures import RESIDUAL_COLOURS, telling_slice
from pddm_utils.show.style import radiological

TITLE, SUBTITLE = "Patched diffusion\nfor brain MRI", "Find lesions with a model\nthat has never seen one."
NOTE = "A simulated scan with a simulated tumour"
_GROUND, _INK, _SOFT, _BOX = "#15191f", "#ffffff", "#a9b1ba", "#f0a264"
_INCHES, _DPI = (12.0, 6.3), 100  # 1200 x 630 pixels, as link previews show them


def save_social_preview(settings: Settings, runs: Path, out: Path) -> None:
    """Draw the first test subject with a tumour: scan, noise in a box, reconstruction, anomaly map.

    Args:
        settings: a profile of the simulated cohort.
        runs: prepared scans are kept here.
        out: the PNG to write, 1200 x 630 pixels.
    """
    row = next(row for row in cohort_rows(settings) if row.split == "test" and row.dataset == "simulated-t2-tumour")
    scan = load_scan(row, ScanCache(runs / "cache"))
    pipeline = load_pipeline(weights_folder("simulated-t2-pddpm"))
    figure = plt.figure(figsize=_INCHES, dpi=_DPI, facecolor=_GROUND)
    for place, (title, plane, style) in enumerate(_panels(scan, pipeline)):
        left, bottom = 0.465 + 0.262 * (place % 2), 0.515 - 0.485 * (place // 2)
        axes = figure.add_axes((left, bottom, 0.25, 0.44))
        axes.imshow(radiological(plane), interpolation="nearest", **style)
        axes.text(3, 91, title, color=_INK, fontsize=13, va="center")
        axes.set_axis_off()
    figure.text(0.04, 0.66, TITLE, color=_INK, fontsize=34, fontweight="bold", va="center", linespacing=1.25)
    figure.text(0.04, 0.40, SUBTITLE, color=_BOX, fontsize=21, va="center", linespacing=1.4)
    figure.text(0.04, 0.10, NOTE, color=_SOFT, fontsize=13)
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=_DPI, facecolor=_GROUND)
    plt.close(figure)


def _panels(scan: Scan, pipeline: PatchedReconstructionPipeline) -> list[tuple[str, np.ndarray, dict]]:
    """Title, plane `(H, W)` and style of each picture, at the slice with most lesion."""
    index = telling_slice(scan)
    rebuilt = pipeline.reconstruct_volume(scan.image, scan.brain_mask, seed=0)
    found = anomaly_map(scan.image, rebuilt, scan.brain_mask)[index]
    clean = torch.from_numpy(scan.image[index])[None, None] * 2 - 1
    noise = gaussian_noise(clean.shape, torch.Generator().manual_seed(0))
    noisy = pipeline.scheduler.add_noise(clean, noise, torch.tensor([pipeline.config.timestep]))
    boxes = BoxGrid(tuple(clean.shape[-2:]), pipeline.config.box_size).boxes
    inside = (box_mask(boxes, tuple(clean.shape[-2:]))[:, 0].numpy() & scan.lesion_mask[index]).sum(axis=(1, 2))
    boxed = noise_boxes(clean, noisy, boxes[[int(inside.argmax())]])[0, 0].numpy()
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
    return [
        ("scan", scan.image[index], grey),
        ("noise in a box", (boxed + 1) / 2, grey),
        ("reconstruction", rebuilt[index], grey),
        ("anomaly map", found, {"cmap": RESIDUAL_COLOURS, "vmin": 0, "vmax": max(0.05, found.max())}),
    ]
