"""Training on healthy slices: one loop for the whole-image and the patched model.

Every draw (slice, noise level, noise field, box) is a function of the seed and the global number of the sample, so
a resumed run, and a run split over several processes, see exactly the samples of an undisturbed single process.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import UNet2DModel
from tqdm.auto import tqdm

from pddm_utils.diffusion.boxes import BoxGrid, box_mask, noise_boxes, random_grid_boxes
from pddm_utils.diffusion.checkpoint import load_checkpoint, replace_folder, save_checkpoint
from pddm_utils.diffusion.network import make_network
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, make_scheduler
from pddm_utils.errors import InputError
from pddm_utils.settings import Settings

VALIDATION_DRAWS = 64  # fixed (slice, noise level, noise, box) draws, the same for every model and seed
_VALIDATION_SEED = 20230710


class SliceSource(Protocol):
    """Healthy slices, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """One slice, `(H, W)` float32 in [0, 1]."""


@dataclass(frozen=True)
class Batch:
    """Inputs of one step: `clean`, `noisy` and `mask` `(B, 1, H, W)`, `timesteps` `(B,)`."""

    clean: torch.Tensor
    noisy: torch.Tensor
    mask: torch.Tensor
    timesteps: torch.Tensor


class SampleDrawer:
    """Draws the training samples of one model: slice, noise level, noise field and box.

    Args:
        source: healthy slices.
        settings: noise type, schedule, and how often each noise level is drawn.
        grid: one cell is drawn per sample; a grid of one box is whole-image diffusion.
        seed: of all draws.
    """

    def __init__(self, source: SliceSource, settings: Settings, grid: BoxGrid, seed: int) -> None:
        if len(source) == 0:
            raise InputError("no training slices; check the manifest's train rows")
        self.source, self.grid, self.seed = source, grid, seed
        self.noise, self.timestep_power = NOISES[settings.noise], settings.timestep_power
        self.scheduler = make_scheduler(settings.schedule)
        self.levels = self.scheduler.config.num_train_timesteps

    def draw(self, samples: range, device: torch.device | str = "cpu") -> Batch:
        """The samples with these global numbers, whatever batch or process they fall in."""
        slices, timesteps, generators = [], [], []
        for number in samples:
            rng = np.random.default_rng([self.seed, number])
            slices.append(torch.from_numpy(self.source[int(rng.integers(len(self.source)))]))
            timesteps.append(self._timestep(int(rng.integers(self.levels))))
            generators.append(torch.Generator().manual_seed(int(rng.integers(2**62))))
        clean = (torch.stack(slices)[:, None] * 2 - 1).to(device)  # (B, 1, H, W)
        steps = torch.tensor(timesteps, device=device)
        noise = self.noise(tuple(clean.shape), generator=generators, device=clean.device, dtype=clean.dtype)
        boxes = random_grid_boxes(len(clean), self.grid, generators).to(device)
        noisy = noise_boxes(clean, self.scheduler.add_noise(clean, noise, steps), boxes)
        return Batch(clean, noisy, box_mask(boxes, tuple(clean.shape[-2:])), steps)

    def _timestep(self, uniform: int) -> int:
        """A uniform index as it is for power 1; larger powers move it towards the high noise levels."""
        return int(self.levels * ((uniform + 0.5) / self.levels) ** (1 / self.timestep_power))


