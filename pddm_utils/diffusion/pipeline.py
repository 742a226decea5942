"""One diffusers pipeline that turns slices into pseudo-healthy slices, patched or whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel
from diffusers.utils import BaseOutput
from diffusers.utils.logging import disable_progress_bar

from pddm_utils.core.errors import InputError
from pddm_utils.diffusion.boxes import Boxes, BoxGrid, grid_boxes, stitch
from pddm_utils.diffusion.fast_cpu import for_inference
from pddm_utils.diffusion.noise import NOISES, Generators
from pddm_utils.diffusion.sampling import Predict, noise_and_walk_back, trailing_timesteps


@dataclass
class ReconstructionOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        reconstruction: pseudo-healthy slices x^, `(B, 1, H, W)` float32 in [0, 1].
        forward_passes: number of slices the network saw.
        predictions: the network's outputs before they are stitched, `(P, 1, H, W)`, about in [-1, 1].
        boxes: the box and the slice of each of them.
    """

    reconstruction: torch.Tensor
    forward_passes: int
    predictions: torch.Tensor
    boxes: Boxes


def make_scheduler(beta_schedule: str = "squaredcos_cap_v2") -> DDPMScheduler:
    """The forward process with T = 1000 steps; the network predicts x_0 (`prediction_type="sample"`).

    The default is the cosine schedule of the paper's reproduction sheet.
    """
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule=beta_schedule, prediction_type="sample")


