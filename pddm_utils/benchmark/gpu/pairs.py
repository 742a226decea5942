"""Methods with equal steps on a packed cohort: trained on the device, scored by the benchmark, packed to go back."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
import zipfile
from collections.abc import Callable, Collection
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from joblib.externals.loky import get_reusable_executor

from pddm_utils.benchmark.gpu.speed import synchronise
from pddm_utils.benchmark.run import Benchmark, run_benchmark
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file
from pddm_utils.core.settings import Settings
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.packed import PackedScans, open_packed
from pddm_utils.methods.base import LearnedMethod
from pddm_utils.methods.registry import make_method
from pddm_utils.training.device import DeviceSlices, DeviceTrainer

PAIR = ("ddpm", "pddpm")  # whose weights travel back
LARGEST_FILE_MIB = 16  # that travels back
PAPER_STEPS, PAPER_BATCH, PAPER_RATE = 19_200, 32, 1e-4  # of a whole training of the paper's network
_TIMED, _FEWEST = 3, 500  # steps; of fewer nothing would be learnt
_TRAINING_SHARE = 0.6  # of the time; then all pairs are scored side by side
_SIDE_BY_SIDE = 2  # so many times the processors are shared out: small pairs are scored soon


@dataclasses.dataclass(frozen=True)
class PackedBenchmark(Benchmark):
    """A benchmark on packed scans, whatever the cohort of its profile.

    Attributes:
        packed: the file of them.
    """

    packed: str = ""

    @cached_property
    def rows(self) -> list[ManifestRow]:
        """All scans of the file."""
        return open_packed(self.packed).rows


class Pair:
    """DDPM, pDDPM and whatever else the profile compares them with, with one network on one cohort.

    Args:
        cohort: packed; its settings are the recipe.
        network: a size of `NETWORKS`.
        large: whether this is the large network, which has the batch size and the learning rate of the paper; then the
            pair is all that is compared.
    """

    def __init__(self, cohort: PackedScans, network: str, large: bool) -> None:
        self.cohort, self.network, self.large = cohort, network, large
        self.recipe = dataclasses.replace(_recipe(cohort), network=network, seeds=(0,), mixed_precision="auto")
        if large:
            batch = min(PAPER_BATCH, self.recipe.batch_size)
            self.recipe = dataclasses.replace(self.recipe, batch_size=batch, learning_rate=PAPER_RATE, methods=PAIR)

    @property
    def name(self) -> str:
        """Such as `gpu-soop-middle`."""
        return f"{self.recipe.profile}-{self.network}{'-large' if self.large else ''}"

    @property
    def learners(self) -> list[str]:
        """The methods that learn by steps; what else is fitted, such as a mean by place, the benchmark fits."""
        return [name for name in self.recipe.methods if isinstance(make_method(name, self.recipe), LearnedMethod)]

    def settings(self, steps: int) -> Settings:
        """The recipe with so many steps, and a checkpoint after each third of them."""
        return dataclasses.replace(
            self.recipe, train_steps=steps, warmup_steps=min(100, steps // 10), checkpoint_every=max(1, steps // 3)
        )

    def benchmark(self, steps: int, work: Path, without: Collection[str] = ()) -> PackedBenchmark:
        """All of the profile on the packed scans; models and tables lie in the folder `work`.

        Args:
            steps: of the trainings.
            work: the folder.
            without: methods that are left out.
        """
        jobs = max(1, (os.cpu_count() or 1) // _SIDE_BY_SIDE)
        settings, path = self.settings(steps), str(self.cohort.path)
        settings = dataclasses.replace(settings, methods=tuple(m for m in settings.methods if m not in without))
        return PackedBenchmark(settings, False, work, work / "results" / self.name, jobs, packed=path)

    def trainer(self, name: str, steps: int, folder: Path, graph: bool = True) -> DeviceTrainer:
        """The training of a method, with all healthy slices in the memory of this process's device.

        Args:
            name: of the method.
            steps: of it.
            folder: of the model.
            graph: as `DeviceTrainer` takes it.
        """
        device, rows = PartialState().device, self.cohort.rows
        train, val = (
            DeviceSlices(self.cohort.slices_of([r for r in rows if r.split == split and not r.lesion_mask]), device)
            for split in ("train", "val")
        )
        method: Any = make_method(name, self.settings(steps))
        return DeviceTrainer(method, 0, train, val, folder, graph)

    def plan(self, seconds: float, folder: Path, graph: bool = True) -> dict[str, Any]:
        """How many steps each method gets, from the measured time of a few; the same in every process.

        The recipe's `train_steps` are the most.

        Args:
            seconds: for training and scoring both.
            folder: for nothing that is kept.
            graph: as `DeviceTrainer` takes it.

        Raises:
            RuntimeError: the time is enough for no training that would be worth its name.
        """
        most = self.recipe.train_steps
        each = {name: self._seconds_a_step(self.trainer(name, most, folder, graph)) for name in self.learners}
        steps = min(int(seconds * _TRAINING_SHARE / sum(each.values())), most)
        if steps < min(_FEWEST, most):
            raise RuntimeError(f"time for {steps} steps only")
        found: dict[str, Any] = {
            "steps": steps,
            "seconds_a_step": each,
            "batch": self.recipe.batch_size,
            "processes": PartialState().num_processes,
        }
        if self.large:
            hours = {name: PAPER_STEPS * second / 3600 for name, second in each.items()}
            found |= {"whole_training_steps": PAPER_STEPS, "whole_training_hours": hours}
        return broadcast_object_list([found])[0]

    @staticmethod
    def _seconds_a_step(trainer: DeviceTrainer) -> float:
        device = PartialState().device
        trainer.step(0)
        synchronise(device)
        start = time.perf_counter()
        for number in range(1, 1 + _TIMED):
            trainer.step(number)
        synchronise(device)
        return (time.perf_counter() - start) / _TIMED

    def folder(self, name: str, steps: int, work: Path) -> Path:
        """Where the benchmark looks for a model."""
        return self.benchmark(steps, work).weights(name, 0)


def _recipe(cohort: PackedScans) -> Settings:
    """Settings that a cohort was packed with."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in cohort.facts["settings"].items()
    }
    try:
        return Settings(**values)
    except TypeError as error:
        raise InputError(
            f"a cohort packed by another version of this package ({error}); make the bundle again"
        ) from None


