"""Time and memory of a training on the device at hand, from a short measured warm-up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_COPIES = 5  # weights, gradients, Adam's two moments, averaged weights; all float32
_TIMED_SAMPLES = 4


@dataclass(frozen=True)
class TrainingEstimate:
    """What the steps that are left will take.

    Attributes:
        device: such as `cpu` or the name of the GPU.
        steps: that are left.
        seconds: of all of them.
        memory: bytes of weights, optimiser state and what the backward pass keeps of one micro-batch.
        device_memory: bytes the device has.
    """

    device: str
    steps: int
    seconds: float
    memory: int
    device_memory: int

    def __str__(self) -> str:
        hours = self.seconds / 3600
        span = f"{hours:.1f} hours" if hours >= 1 else f"{self.seconds / 60:.1f} minutes"
        text = (
            f"{self.device}: about {span} for {self.steps} steps ({self.seconds / self.steps:.2f} s a step), about "
            f"{self.memory / 1e9:.2f} GB of memory (the device has {self.device_memory / 1e9:.0f} GB)"
        )
        if self.memory > self.device_memory:
            text += "; too much, set micro_batch_size to a smaller number of slices"
        return text


def estimate_training(
    add_gradients: Callable[[range], torch.Tensor],
    network: torch.nn.Module,
    batch_size: int,
    micro_batch_size: int,
    steps: int,
) -> TrainingEstimate:
    """Run forward and backward passes, extrapolate, and leave no gradient behind.

    A few samples are timed; on a GPU, where few take as long as many, all that are in memory at once, if they fit. Not
    counted: the optimiser's own step, and what recorded steps (`GraphedGradients`) save.

    Args:
        add_gradients: adds up the gradients of samples with these numbers.
        network: whose parameters receive them; it is not changed.
        batch_size: samples of this process in one step.
        micro_batch_size: how many of them are in memory at once.
        steps: that are left.
    """
    device = next(network.parameters()).device
    saved = _saved_bytes(add_gradients, network)
    weights = sum(p.numel() for p in network.parameters()) * 4 * _COPIES
    memory, device_memory = weights + saved * micro_batch_size, _device_memory(device)
    timed = range(min(_TIMED_SAMPLES, micro_batch_size))
    if device.type == "cuda":
        try:
            add_gradients(range(micro_batch_size))  # libraries choose their kernels
            timed = range(micro_batch_size)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    _synchronise(device)
    start = time.perf_counter()
    add_gradients(timed)
    _synchronise(device)
    seconds = (time.perf_counter() - start) / len(timed) * batch_size * steps
    network.zero_grad(set_to_none=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return TrainingEstimate(name, steps, seconds, memory, device_memory)


def _saved_bytes(add_gradients: Callable[[range], torch.Tensor], network: torch.nn.Module) -> int:
    """Bytes that the backward pass of one sample keeps, each block of memory counted once."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    blocks: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            blocks[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        add_gradients(range(1))
    return sum(blocks.values())


def _device_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
