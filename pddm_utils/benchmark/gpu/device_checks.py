"""What a device computes against what the processor computes: noise, boxes, pipeline, training; fp32 and bf16.

On a machine without a GPU the same checks compare the processor with itself: then they show that they run, not more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from pddm_utils.benchmark.gpu.record import exact_matrix_products
from pddm_utils.core.settings import Settings, load_settings
from pddm_utils.diffusion.boxes import BoxGrid, grid_boxes, noise_boxes, stitch
from pddm_utils.diffusion.network import make_network
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.objective import Batch, DiffusionObjective
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, make_scheduler
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.methods.registry import method_class
from pddm_utils.training.device import DeviceSlices, DeviceTrainer

_SIZE = 32  # pixels: the checks are about agreement, not about load
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Check:
    """One comparison with the processor.

    Attributes:
        name: what is compared.
        precision: `fp32` or `bf16`.
        difference: the largest one, in the unit that `tolerance` has.
        tolerance: up to which the two count as equal.
    """

    name: str
    precision: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is a number and within the tolerance."""
        return self.difference <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "passed": self.passed}


def run_check(name: str, precision: str, device: torch.device) -> Check:
    """One check of `CHECKS` on a device."""
    compare, tolerance = CHECKS[name, precision]
    with exact_matrix_products():
        return Check(name, precision, compare(device, precision), tolerance)


def _largest(first: torch.Tensor, second: torch.Tensor) -> float:
    return (first.double().cpu() - second.double().cpu()).abs().max().item()


def _relative(first: torch.Tensor, second: torch.Tensor) -> float:
    """Norm of the difference over the norm of the second."""
    second = second.double().cpu()
    return ((first.double().cpu() - second).norm() / second.norm()).item()


def _seeded(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in range(count)]


def _gaussian(device: torch.device, _: str) -> float:
    fields = [NOISES["gaussian"]((8, 1, _SIZE, _SIZE), _seeded(8), place) for place in (device, "cpu")]
    return _largest(*fields)


def _simplex(device: torch.device, _: str) -> float:
    fields = [NOISES["simplex"]((8, 1, _SIZE, _SIZE), _seeded(8), place) for place in (device, "cpu")]
    return _largest(*fields)


def _drawn_there(device: torch.device, _: str) -> float:
    """Noise that is drawn on the device: the same twice, and as far from unit variance as draws of this number are."""
    differences = []
    for noise in NOISES.values():
        first, again = (
            noise((256, 1, _SIZE, _SIZE), torch.Generator(device).manual_seed(1), device).cpu() for _ in range(2)
        )
        differences += [_largest(first, again), abs(first.square().mean().item() - 1)]
    return max(differences)


def _slices(count: int = 6) -> torch.Tensor:
    """Smooth slices `(B, 1, H, W)` in [0, 1]."""
    y, x = torch.meshgrid(*[torch.arange(_SIZE) / _SIZE] * 2, indexing="ij")
    return torch.stack([0.5 + 0.5 * torch.sin(3 * x * k + 2 * y) for k in range(1, count + 1)])[:, None]


def _boxes(device: torch.device, _: str) -> float:
    """Noise into boxes, and the boxes back into slices."""
    slices = _slices()
    stitched = []
    for place in (torch.device("cpu"), device):
        clean = slices.to(place)
        boxes = grid_boxes(BoxGrid(_SIZE, 16, 12), clean > 0.2)
        here = clean[boxes.slice_index]
        noisy = noise_boxes(here, here.flip(-1), boxes.rows)
        stitched.append(stitch(noisy, boxes.rows, boxes.slice_index, len(clean), fill=clean))
    return _largest(*stitched)


def _pipeline(device: torch.device | str) -> PatchedReconstructionPipeline:
    torch.manual_seed(0)
    network = make_network("smoke", _SIZE).eval()
    return PatchedReconstructionPipeline(network, make_scheduler(), 16, 16, "simplex", 333).to(device)


def _reconstruction(device: torch.device, precision: str) -> float:
    """Mean difference of reconstructed slices; in fp32 the largest one."""
    slices = _slices()
    reference = _pipeline("cpu")(slices, seed=0).reconstruction
    with torch.autocast(device.type, torch.bfloat16, precision == "bf16"):
        ours = _pipeline(device)(slices, seed=0).reconstruction
    return _largest(ours, reference) if precision == "fp32" else (ours.cpu() - reference).abs().mean().item()