def box_loss(prediction: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """L1 between x_0 and its prediction, averaged inside the box, then over the batch (paper, section 3).

    Args:
        prediction, clean: `(B, 1, H, W)`.
        mask: `(B, 1, H, W)` bool, True inside the box.
    """
    inside = (prediction - clean).abs() * mask
    return (inside.flatten(1).sum(1) / mask.flatten(1).sum(1)).mean()


def learning_rate_at(step: int, steps: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def mixed_precision(settings: Settings) -> str:
    """accelerate's precision: `auto` is bf16 on a GPU that has it and fp32 elsewhere.

    On the 2-core CPUs this was measured on, bf16 autocast made a step of the laptop network slower.
    """
    if settings.mixed_precision != "auto":
        return settings.mixed_precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


class Trainer:
    """One training run with checkpoints; `run` starts it, or goes on where it was interrupted.

    Args:
        settings: the run's settings.
        method: `ddpm` (one box of the slice's size) or `pddpm`.
        seed: of the network's first weights and of every draw.
        train, val: healthy slices.
        folder: the finished pipeline; the checkpoint lies beside it until then.
    """

    def __init__(
        self, settings: Settings, method: str, seed: int, train: SliceSource, val: SliceSource, folder: Path
    ) -> None:
        self.settings, self.method, self.seed, self.folder = settings, method, seed, Path(folder)
        self.steps = settings.steps_for(seed)
        self.size = train[0].shape[-1]
        box, stride = (settings.box_size, settings.stride) if method == "pddpm" else (self.size, self.size)
        self.grid = BoxGrid(self.size, box, stride)
        self.drawer = SampleDrawer(train, settings, self.grid, seed)
        self.validation = SampleDrawer(val, settings, self.grid, _VALIDATION_SEED)
        self.checkpoint = self.folder.with_name(f"{self.folder.name}.checkpoint.safetensors")
        self.accelerator = Accelerator(
            mixed_precision=mixed_precision(settings), cpu=not torch.cuda.is_available()
        )
        if settings.batch_size % self.accelerator.num_processes:
            raise InputError(f"setting batch_size={settings.batch_size}; it must be a multiple of the "
                             f"{self.accelerator.num_processes} processes")
        set_seed(seed)
        network = make_network(settings.network, self.size)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.averaged = {name: p.detach().clone() for name, p in self._bare.named_parameters()}
        self.state = {"step": 0, "seconds": 0.0, "cpu_seconds": 0.0, "history": []}

    @property
    def _bare(self) -> UNet2DModel:
        return self.accelerator.unwrap_model(self.network)

    def run(self) -> Path:
        """Train to the last step and save the averaged weights as a fp16 pipeline.

        Returns:
            The pipeline's folder; with it `training.json` (settings, loss history, times).
        """
        key = self.settings.training_key(self.method, self.seed)
        if finished_key(self.folder) == key:
            self.checkpoint.unlink(missing_ok=True)  # left over when the run was killed in its last moment
            return self.folder
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._resume(key)
        main = self.accelerator.is_main_process
        bar = tqdm(range(self.state["step"], self.steps), initial=self.state["step"], total=self.steps,
                   desc=f"{self.method} seed {self.seed}", disable=not main, mininterval=2.0)
        wall, cpu = time.perf_counter(), time.process_time()
        for step in bar:
            loss = self.step(step)
            done = step + 1
            if done % self.settings.checkpoint_every == 0 or done == self.steps:
                self._record(done, loss, time.perf_counter() - wall, time.process_time() - cpu)
                wall, cpu = time.perf_counter(), time.process_time()
                bar.set_postfix(self.state["history"][-1] | {"step": done})
                if main:
                    save_checkpoint(self.checkpoint, self._bare, self.averaged, self.optimizer.optimizer,
                                    {**self.state, "key": key})
        if main:
            self._save(key)
        self.accelerator.wait_for_everyone()
        return self.folder

    def step(self, step: int) -> float:
        """One optimiser step on this process's share of the global batch; returns the loss over all of it."""
        share = self.settings.batch_size // self.accelerator.num_processes
        first = step * self.settings.batch_size + self.accelerator.process_index * share
        batch = self.drawer.draw(range(first, first + share), self.accelerator.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.steps, self.settings)
        with self.accelerator.autocast():
            prediction = self.network(batch.noisy, batch.timesteps).sample
        loss = box_loss(prediction.float(), batch.clean, batch.mask)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._average(step)
        return self.accelerator.reduce(loss.detach(), "mean").item()

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Exponential moving average; the decay grows from 0 so that the first weights are soon forgotten."""
        decay = min(self.settings.ema_decay, (1 + step) / (10 + step))
        current = [p.detach() for _, p in self._bare.named_parameters()]
        torch._foreach_lerp_(list(self.averaged.values()), current, 1 - decay)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Loss of the averaged weights on the fixed validation draws."""
        network = make_network(self.settings.network, self.size).to(self.accelerator.device).eval()
        network.load_state_dict(self.averaged)
        losses = []
        for start in range(0, VALIDATION_DRAWS, 16):
            batch = self.validation.draw(range(start, start + 16), self.accelerator.device)
            losses.append(box_loss(network(batch.noisy, batch.timesteps).sample, batch.clean, batch.mask).item())
        return float(np.mean(losses))

    def _record(self, done: int, loss: float, seconds: float, cpu_seconds: float) -> None:
        entry = {"step": done, "loss": round(loss, 6), "validation_loss": round(self.validation_loss(), 6)}
        self.state["step"] = done
        self.state["seconds"] += seconds
        self.state["cpu_seconds"] += cpu_seconds
        self.state["history"].append(entry)

    def _resume(self, key: str) -> None:
        if not self.checkpoint.is_file():
            return
        state = load_checkpoint(self.checkpoint, self._bare, self.averaged, self.optimizer.optimizer)
        if state.pop("key") != key:
            raise InputError(f"{self.checkpoint}: written with other settings; delete it to train with these")
        self.state = state

    def _save(self, key: str) -> None:
        network = make_network(self.settings.network, self.size)
        network.load_state_dict({k: v.cpu() for k, v in self.averaged.items()})
        pipeline = PatchedReconstructionPipeline(
            network.half(), make_scheduler(self.settings.schedule),
            self.grid.box_size[0], self.grid.stride[0], self.settings.noise, self.settings.authors_timestep,
        )
        temporary = self.folder.with_name(f".{self.folder.name}.new")
        pipeline.save_pretrained(temporary)
        record = {"key": key, "method": self.method, "seed": self.seed, "settings": self.settings.to_dict(),
                  "processes": self.accelerator.num_processes, **self.state}
        (temporary / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        replace_folder(temporary, self.folder)
        self.checkpoint.unlink(missing_ok=True)


def finished_key(folder: Path) -> str | None:
    """Key of the training run whose finished pipeline lies in `folder`, or None."""
    record = folder / "training.json"
    return read_training(folder)["key"] if record.is_file() else None


def read_training(folder: Path) -> Mapping:
    """What `Trainer` wrote about a finished run: settings, loss history, times."""
    return json.loads((Path(folder) / "training.json").read_text(encoding="utf-8"))
