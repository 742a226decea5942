"""Time, memory and share of a device's peak: a training step and the reconstruction of a volume.

Ours is bf16, many boxes at once, noise on the device, and for training a CUDA graph. The naive reference is fp32, one
box a pass, a noise field made on the processor for each. The bare passes are ours without anything but the network.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from pddm_utils.benchmark.gpu.record import exact_matrix_products
from pddm_utils.core.settings import load_settings
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.boxes import BoxGrid, grid_boxes
from pddm_utils.diffusion.network import make_network, parameter_count
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.objective import Batch, DiffusionObjective
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, make_scheduler
from pddm_utils.diffusion.sampling import noise_and_walk_back
from pddm_utils.methods.registry import method_class
from pddm_utils.training.device import DeviceSlices, DeviceTrainer

TIMESTEP = 333
_ROUNDS = 3
_LARGEST = {"cuda": 512, "cpu": 8}  # batch that is tried
_GAIN = 1.05  # a batch of twice the size must make this many times the slices a second
_PROFILED = {"cuda": 10, "cpu": 1}  # steps
_NAIVE_SLICES = {"cuda": 8, "cpu": 1}  # of a volume; the rest takes as long


def free_memory() -> None:
    """Give back what finished work held on a GPU."""
    gc.collect()  # Adam and its schedule hold each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device, at_least: float = 0.2, rounds: int = _ROUNDS) -> float:
    """Median seconds of a piece of work over rounds, each of as many calls as take `at_least` seconds."""
    work()  # first allocations, choice of kernels, graphs
    synchronise(device)
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < at_least:
        work()
        synchronise(device)
        calls += 1
    if device.type == "cpu":
        return (time.perf_counter() - start) / calls
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        synchronise(device)
        found.append((time.perf_counter() - start) / calls)
    return median(found)


def largest_rate(rate: Callable[[int], float], first: int, last: int) -> tuple[int, float]:
    """The batch size beyond which doubling gains nothing, and its rate.

    Args:
        rate: slices a second at a size; raises `RuntimeError` beyond the memory.
        first, last: sizes to begin and to end with.
    """
    best, size = (first, rate(first)), 2 * first
    while size <= last:
        try:
            found = rate(size)
        except RuntimeError:  # while a graph is recorded, a full memory has other names too
            free_memory()
            break
        if found < _GAIN * best[1]:
            break
        best, size = (size, found), 2 * size
    return best


def flops_of(work: Callable[[], object]) -> int:
    """Floating-point operations of convolutions, products and attention in a piece of work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def busy_share(network: str, batch: int, levels: np.ndarray, device: torch.device, folder: Path) -> dict[str, Any]:
    """Share of the time of training steps in which the device runs a kernel or a copy, by torch's profiler.

    Of a processor it is the share in which operations of PyTorch run.
    """
    source = DeviceSlices(levels, device)
    trainer = DeviceTrainer(objective_of(network, batch), 0, source, source, folder / "model")
    kind = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    for step in range(2):
        trainer.step(step)
    synchronise(device)
    with profile(activities=[kind]) as profiler:
        for step in range(_PROFILED[device.type]):
            trainer.step(2 + step)
        synchronise(device)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        # Ranges that a program names, such as a step of Adam, span the gaps between its kernels.
        if event.device_type.name == kind.name and not event.name.startswith(("Optimizer.", "ProfilerStep"))
    ]
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    return {"batch": batch, "busy_share": covered(spans) / whole}


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals.

    Example:
        >>> covered([(0, 2), (1, 3), (5, 6)])
        4
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _memory_gib(device: torch.device) -> float | None:
    """The most that was in use since the last call; None for a processor."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return round(peak, 3)


def matrix_peak(device: torch.device) -> float:
    """bf16 operations a second in one large matrix product: what the device gives at best to any program."""
    size = 8192 if device.type == "cuda" else 256
    matrix = torch.randn(size, size, device=device).bfloat16()
    return 2 * size**3 / seconds_of(lambda: matrix @ matrix, device)


def objective_of(network: str, batch: int, **changes: Any) -> DiffusionObjective:
    """pDDPM with the recipe of the trained pairs: simplex noise, levels drawn evenly, bf16."""
    recipe = {"network": network, "batch_size": batch, "noise": "simplex", "timestep_power": 1}
    made: Any = method_class("pddpm")("pddpm", load_settings("laptop", recipe | {"mixed_precision": "bf16"} | changes))
    return made


def training_speed(network: str, levels: np.ndarray, device: torch.device, folder: Path) -> dict[str, Any]:
    """A training step of pDDPM, ours, bare and naive.

    Args:
        network: a size of `NETWORKS`.
        levels: slices to learn from, `(N, 96, 96)` uint8.
        device: to measure.
        folder: for nothing that is kept.
    """
    source = DeviceSlices(levels, device)

    def trainer(batch: int, **options: Any) -> DeviceTrainer:
        return DeviceTrainer(objective_of(network, batch), 0, source, source, folder / "model", **options)

    def rate(batch: int) -> float:
        free_memory()
        made = trainer(batch)
        return batch / seconds_of(lambda: made.step(0), device, rounds=1)

    batch, _ = largest_rate(rate, 2 if device.type == "cpu" else 16, _LARGEST[device.type])
    _memory_gib(device)
    ours = trainer(batch)
    ready = ours.batch(0)

    def bare() -> None:
        ours.replace_gradients(ready)
        ours.update(0)

    ours_seconds, bare_seconds = (seconds_of(work, device) for work in (lambda: ours.step(0), bare))
    memory = _memory_gib(device)
    small = trainer(2, graph=False)  # operations are counted on two slices: more need more memory and no other sum
    flops = flops_of(lambda: small.gradients(small.batch(0))) // 2 * batch
    naive = _NaiveTraining(network, levels, device)
    return {
        "parameters": parameter_count(ours.network),
        "batch": batch,
        "seconds_a_step": ours_seconds,
        "over_bare": ours_seconds / bare_seconds,
        "naive_over_ours": naive.seconds(batch) / ours_seconds,
        "flops_a_step": flops,
        "flops_a_second": flops / ours_seconds,
        "peak_memory_gib": memory,
    }


def layouts(network: str, batch: int, levels: np.ndarray, device: torch.device, folder: Path) -> dict[str, Any]:
    """Seconds of a training step without and with a CUDA graph, and with channels last; what fails says why."""
    source = DeviceSlices(levels, device)
    found: dict[str, Any] = {}
    for name, options in (
        ("eager", {"graph": False}),
        ("graph", {"graph": True}),
        ("graph, channels last", {"graph": True, "channels_last": True}),
    ):
        try:
            made = DeviceTrainer(objective_of(network, batch), 0, source, source, folder / "model", **options)
            found[name] = seconds_of(partial(made.step, 0), device)
        except RuntimeError as error:
            found[name] = f"failed: {str(error).splitlines()[0]}"
    return found


def compiled(network: str, batch: int, levels: np.ndarray, device: torch.device, folder: Path) -> dict[str, Any]:
    """A training step whose network went through `torch.compile`, with channels last, and what compiling took.

    On a processor the network is traced and not compiled, which would need a compiler there.
    """
    source = DeviceSlices(levels, device)
    trainer = DeviceTrainer(objective_of(network, batch), 0, source, source, folder / "model", False, True)
    trainer.network.compile(backend="inductor" if device.type == "cuda" else "eager")
    start = time.perf_counter()
    trainer.step(0)
    synchronise(device)
    first = time.perf_counter() - start
    return {"batch": batch, "seconds_a_step": seconds_of(partial(trainer.step, 1), device), "seconds_at_first": first}


class _NaiveTraining:
    """fp32, one slice a pass, everything drawn on the processor and copied; an update after each batch."""

    def __init__(self, network: str, levels: np.ndarray, device: torch.device) -> None:
        self.objective, self.device, self.number = objective_of(network, 1), device, 0
        self.slices = [slice_.astype(np.float32) / 255 for slice_ in levels[:64]]
        self.network = self.objective.make_network().to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), foreach=False)

    def seconds(self, batch: int) -> float:
        """Of a step of so many slices."""
        with exact_matrix_products():
            each, update = (seconds_of(work, self.device) for work in (self._one_slice, self.optimizer.step))
        return batch * each + update

    def _one_slice(self) -> float:
        batch: Batch = self.objective.draw(self.slices, 0, range(self.number, self.number + 1), self.device)
        self.number += 1
        loss = self.objective.loss(self.network, batch)
        loss.backward()
        return loss.item()


def reconstruction_speed(network: str, scan: Scan, device: torch.device) -> dict[str, Any]:
    """The reconstruction of a volume by pDDPM with one step back, ours, bare and naive; the weights are random.

    Args:
        network: a size of `NETWORKS`.
        scan: whole, prepared; a processor rebuilds four slices of it.
        device: to measure.
    """
    if device.type == "cpu":
        middle = len(scan.image) // 2
        scan = scan.with_slices(slice(max(middle - 2, 0), middle + 2))
    unet = make_network(network).eval().to(device)
    pipeline = PatchedReconstructionPipeline(unet, make_scheduler(), 48, 48, "simplex", TIMESTEP)
    pipeline.set_progress_bar_config(disable=True)
    image, brain = (torch.from_numpy(array)[:, None].to(device) for array in (scan.image, scan.brain_mask))
    boxes = len(grid_boxes(BoxGrid(96, 48), brain).rows)

    def ours(at_once: int) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(0)
        with torch.autocast(device.type, torch.bfloat16):
            return pipeline(image, brain, generator=generator, max_boxes=at_once).reconstruction

    def bare(at_once: int) -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            for start in range(0, boxes, at_once):
                unet(image[:1].expand(min(at_once, boxes - start), 1, 96, 96).contiguous(), TIMESTEP)

    at_once, _ = largest_rate(
        lambda size: boxes / seconds_of(lambda: ours(size), device, rounds=1),
        4 if device.type == "cpu" else 16,
        _LARGEST[device.type],
    )
    _memory_gib(device)
    ours_seconds, bare_seconds = (seconds_of(partial(work, at_once), device) for work in (ours, bare))
    memory, flops = _memory_gib(device), flops_of(lambda: bare(at_once))
    few = min(_NAIVE_SLICES[device.type], len(scan.image))
    with exact_matrix_products():
        naive = seconds_of(lambda: naive_reconstruction(unet, scan.image[:few], device), device, 0, rounds=1)
    naive *= len(scan.image) / few
    return {
        "slices": len(scan.image),
        "boxes": boxes,
        "boxes_at_once": at_once,
        "seconds_a_volume": ours_seconds,
        "over_bare": ours_seconds / bare_seconds,
        "naive_over_ours": naive / ours_seconds,
        "flops_a_second": flops / ours_seconds,
        "peak_memory_gib": memory,
    }


@torch.inference_mode()
def naive_reconstruction(unet: torch.nn.Module, image: np.ndarray, device: torch.device) -> np.ndarray:
    """The published way: fp32, all four boxes of every slice one after another, each with a field from the processor.

    Args:
        unet: predicts x_0.
        image: `(D, 96, 96)` float32 in [0, 1].
        device: of the network.

    Returns:
        `(D, 96, 96)` float32 in [0, 1].
    """
    scheduler, result = make_scheduler(), np.empty_like(image)
    for number, plane in enumerate(torch.from_numpy(image) * 2 - 1):
        for box, row in enumerate(BoxGrid(96, 48).boxes):
            noise = NOISES["simplex"]((1, 1, 96, 96), torch.Generator().manual_seed(4 * number + box)).to(device)
            clean, top, left = plane[None, None].to(device), int(row[0]), int(row[1])
            rebuilt = noise_and_walk_back(
                lambda noisy, index: unet(noisy, index).sample, scheduler, clean, noise, row[None], [TIMESTEP]
            )
            inside = (slice(top, top + 48), slice(left, left + 48))
            result[number][inside] = (rebuilt[0, 0][inside].clamp(-1, 1).cpu().numpy() + 1) / 2
    return result
