"""The protocol of the methods, and what those that learn a network share."""

from __future__ import annotations

import time
import zlib
from abc import abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings, load_settings
from pddm_utils.data.scan import SLICE_SIZE, Scan
from pddm_utils.methods.registry import open_method, training_key
from pddm_utils.training.loop import Objective, Trainer, finished_key, read_training, write_model
from pddm_utils.training.samples import SliceSource, check_source

WEIGHTS = "model.safetensors"  # of a method without a network


class Method(Protocol):
    """Learns what healthy looks like, then rebuilds a scan as if it were healthy.

    Attributes:
        name: row in the benchmark, such as `pddpm`.
    """

    name: str

    def fit(self, train: SliceSource, val: SliceSource, folder: Path) -> None:
        """Learn from healthy slices; keeps its state in `folder`, and goes on from there when interrupted."""

    def open(self, folder: str | Path) -> None:
        """Take the weights that lie in `folder` (`InputError` when they do not fit)."""

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume x^, `(D, H, W)` float32 in [0, 1]; methods without noise ignore the timestep."""

    def score(self, scan: Scan, reconstruction: np.ndarray) -> np.ndarray:
        """How anomalous each voxel is, `(D, H, W)` in [0, 1]: |x - x^|, where a method has no score of its own."""
        return np.abs(scan.image - reconstruction)


def open_recorded(folder: Path) -> Method:
    """The method whose finished training lies in a folder, with its weights.

    Raises:
        InputError: its record or its weights are missing or damaged.
    """
    try:
        record = read_training(folder)
        name, network = record["method"], record["settings"]["network"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / 'training.json'}: missing or damaged ({type(error).__name__}: {error}); copy the model again"
        ) from None
    return open_method(name, load_settings("smoke", {"network": network}), folder=folder)


class UnlearnedMethod(Method):
    """A method that learns nothing: it says how a scan is rebuilt, and may have a score of its own."""

    def __init__(self, name: str, settings: Settings | None = None, seed: int = 0) -> None:
        self.name = name

    def fit(self, train: SliceSource, val: SliceSource, folder: Path) -> None:
        """Nothing to learn."""

    def open(self, folder: str | Path) -> None:
        """Nothing to open."""


class FittedMethod(Method):
    """A method without a network that is fitted in one go and keeps its numbers in one file.

    Args:
        name: of the method.
        settings: which scans it learns from, and for how many steps.
        seed: of the draws.
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0) -> None:
        self.name, self.settings, self.seed = name, settings, seed

    def key(self, seed: int) -> str:
        """The settings that the numbers depend on, see `training_key`."""
        return training_key(self.settings, self.name, seed)

    def fit(self, train: SliceSource, val: SliceSource, folder: Path) -> None:
        """Fit unless `folder` holds this very fit; it is short, so an interrupted one starts again.

        Raises:
            InputError: there are no slices, or none that the method can learn from.
        """
        if finished_key(folder) != self.key(self.seed):
            check_source(train)
            wall, cpu = time.perf_counter(), time.process_time()
            step = self._learn(train)
            times = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
            loss = round(self._validation_loss(val), 6)
            record = {"step": step, **times, "history": [{"step": step, "validation_loss": loss}]}
            write_model(folder, self, self.seed, record, lambda part: self._save(part / WEIGHTS))
        self.open(folder)

    def open(self, folder: str | Path) -> None:
        """Take the numbers that lie in `folder` (`InputError` when there are none, or they do not fit)."""
        path = Path(folder) / WEIGHTS
        if not path.is_file():
            raise InputError(f"{path}: no such file; train {self.name} first")
        self._load(path)

    @abstractmethod
    def _learn(self, train: SliceSource) -> int:
        """Learn from healthy slices; returns the number of steps that it took."""

    @abstractmethod
    def _validation_loss(self, val: SliceSource) -> float:
        """The error on held-out slices."""

    @abstractmethod
    def _save(self, path: Path) -> None:
        """Write the numbers."""

    @abstractmethod
    def _load(self, path: Path) -> None:
        """Read what `_save` wrote."""


def subject_seed(scan: Scan) -> int:
    """Seed of a scan's noise: every subject has its own, and its copies with and without a lesion share it."""
    return zlib.crc32(scan.subject.encode())


class LearnedMethod(Objective, Method):
    """A network, the damage it learns to repair, the loss, and how it rebuilds a scan: all of a method in one class.

    Args:
        name: of the method.
        settings: network size and training budget.
        seed: of the training run.
        image_size: height and width of a slice in pixels.
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0, image_size: int = SLICE_SIZE) -> None:
        super().__init__(name, settings, image_size)
        self.seed = seed

    def key(self, seed: int) -> str:
        """The settings that the weights depend on, see `training_key`."""
        return training_key(self.settings, self.name, seed)

    def trainer(self, train: SliceSource, val: SliceSource, folder: Path, snapshots: Collection[int] = ()) -> Trainer:
        """The training run on these healthy slices; `snapshots` as of the `Trainer`."""
        check_source(train)
        self.image_size = train[0].shape[-1]
        return Trainer(self, self.seed, train, val, folder, snapshots)

    def fit(self, train: SliceSource, val: SliceSource, folder: Path) -> None:
        """Train, or go on training, and take the finished weights from `folder`."""
        self.open(self.trainer(train, val, folder).run())

    @abstractmethod
    def open(self, folder: str | Path) -> None:
        """Take the weights that lie in `folder` (`InputError` when they do not fit)."""

    @abstractmethod
    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume, `(D, H, W)` float32 in [0, 1]; a method with noise draws that of `subject_seed`."""