def _live(device: torch.device, _: str) -> float:
    """What a live widget asks for: any slice at any noise level, rebuilt, and its map, in 256 levels."""
    image, differences = _slices().numpy()[:, 0], []
    brain = image > 0.1
    for number, timestep in ((1, 100), (4, 818)):
        part = slice(number, number + 1)
        rebuilt = [
            _pipeline(place).reconstruct_volume(image[part], brain[part], timestep, seed=0) for place in (device, "cpu")
        ]
        maps = [anomaly_map(image[part], one, brain[part]) for one in rebuilt]
        differences += [np.abs(a - b).max() * 255 for a, b in (rebuilt, maps)]
    return float(max(differences))


def _settings(precision: str, **changes: Any) -> Settings:
    small = {"train_steps": 4, "checkpoint_every": 2, "batch_size": 4, "box_size": 16, "stride": 16, "noise": "simplex"}
    return load_settings("smoke", small | {"mixed_precision": "bf16" if precision == "bf16" else "no"} | changes)


def _objective(precision: str, **changes: Any) -> DiffusionObjective:
    made: Any = method_class("pddpm")("pddpm", _settings(precision, **changes), image_size=_SIZE)
    return made


def _training_step(device: torch.device, precision: str) -> float:
    """Gradients of one batch, which is the same on both."""
    objective = _objective(precision)
    batch = objective.batch(_slices(4) * 2 - 1, [np.random.default_rng(number) for number in range(4)])
    gradients = []
    for place, low in ((torch.device("cpu"), False), (device, precision == "bf16")):
        torch.manual_seed(0)
        network = objective.make_network().to(place)
        here = Batch(**{name: value.to(place) for name, value in vars(batch).items()})
        with torch.autocast(place.type, torch.bfloat16, low):
            loss = objective.loss(network, here)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None]))
    return _relative(gradients[1], gradients[0])


class _Cut(Exception):
    """Ends a training where a check wants it to."""


def _trained(device: torch.device, precision: str, graph: bool, cut: int | None = None) -> torch.Tensor:
    """All weights after four steps; with `cut`, of a training that ended before that step and went on."""
    source = DeviceSlices((_slices()[:, 0].numpy() * 255).astype(np.uint8), device)

    def made(folder: str) -> DeviceTrainer:
        return DeviceTrainer(_objective(precision), 0, source, source, Path(folder) / "model", graph)

    with tempfile.TemporaryDirectory() as folder:
        if cut is not None:
            first = made(folder)
            step = first.step

            def until(number: int) -> float:
                if number == cut:
                    raise _Cut
                return step(number)

            first.step = until  # type: ignore[method-assign,assignment]
            try:
                first.run()
            except _Cut:
                pass
        model = made(folder).run()
        values = load_file(model / "unet" / "diffusion_pytorch_model.safetensors").values()
        return torch.cat([value.flatten().float() for value in values])


def _graph(device: torch.device, precision: str) -> float:
    """Four steps as a CUDA graph against the same steps without one."""
    return _relative(_trained(device, precision, True), _trained(device, precision, False))


def _resume(device: torch.device, precision: str) -> float:
    """Four steps, and four of which the first two are of a training that was killed during the fourth."""
    return _relative(_trained(device, precision, True, cut=3), _trained(device, precision, True))


_Compare = Callable[[torch.device, str], float]
CHECKS: dict[tuple[str, str], tuple[_Compare, float]] = {
    ("gaussian noise", "fp32"): (_gaussian, 1e-6),
    ("simplex noise", "fp32"): (_simplex, 1e-4),
    ("noise drawn on the device", "fp32"): (_drawn_there, 0.05),
    ("boxes", "fp32"): (_boxes, 1e-6),
    ("pipeline", "fp32"): (_reconstruction, 1e-3),
    ("pipeline", "bf16"): (_reconstruction, 0.02),
    ("live widget", "fp32"): (_live, 1.0),
    ("training step", "fp32"): (_training_step, 1e-3),
    ("training step", "bf16"): (_training_step, 0.2),
    ("steps as a CUDA graph", "fp32"): (_graph, 2e-3),
    ("steps as a CUDA graph", "bf16"): (_graph, 2e-2),
    ("resumed training", "fp32"): (_resume, 2e-3),
}
