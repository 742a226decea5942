"""The ways a study rebuilds a scan, as data; the pipeline does the work."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pddm_utils.benchmark.store import Part, key_of
from pddm_utils.benchmark.studies.forms import match_quantiles
from pddm_utils.core.threads import use_threads
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.boxes import Boxes, BoxGrid, grid_boxes, random_boxes, stitch
from pddm_utils.diffusion.fast_cpu import fast_cpu
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline
from pddm_utils.evaluation.places import HealthyPlaces
from pddm_utils.methods.base import subject_seed
from pddm_utils.methods.intensity import IntensityThreshold

INTENSITY = "intensity"  # the threshold without a model, where a study names models


@dataclass(frozen=True)
class Reference:
    """What healthy **training** subjects say: they share no anatomy with a validation or test subject.

    Attributes:
        quantiles: mean quantiles `(101,)` of their intensities.
        places: residuals of a model by place.
    """

    quantiles: np.ndarray = field(default_factory=lambda: np.empty(0))
    places: HealthyPlaces = field(default_factory=HealthyPlaces)


@dataclass(frozen=True)
class Model:
    """A trained model of a study.

    Attributes:
        name: of its method.
        pipeline: network, schedule, box size.
        timestep: noise level that was chosen for it on validation subjects.
        folder: where its weights lie.
        reference: of the search's ideas; empty in other studies.
    """

    name: str
    pipeline: PatchedReconstructionPipeline
    timestep: int
    folder: Path | None = None
    reference: Reference = field(default_factory=Reference)


def open_model(folder: Path, name: str) -> Model:
    """A model from its folder, with the noise level that stands there; this process then works on one thread.

    Args:
        folder: of the pipeline.
        name: of its method.
    """
    use_threads(1)
    fast_cpu()
    pipeline = load_pipeline(folder)
    return Model(name, pipeline, pipeline.config.timestep, folder)


@dataclass(frozen=True)
class Rebuild:
    """How a model is asked; the defaults are what the benchmark does.

    Attributes:
        level: noise level; -1 is the model's own.
        steps: DDIM steps back from it; the context of a box stays clean throughout.
        draw: number of the noise draw; 0 is that of the benchmark.
        box, stride: of the grid, in pixels; 0 is the model's box, without overlap.
        scattered: as many boxes as the grid has cells, at random places inside the slice.
        noise: `gaussian` or `simplex`; empty is what the model was trained with.
        shared: one noise field for all boxes of all slices, as in the authors' code, instead of one each.
        matched: the scan gets the mean histogram of training subjects first.
    """

    level: int = -1
    steps: int = 1
    draw: int = 0
    box: int = 0
    stride: int = 0
    scattered: bool = False
    noise: str = ""
    shared: bool = False
    matched: bool = False

    def of(self, model: Model) -> Rebuild:
        """The same with everything filled in that is the model's own."""
        config = model.pipeline.config
        box = self.box or config.box_size
        return dataclasses.replace(
            self,
            level=model.timestep if self.level < 0 else self.level,
            box=box,
            stride=self.stride or box,
            noise=self.noise or config.noise,
        )


class Rebuilt(NamedTuple):
    """A reconstruction and what it cost.

    `image` is `(D, H, W)` float32 in [0, 1], `passes` counts slices the network saw, `cpu_seconds` the process's CPU
    time, `predictions` are the network's outputs `(P, 1, H, W)` in [-1, 1] and `boxes` theirs; none of the image alone
    was kept.
    """

    image: np.ndarray
    passes: int = 0
    cpu_seconds: float = 0.0
    predictions: torch.Tensor = torch.empty(0)
    boxes: Boxes = Boxes(torch.empty(0), torch.empty(0))