class PatchedReconstructionPipeline(DiffusionPipeline):
    """Noise one box at a time, predict x_0 in one step, stitch the boxes (Behrendt et al. 2023, section 3).

    A grid with one box of the slice's size is the whole-image DDPM, so one class serves both methods.

    Args:
        unet: predicts x_0 from `(B, 1, H, W)` in [-1, 1].
        scheduler: the forward process.
        box_size: side of a box in pixels.
        stride: distance of neighbouring boxes in pixels; overlaps are averaged.
        noise: `gaussian` or `simplex`.
        timestep: default noise level, an index of the schedule.

    Example:
        >>> pipe = PatchedReconstructionPipeline.from_pretrained("weights/simulated-t2-pddpm")  # doctest: +SKIP
        >>> pipe(torch.rand(4, 1, 96, 96), seed=0).reconstruction.shape  # doctest: +SKIP
        torch.Size([4, 1, 96, 96])
    """

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: DDPMScheduler,
        box_size: int = 48,
        stride: int = 48,
        noise: str = "gaussian",
        timestep: int = 499,
    ) -> None:
        super().__init__()
        if noise not in NOISES:
            raise InputError(f"noise {noise!r} does not exist; choose one of {', '.join(NOISES)}")
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(box_size=box_size, stride=stride, noise=noise, timestep=timestep)

    @torch.inference_mode()
    def __call__(
        self,
        slices: torch.Tensor,
        brain_mask: torch.Tensor | None = None,
        timestep: int | None = None,
        *,
        steps: int = 1,
        boxes: BoxGrid | Boxes | None = None,
        noise: str | torch.Tensor | None = None,
        seed: int | None = None,
        generator: Generators = None,
        max_boxes: int | None = None,
    ) -> ReconstructionOutput:
        """Reconstruct slices, box by box.

        Args:
            slices: `(B, 1, H, W)` in [0, 1].
            brain_mask: `(B, 1, H, W)` bool; boxes of a grid without brain are not computed and keep the slice. All
                of the slice counts when left out.
            timestep: noise level, 0-999; the pipeline's own when left out.
            steps: forward passes a box: 1 predicts x_0 at once, as published; more walk back with DDIM.
            boxes: a grid, or boxes at any places; the pipeline's own grid when left out.
            noise: `gaussian`, `simplex`, or fields that broadcast to `(P, 1, H, W)`, one for each box; of the
                pipeline's own kind when left out.
            seed: seeds the noise when no `generator` is given; on one machine the same seed gives the same result.
            generator: source of the noise fields; one field is drawn per (slice, box) pair.
            max_boxes: boxes in one network call, which bounds the memory; `boxes_at_once` when left out.

        Raises:
            InputError: slices of the wrong shape or range, a timestep outside the schedule, or more steps than
                noise levels.
        """
        clean, active = self._check(slices, brain_mask)
        timestep = self.config.timestep if timestep is None else timestep
        if not 0 <= timestep < self.scheduler.config.num_train_timesteps:
            raise InputError(f"timestep {timestep}; use 0 to {self.scheduler.config.num_train_timesteps - 1}")
        timesteps = trailing_timesteps(timestep, steps)
        if not isinstance(boxes, Boxes):
            own = BoxGrid(clean.shape[-2:], self.config.box_size, self.config.stride)
            boxes = grid_boxes(boxes or own, active)
        rows, index = boxes.rows.to(clean.device), boxes.slice_index.to(clean.device)
        if not isinstance(noise, torch.Tensor):
            if generator is None and seed is not None:
                generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
            draw = NOISES[noise or self.config.noise]
            noise = draw((len(rows), *clean.shape[1:]), generator=generator, device=clean.device, dtype=clean.dtype)
        noise, predict = noise.expand(len(rows), *clean.shape[1:]), self._predictor(timesteps)
        predictions = torch.empty_like(noise, memory_format=torch.contiguous_format)
        max_boxes = max_boxes or boxes_at_once(clean.device)
        for part in (slice(start, start + max_boxes) for start in range(0, len(rows), max_boxes)):
            predictions[part] = noise_and_walk_back(
                predict, self.scheduler, clean[index[part]], noise[part], rows[part], timesteps
            )
        stitched = stitch(predictions, rows, index, len(clean), fill=clean)
        reconstruction = (stitched.clamp(-1, 1) + 1) / 2
        return ReconstructionOutput(reconstruction, len(rows) * steps, predictions, Boxes(rows, index))

    def _predictor(self, timesteps: list[int]) -> Predict:
        """x_0 from `(x_t, t)` at these timesteps, in the dtype of x_t."""
        networks, dtype = {index: for_inference(self.unet, index) for index in timesteps}, self.unet.dtype
        return lambda noisy, index: networks[index](noisy.to(dtype), index).sample.to(noisy.dtype)

    def _check(self, slices: torch.Tensor, brain_mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Slices scaled to [-1, 1] on the network's device, and where there is something to reconstruct."""
        if slices.ndim != 4 or slices.shape[1] != 1 or not slices.is_floating_point():
            raise InputError(f"slices of shape {tuple(slices.shape)}, {slices.dtype}; pass float (B, 1, H, W)")
        if slices.numel() and not (0 <= slices.min() and slices.max() <= 1):
            raise InputError("slices outside [0, 1] or not finite; scale them with scale_to_unit_range first")
        if brain_mask is not None and brain_mask.shape != slices.shape:
            raise InputError(f"brain_mask of shape {tuple(brain_mask.shape)}; it must be {tuple(slices.shape)}")
        clean = slices.to(self.device, torch.float32) * 2 - 1
        active = torch.ones_like(clean, dtype=torch.bool) if brain_mask is None else brain_mask.to(self.device)
        return clean, active

    def reconstruct_volume(
        self, image: np.ndarray, brain_mask: np.ndarray, timestep: int | None = None, seed: int = 0, **options: Any
    ) -> np.ndarray:
        """Reconstruct a prepared volume.

        Args:
            image: `(D, H, W)` float32 in [0, 1].
            brain_mask: `(D, H, W)` bool.
            timestep: noise level; the pipeline's own when left out.
            seed: seeds the noise.
            **options: of a call, such as `steps` and `noise`.

        Returns:
            `(D, H, W)` float32 in [0, 1], equal to `image` where no box with brain lies.
        """
        output = self(
            torch.from_numpy(image)[:, None], torch.from_numpy(brain_mask)[:, None], timestep, seed=seed, **options
        )
        return output.reconstruction[:, 0].cpu().numpy()


def boxes_at_once(device: torch.device) -> int:
    """Boxes in one network call: few on a CPU, where the activations of more leave its caches."""
    return 8 if device.type == "cpu" else 32


def load_pipeline(folder: str | Path, image_size: int = 96) -> PatchedReconstructionPipeline:
    """Load a pipeline saved as a folder of safetensors, on the GPU when there is one.

    Args:
        folder: written by `PatchedReconstructionPipeline.save_pretrained`.
        image_size: side of the slices it will see, in pixels.

    Raises:
        InputError: no pipeline there, weights of another network, or another slice size.
    """
    folder = Path(folder)
    if not (folder / "model_index.json").is_file():
        raise InputError(f"{folder}: no model_index.json; pass a folder written by save_pretrained, or train first")
    disable_progress_bar()  # two small files need none
    try:
        pipeline = PatchedReconstructionPipeline.from_pretrained(
            folder,
            local_files_only=True,
            low_cpu_mem_usage=False,  # fp16 files into a float32 network
        )
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder}: weights and config do not belong together or a file is damaged "
            f"({str(error).splitlines()[0]}); use the folder as it was saved"
        ) from error
    if pipeline.unet.config.sample_size != image_size or pipeline.unet.config.in_channels != 1:
        raise InputError(
            f"{folder}: made for {pipeline.unet.config.in_channels} channel(s) of "
            f"{pipeline.unet.config.sample_size} px, not 1 of {image_size}; use a model of this project"
        )
    pipeline.set_progress_bar_config(disable=True)
    # Out of the file's own bytes: products of a matrix and a vector depend, by 1e-6, on where in memory they lie.
    for parameter in pipeline.unet.parameters():
        parameter.data = parameter.data.clone()
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
