"""PCA: the cheap linear baseline. What a few principal components of healthy slices cannot say is anomalous."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import IncrementalPCA

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import SLICE_SIZE, Scan
from pddm_utils.methods.base import Method
from pddm_utils.methods.registry import training_key
from pddm_utils.training.loop import finished_key, write_model
from pddm_utils.training.samples import SliceSource, check_source, draw_slices

COMPONENTS = 64
WEIGHTS = "model.safetensors"
_SLICES_AT_ONCE = 320  # of one update; bounds the memory
_VALIDATION_SLICES = 64


class PCA(Method):
    """`x^ = m + W^T W (x - m)`: m the mean slice, W the first 64 principal axes (Pearson 1901; Ross et al. 2008).

    scikit-learn's `IncrementalPCA` over the same slices, in the same order, as every other method sees. 599,040
    numbers at 96x96, at every size.

    Args:
        name: of the method.
        settings: training budget.
        seed: of the draws.
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0) -> None:
        self.name, self.settings, self.seed = name, settings, seed
        self.pixels = SLICE_SIZE**2
        self.state: dict[str, np.ndarray] = {}

    def key(self, seed: int) -> str:
        """The settings that the axes depend on, see `training_key`."""
        return training_key(self.settings, self.name, seed)

    def fit(self, train: SliceSource, val: SliceSource, folder: Path) -> None:
        """Fit unless `folder` holds this very fit; it is short, so an interrupted one starts again."""
        if finished_key(folder) != self.key(self.seed):
            self._fit(train, val, folder)
        self.pixels = train[0].size
        self.open(folder)

    def _fit(self, train: SliceSource, val: SliceSource, folder: Path) -> None:
        check_source(train)
        wall, cpu = time.perf_counter(), time.process_time()
        steps = self.settings.steps_for(self.seed)
        seen = steps * self.settings.batch_size
        components = min(COMPONENTS, seen, train[0].size)
        pca = IncrementalPCA(components)
        for samples in _chunks(seen, max(_SLICES_AT_ONCE, components)):
            pca.partial_fit(_draw(train, self.seed, samples))
        # In C order: safetensors writes the memory as it lies.
        self.state = {
            name: np.ascontiguousarray(value, dtype=np.float32)
            for name, value in (("mean", pca.mean_), ("components", pca.components_))
        }
        times = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        held_out = _draw(val, 0, range(_VALIDATION_SLICES))
        error = float(np.abs(self._project(held_out) - held_out).mean() * 2)  # of [-1, 1], as in the other methods
        record = {"step": steps, **times, "history": [{"step": steps, "validation_loss": round(error, 6)}]}
        write_model(folder, self, self.seed, record, lambda part: save_file(self.state, part / WEIGHTS))

    def open(self, folder: str | Path) -> None:
        """Take the axes that lie in `folder` (`InputError` when they do not fit)."""
        self.state = _load(Path(folder), self.pixels)

    def _project(self, flat: np.ndarray) -> np.ndarray:
        """Slices `(N, H * W)`, each replaced by its nearest point in the span of the axes."""
        centred = flat - self.state["mean"]
        return centred @ self.state["components"].T @ self.state["components"] + self.state["mean"]

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume, `(D, H, W)` float32 in [0, 1]."""
        if not self.state:
            raise RuntimeError("fit the method or open its weights first")
        flat = self._project(scan.image.reshape(len(scan.image), -1))
        return flat.reshape(scan.image.shape).clip(0, 1).astype(np.float32)


def _draw(source: SliceSource, seed: int, samples: range) -> np.ndarray:
    """Slices `(N, H * W)` in [0, 1]."""
    return ((draw_slices(source, seed, samples)[0] + 1) / 2).flatten(1).numpy()


def _chunks(count: int, size: int) -> Iterator[range]:
    """`range(count)` in parts of `size` or, at the end, up to twice that: an update needs as many slices as axes."""
    ends = [*range(size, count - size + 1, size), count]
    return map(range, [0, *ends[:-1]], ends)


def _load(folder: Path, pixels: int) -> dict[str, np.ndarray]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: no such file; train pca first")
    try:
        state = load_file(path)
        fits = state["components"].shape[1:] == state["mean"].shape == (pixels,)
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{path}: damaged, or weights of another method ({error}); fit pca anew") from error
    if not fits:
        raise InputError(f"{path}: made for slices of {state['mean'].size} pixels, not {pixels}; fit pca anew")
    return state