def rebuild_scan(model: Model, scan: Scan, how: Rebuild, boxes: Boxes | None = None) -> Rebuilt:
    """Rebuild a scan.

    Args:
        model: a trained model.
        scan: a prepared scan.
        how: what is changed.
        boxes: instead of those that `how` names.

    Raises:
        InputError: more steps than noise levels.
    """
    started, how, seed = time.process_time(), how.of(model), subject_seed(scan)
    if how.matched:
        image = match_quantiles(scan.image, scan.brain_mask, model.reference.quantiles)
        scan = dataclasses.replace(scan, image=image)
    if boxes is None:
        grid = BoxGrid(tuple(scan.image.shape[1:]), how.box, how.stride)
        boxes = scattered_boxes(scan, how.box, len(grid)) if how.scattered else _grid_boxes(grid, scan)
    noise: str | torch.Tensor = how.noise
    generator = torch.Generator().manual_seed(seed + how.draw)
    if how.shared:
        noise = NOISES[how.noise]((1, 1, *scan.image.shape[1:]), generator=generator, device=model.pipeline.device)
    slices = torch.from_numpy(scan.image)[:, None]
    output = model.pipeline(slices, timestep=how.level, steps=how.steps, boxes=boxes, noise=noise, generator=generator)
    # Overlaps are clipped to the intensity range before they are averaged, as in all committed tables of studies.
    boxes, predictions = output.boxes, output.predictions.clamp(-1, 1)
    fill = slices.to(predictions.device) * 2 - 1
    joined = (stitch(predictions, boxes.rows, boxes.slice_index, len(slices), fill=fill) + 1) / 2
    seconds = time.process_time() - started
    return Rebuilt(joined[:, 0].cpu().numpy(), output.forward_passes, seconds, predictions, boxes)


def scattered_boxes(scan: Scan, box_size: int, count: int) -> Boxes:
    """`count` boxes of `box_size` pixels a slice at random places inside it, drawn from the subject's seed."""
    slices = len(scan.image)
    generator = torch.Generator().manual_seed(subject_seed(scan))
    rows = random_boxes(slices * count, tuple(scan.image.shape[1:]), box_size, generator)
    return Boxes(rows, torch.arange(slices).repeat_interleave(count))


def _grid_boxes(grid: BoxGrid, scan: Scan) -> Boxes:
    return grid_boxes(grid, torch.from_numpy(scan.brain_mask)[:, None])


def pasted(scan: Scan, made: Rebuilt) -> np.ndarray:
    """The scan `(D, H, W)` with one predicted box pasted over the other, where the pipeline averages."""
    joined, inside = scan.image.copy(), (made.predictions[:, 0].cpu().numpy() + 1) / 2
    for box, (top, left, height, width), index in zip(
        inside, made.boxes.rows.tolist(), made.boxes.slice_index.tolist(), strict=True
    ):
        place = (slice(top, top + height), slice(left, left + width))
        joined[index][place] = box[place]
    return joined


class Rebuilds:
    """The reconstructions of one scan; what several variants need is made once.

    Args:
        models: by the names that variants use.
        scan: prepared, with the slices that are looked at.
    """

    def __init__(self, models: Mapping[str, Model], scan: Scan) -> None:
        self.models, self.scan = models, scan
        self._made: dict[tuple[str, Rebuild], Rebuilt] = {}

    def __call__(self, name: str, how: Rebuild) -> Rebuilt:
        """The scan rebuilt by a model; `intensity` is the threshold without one."""
        if name == INTENSITY:
            return Rebuilt(IntensityThreshold(INTENSITY).reconstruct(self.scan))
        key = name, how.of(self.models[name])
        if key not in self._made:
            self._made[key] = rebuild_scan(self.models[name], self.scan, how)
        return self._made[key]


class KeptRebuilds(Rebuilds):
    """Reconstructions that are kept on disk too, in half precision, so that another idea costs no network pass.

    Args:
        models, scan: as for `Rebuilds`.
        folder: where they are kept.
        row: of the scan.
        slice_step: every n-th slice of it is looked at.
    """

    def __init__(
        self, models: Mapping[str, Model], scan: Scan, folder: Path, row: ManifestRow, slice_step: int
    ) -> None:
        super().__init__(models, scan)
        self.folder, self.row, self.slice_step = folder, row, slice_step

    def __call__(self, name: str, how: Rebuild) -> Rebuilt:
        """As `Rebuilds`; what it cost is not kept."""
        if name == INTENSITY:
            return super().__call__(name, how)
        model = self.models[name]
        how = how.of(model)
        train = model.reference.quantiles.tolist() if how.matched else []
        key = key_of([dataclasses.astuple(how), self.slice_step, train], [self.row], model.folder)
        part = Part(self.folder / f"{model.name}-{key}.safetensors", lambda: rebuild_scan(model, self.scan, how).image)
        return Rebuilt(part.kept())