def start_scoring(benchmark: Benchmark) -> BaseProcess:
    """Score in a process of its own, beside whatever this one does next."""
    process = multiprocessing.get_context("spawn").Process(target=then_end_workers, args=(run_benchmark, benchmark))
    process.start()
    return process


def then_end_workers(call: Callable[..., object], *arguments: Any) -> None:
    """A call, and the end of the workers that it started: a process that has idle ones lives on for minutes."""
    try:
        call(*arguments)
    finally:
        get_reusable_executor().shutdown(wait=True)


def means(scores: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean scores by method and test set over its subjects, JSON-ready; a value that does not exist there is None."""
    one_rule = scores[scores.noise_level != "family"].drop_duplicates(["method", "dataset", "subject"])
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (method, dataset), rows in one_rule.groupby(["method", "dataset"]):
        values = {name: _number(rows[name].mean()) for name in ("auprc", "healthy_l1", "median_l1")}
        timestep = int(rows.timestep.iloc[0])
        found.setdefault(str(method), {})[str(dataset)] = {"subjects": len(rows), "timestep": timestep, **values}
    return found


def _number(value: float) -> float | None:
    """Six decimals; None for what is not a number, which JSON lacks."""
    return round(float(value), 6) if value == value else None


def pack_folder(folder: Path, path: Path) -> str:
    """Put all files below a folder into one archive that is small enough to travel back.

    Returns:
        What became of it, in words.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    size = sum(file.stat().st_size for file in files) / 2**20
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.relative_to(folder))
    if path.stat().st_size > LARGEST_FILE_MIB * 2**20:
        path.unlink()
        return f"not packed: {size:.0f} MiB"
    return path.name
