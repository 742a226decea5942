"""Reconstruction with every part open to change: which boxes, which noise, how many steps, how boxes are joined.

The defaults are those of `PatchedReconstructionPipeline`, and give what it gives; where boxes overlap, outputs are
clipped to the intensity range before they are averaged.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import nn

from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.boxes import BoxGrid, boxes_with_content, noise_boxes, random_boxes, stitch
from pddm_utils.diffusion.fast_cpu import for_inference
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, boxes_at_once
from pddm_utils.diffusion.sampling import ddim_reverse, trailing_timesteps
from pddm_utils.methods.base import subject_seed


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        name: of its method, `ddpm` or `pddpm`.
        pipeline: network, schedule, box size.
        timestep: noise level that was chosen for it on validation subjects.
    """

    name: str
    pipeline: PatchedReconstructionPipeline
    timestep: int


@dataclass(frozen=True)
class Models:
    """The two models of the comparison, and thresholds from healthy validation scans.

    Attributes:
        ddpm: trained on whole slices.
        pddpm: trained on boxes of 48 px.
        thresholds: by (method, erosion, median), see `healthy_thresholds`; only where a mask is scored.
    """

    ddpm: Model
    pddpm: Model
    thresholds: Mapping[tuple[str, bool, bool], float] = field(default_factory=dict)

    def __iter__(self):
        return iter((self.ddpm, self.pddpm))


class Boxes(NamedTuple):
    """Boxes of a scan's slices: int64 rows `(P, 4)` and the slice `(P,)` each lies in."""

    rows: torch.Tensor
    slice_index: torch.Tensor


class Prediction(NamedTuple):
    """Network outputs `(P, 1, H, W)` in [-1, 1], their boxes, and what they cost.

    `passes` counts slices the network saw, `cpu_seconds` the process's CPU time in them.
    """

    outputs: torch.Tensor
    boxes: Boxes
    passes: int
    cpu_seconds: float


def grid_boxes(scan: Scan, box_size: int, stride: int | None = None, times: int = 1) -> Boxes:
    """The boxes of a fixed grid that hold brain.

    Args:
        scan: a prepared scan.
        box_size: side in pixels.
        stride: step in pixels; the box size when left out.
        times: how often each box is listed, each time with noise of its own.
    """
    grid = BoxGrid(tuple(scan.image.shape[1:]), box_size, stride)
    pairs = boxes_with_content(grid.boxes, torch.from_numpy(scan.brain_mask)[:, None]).nonzero().repeat(times, 1)
    return Boxes(grid.boxes[pairs[:, 1]], pairs[:, 0])


def scattered_boxes(scan: Scan, box_size: int, count: int) -> Boxes:
    """`count` boxes a slice at random places inside it, drawn from the subject's seed.

    Args:
        scan: a prepared scan.
        box_size: side in pixels.
        count: boxes a slice.
    """
    slices = len(scan.image)
    generator = torch.Generator().manual_seed(subject_seed(scan))
    rows = random_boxes(slices * count, tuple(scan.image.shape[1:]), box_size, generator)
    return Boxes(rows, torch.arange(slices).repeat_interleave(count))


@torch.inference_mode()
def predict_boxes(
    model: Model,
    scan: Scan,
    boxes: Boxes,
    *,
    timestep: int | None = None,
    noise: str = "gaussian",
    shared: bool = False,
    steps: int = 1,
    draw: int = 0,
) -> Prediction:
    """Noise every box of a scan, clean context around it, and predict what was there.

    Args:
        model: a trained model.
        scan: a prepared scan.
        boxes: where to noise.
        timestep: noise level; the model's own when left out.
        noise: `gaussian` or `simplex`.
        shared: one noise field for all boxes of all slices, as in the authors' code, instead of one each.
        steps: DDIM steps back from the noise level; 1 is the one-step prediction. The context stays clean throughout.
        draw: number of the noise draw; 0 is that of the benchmark.

    Raises:
        InputError: more steps than noise levels.
    """
    started = time.process_time()
    pipeline, level = model.pipeline, model.timestep if timestep is None else timestep
    indices, device = trailing_timesteps(level, steps), model.pipeline.device
    clean = torch.from_numpy(scan.image)[:, None].to(device) * 2 - 1
    rows, slice_index = boxes.rows.to(device), boxes.slice_index.to(device)
    generator = torch.Generator().manual_seed(subject_seed(scan) + draw)
    fields = NOISES[noise]((1 if shared else len(rows), *clean.shape[1:]), generator=generator, device=device)
    fields = fields.expand(len(rows), *fields.shape[1:])
    networks = {index: for_inference(pipeline.unet, index) for index in indices}
    outputs = [
        _walk_back(networks, pipeline.scheduler, clean[slice_index[part]], fields[part], rows[part])
        for part in torch.arange(len(rows), device=device).split(boxes_at_once(device))
    ]
    outputs = torch.cat(outputs) if outputs else torch.empty_like(clean[:0])
    return Prediction(outputs, Boxes(rows, slice_index), len(rows) * steps, time.process_time() - started)


def _walk_back(
    networks: dict[int, nn.Module],
    scheduler: DDPMScheduler,
    clean: torch.Tensor,
    noise: torch.Tensor,
    boxes: torch.Tensor,
) -> torch.Tensor:
    """x_0 of a batch of boxed slices, all `(P, 1, H, W)`; `networks` by timestep, the largest first."""
    indices = list(networks)
    noisy = scheduler.add_noise(clean, noise, torch.full((len(clean),), indices[0], device=clean.device))

    def predict(noisy: torch.Tensor, index: int) -> torch.Tensor:
        return networks[index](noise_boxes(clean, noisy, boxes), index).sample

    return ddim_reverse(predict, noisy, indices, scheduler.alphas_cumprod)


def join_boxes(prediction: Prediction, scan: Scan, overlap: str = "mean") -> np.ndarray:
    """One volume from predicted boxes; where none lies, the scan itself.

    Args:
        prediction: of that scan.
        scan: a prepared scan.
        overlap: `mean` averages where boxes overlap; `last` pastes one over the other in their order.

    Returns:
        `(D, H, W)` float32 in [0, 1].
    """
    outputs, (rows, slice_index) = prediction.outputs, prediction.boxes
    clean = torch.from_numpy(scan.image)[:, None].to(outputs.device) * 2 - 1
    if overlap == "mean":
        joined = stitch(outputs, rows, slice_index, len(clean), fill=clean)
    else:
        joined = clean.clone()
        for output, (top, left, height, width), index in zip(outputs, rows.tolist(), slice_index.tolist(), strict=True):
            place = (slice(None), slice(top, top + height), slice(left, left + width))
            joined[index][place] = output[place]
    return ((joined.clamp(-1, 1) + 1) / 2)[:, 0].cpu().numpy()


def uncovered_share(boxes: Boxes, scan: Scan) -> float:
    """Share of the brain's voxels that no box covers."""
    size = (len(boxes.rows), 1, *scan.image.shape[1:])
    covered = stitch(torch.ones(size), boxes.rows.cpu(), boxes.slice_index.cpu(), len(scan.image))[:, 0].numpy() > 0
    return float(np.count_nonzero(scan.brain_mask & ~covered) / np.count_nonzero(scan.brain_mask))
