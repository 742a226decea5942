"""Training with everything on the device: slices, draws, noise; between two steps the processor only launches work.

The loop, the checkpoints and the loss are those of `Trainer`. What differs is the source of the draws: one generator on
the device for each batch, seeded by the training's seed and the number of the batch's first sample, in the place of one
on the processor for each sample. So a resumed run sees the same samples; another batch size, or another kind of device,
other ones of the same distribution. Two processes see what one sees whose `micro_batch_size` is half its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState

from pddm_utils.training.loop import Objective, Trainer, set_learning_rate

_WARM_UP = 3  # passes before a graph is recorded: libraries choose their kernels, and memory is there


class DeviceSlices:
    """Slices in the memory of a device, a byte a pixel.

    Args:
        levels: `(N, H, W)` uint8; 0 to 255 stand for 0 to 1.
        device: where they lie.
    """

    def __init__(self, levels: np.ndarray, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.levels = torch.from_numpy(levels).to(self.device)

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, index: int) -> np.ndarray:
        """One slice, `(H, W)` float32 in [0, 1], on the processor."""
        return self.levels[index].cpu().numpy().astype(np.float32) / 255

    def draw(self, seed: int, samples: range) -> tuple[torch.Tensor, torch.Generator]:
        """Slices with these global sample numbers.

        Returns:
            Slices `(B, 1, H, W)` in [-1, 1], and the generator for whatever else the batch draws, both on the device.
        """
        state = np.random.SeedSequence([seed, samples.start]).generate_state(1, np.uint64)[0]
        generator = torch.Generator(self.device).manual_seed(int(state >> 1))
        index = torch.randint(len(self), (len(samples),), generator=generator, device=self.device)
        return self.levels[index][:, None].float() / 127.5 - 1, generator


class GraphedGradients:
    """Forward and backward pass of a batch as a CUDA graph: one launch instead of a thousand.

    Args:
        gradients: puts the gradients of a batch's loss into the network's parameters and returns the loss.
        network: whose gradients they are; each call replaces them, so they must not be zeroed or added to.
        batch: any dataclass of tensors; others that are passed later have its shapes.
    """

    def __init__(self, gradients: Callable[[Any], torch.Tensor], network: torch.nn.Module, batch: Any) -> None:
        self.batch = batch
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                network.zero_grad(set_to_none=True)
                gradients(batch)
        torch.cuda.current_stream().wait_stream(beside)
        network.zero_grad(set_to_none=True)  # so that the graph writes gradients of its own instead of adding to these
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = gradients(batch)

    def __call__(self, batch: Any) -> torch.Tensor:
        """The loss, in a tensor that the next call overwrites."""
        for name, mine in vars(self.batch).items():
            mine.copy_(getattr(batch, name))
        self.graph.replay()
        return self.loss


class DeviceTrainer(Trainer):
    """A `Trainer` whose step never waits for the device, but where a checkpoint is due.

    Args:
        objective: what is learnt; draws from `DeviceSlices`.
        seed: of the network's first weights and of every draw.
        train, val: healthy slices, on the device of this process.
        folder: the finished model.
        graph: whether forward and backward pass are a CUDA graph; on a GPU and without micro-batches only.
        channels_last: memory layout of the network.
    """

    def __init__(
        self,
        objective: Objective,
        seed: int,
        train: DeviceSlices,
        val: DeviceSlices,
        folder: Path,
        graph: bool = True,
        channels_last: bool = False,
    ) -> None:
        AcceleratorState._reset_state()  # an earlier training of this process may have had another precision
        super().__init__(objective, seed, train, val, folder)
        self.graph = graph and self.accelerator.device.type == "cuda" and not self.settings.micro_batch_size
        self._graphed: GraphedGradients | None = None
        if channels_last:
            for weight in (*self.network.parameters(), *self.ema.shadow_params):
                if weight.ndim == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def batch(self, step: int) -> Any:
        """What this process learns from in a step, on the device."""
        return self.objective.draw(self.train, self.seed, self._share(step), self.accelerator.device)

    def _share(self, step: int) -> range:
        share = self.settings.batch_size // self.accelerator.num_processes
        first = step * self.settings.batch_size + self.accelerator.process_index * share
        return range(first, first + share)

    def gradients(self, batch: Any) -> torch.Tensor:
        """Gradients of the loss of a batch, added to those there are; returns the loss."""
        # Without the cache of autocast, which would keep a graph's own copies of the weights.
        device, kind = self.accelerator.device.type, torch.bfloat16
        with torch.autocast(device, kind, self.accelerator.mixed_precision == "bf16", cache_enabled=False):
            loss = self.objective.loss(self.network, batch)
        loss.backward()
        return loss.detach()

    def replace_gradients(self, batch: Any) -> torch.Tensor:
        """The same in the place of those there are; no graph where the loss draws, from a generator in the batch."""
        if self.graph and all(isinstance(value, torch.Tensor) for value in vars(batch).values()):
            self._graphed = self._graphed or GraphedGradients(self.gradients, self.network, batch)
            return self._graphed(batch)
        self.network.zero_grad(set_to_none=True)
        return self.gradients(batch)

    def update(self, step: int) -> None:
        """One step of Adam and of the averaged weights with the gradients there are."""
        set_learning_rate(self.optimizer, self.objective.phase(step, self.steps), self.settings)
        self._average_gradients()
        self.optimizer.step()
        self.ema.optimization_step = step
        self.ema.step(self.network.parameters())

    def step(self, step: int) -> float:
        """One optimiser step on this process's share of the global batch.

        Returns:
            The loss over all of the batch where a checkpoint is due, elsewhere not a number: to know it is to wait.
        """
        if self.settings.micro_batch_size:
            self.network.zero_grad(set_to_none=True)
            loss = self.add_gradients(self._share(step))
        else:
            loss = self.replace_gradients(self.batch(step))
        self.update(step)
        if (step + 1) % self.settings.checkpoint_every and step + 1 < self.steps:
            return float("nan")
        return self.accelerator.reduce(loss, "mean").item()
