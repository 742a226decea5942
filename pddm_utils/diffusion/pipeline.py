"""One diffusers pipeline that turns slices into pseudo-healthy slices, patched or whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel
from diffusers.utils import BaseOutput
from diffusers.utils.logging import disable_progress_bar

from pddm_utils.core.errors import InputError
from pddm_utils.diffusion.boxes import BoxGrid, Generators, boxes_with_content, noise_boxes, stitch
from pddm_utils.diffusion.fast_cpu import inference_network
from pddm_utils.diffusion.memory import keep_freed_memory
from pddm_utils.diffusion.noise import NOISES


@dataclass
class ReconstructionOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        reconstruction: pseudo-healthy slices x^, `(B, 1, H, W)` float32 in [0, 1].
        forward_passes: number of (slice, box) pairs the network saw.
    """

    reconstruction: torch.Tensor
    forward_passes: int


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
        seed: int | None = None,
        generator: Generators = None,
        max_boxes: int | None = None,
    ) -> ReconstructionOutput:
        """Reconstruct slices with one forward pass a box.

        Args:
            slices: `(B, 1, H, W)` in [0, 1].
            brain_mask: `(B, 1, H, W)` bool; boxes without brain are not computed and keep the slice. All of
                the slice counts when left out.
            timestep: noise level, 0-999; the pipeline's own when left out.
            seed: seeds the noise when no `generator` is given; the same seed gives the same result.
            generator: source of the noise fields; one field is drawn per (slice, box) pair.
            max_boxes: boxes in one network call, which bounds the memory; `boxes_at_once` when left out.

        Raises:
            InputError: slices of the wrong shape or range, or a timestep outside the schedule.
        """
        clean, active = self._check(slices, brain_mask)
        timestep = self.config.timestep if timestep is None else timestep
        if not 0 <= timestep < self.scheduler.config.num_train_timesteps:
            raise InputError(f"timestep {timestep}; use 0 to {self.scheduler.config.num_train_timesteps - 1}")
        if generator is None and seed is not None:
            generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
        grid = BoxGrid(tuple(clean.shape[-2:]), self.config.box_size, self.config.stride)
        pairs = boxes_with_content(grid.boxes, active).nonzero()  # (P, 2): slice, box
        slice_index, boxes = pairs[:, 0], grid.boxes.to(clean.device)[pairs[:, 1]]
        draw = NOISES[self.config.noise]
        noise = draw((len(pairs), *clean.shape[1:]), generator=generator, device=clean.device, dtype=clean.dtype)
        predictions = torch.empty_like(noise)
        max_boxes = max_boxes or boxes_at_once(clean.device)
        network, dtype = inference_network(self.unet, timestep), self.unet.dtype
        for start in range(0, len(pairs), max_boxes):
            part = slice(start, start + max_boxes)
            inputs = self._noisy(clean[slice_index[part]], noise[part], boxes[part], timestep)
            predictions[part] = network(inputs.to(dtype), timestep).sample.to(clean.dtype)
        stitched = stitch(predictions, boxes, slice_index, len(clean), fill=clean)
        return ReconstructionOutput((stitched.clamp(-1, 1) + 1) / 2, len(pairs))

    def _noisy(self, clean: torch.Tensor, noise: torch.Tensor, boxes: torch.Tensor, timestep: int) -> torch.Tensor:
        """x~_t, noised inside one box a row: all `(P, 1, H, W)`."""
        steps = torch.full((len(clean),), timestep, dtype=torch.long, device=clean.device)
        return noise_boxes(clean, self.scheduler.add_noise(clean, noise, steps), boxes)

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
        self, image: np.ndarray, brain_mask: np.ndarray, timestep: int | None = None, seed: int = 0
    ) -> np.ndarray:
        """Reconstruct a prepared volume.

        Args:
            image: `(D, H, W)` float32 in [0, 1].
            brain_mask: `(D, H, W)` bool.
            timestep: noise level; the pipeline's own when left out.
            seed: seeds the noise.

        Returns:
            `(D, H, W)` float32 in [0, 1], equal to `image` where no box with brain lies.
        """
        output = self(torch.from_numpy(image)[:, None], torch.from_numpy(brain_mask)[:, None], timestep, seed)
        return output.reconstruction[:, 0].cpu().numpy()


def boxes_at_once(device: torch.device) -> int:
    """Boxes in one network call: few on a CPU, where the activations of more leave its caches."""
    return 8 if device.type == "cpu" else 32


def load_pipeline(folder: str | Path, image_size: int = 96) -> PatchedReconstructionPipeline:
    """Load a pipeline saved as a folder of safetensors, on the GPU when there is one.

    Without one the process keeps freed memory from here on, see `pddm_utils.diffusion.memory.keep_freed_memory`.

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
    # Out of the file's own bytes: at another alignment other vector kernels run, and results differ by 1e-6.
    for parameter in pipeline.unet.parameters():
        parameter.data = parameter.data.clone()
    if torch.cuda.is_available():
        return pipeline.to("cuda")
    keep_freed_memory()
    return pipeline
