"""PCA: the cheap linear baseline. What a few principal components of healthy slices cannot say is anomalous."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import IncrementalPCA

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import SLICE_SIZE, Scan
from pddm_utils.methods.base import FittedMethod
from pddm_utils.training.samples import SliceSource, check_source, draw_slices

COMPONENTS = 64
_SLICES_AT_ONCE = 320  # of one update; bounds the memory
_VALIDATION_SLICES = 64


class PCA(FittedMethod):
    """`x^ = m + W^T W (x - m)`: m the mean slice, W the first 64 principal axes (Pearson 1901; Ross et al. 2008).

    scikit-learn's `IncrementalPCA` over the same slices, in the same order, as every other method sees. 599,040
    numbers at 96x96, at every size.

    Args:
        name: of the method.
        settings: training budget.
        seed: of the draws.
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0) -> None:
        super().__init__(name, settings, seed)
        self.pixels = SLICE_SIZE**2
        self.state: dict[str, np.ndarray] = {}

    def fit(self, train: SliceSource, val: SliceSource, folder: Path) -> None:
        """As `FittedMethod.fit`, for slices of any one size."""
        check_source(train)
        self.pixels = train[0].size
        super().fit(train, val, folder)

    def _learn(self, train: SliceSource) -> int:
        steps = self.settings.steps_for(self.seed)
        seen = steps * self.settings.batch_size
        components = min(COMPONENTS, seen, self.pixels)
        pca = IncrementalPCA(components)
        for samples in _chunks(seen, max(_SLICES_AT_ONCE, components)):
            pca.partial_fit(_draw(train, self.seed, samples))
        # In C order: safetensors writes the memory as it lies.
        self.state = {
            name: np.ascontiguousarray(value, dtype=np.float32)
            for name, value in (("mean", pca.mean_), ("components", pca.components_))
        }
        return steps

    def _validation_loss(self, val: SliceSource) -> float:
        held_out = _draw(val, 0, range(_VALIDATION_SLICES))
        return float(np.abs(self._project(held_out) - held_out).mean() * 2)  # of [-1, 1], as in the other methods

    def _save(self, path: Path) -> None:
        save_file(self.state, path)

    def _load(self, path: Path) -> None:
        try:
            state = load_file(path)
            fits = state["components"].shape[1:] == state["mean"].shape == (self.pixels,)
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{path}: damaged, or weights of another method ({error}); fit pca anew") from error
        if not fits:
            raise InputError(f"{path}: made for slices of {state['mean'].size} pixels, not {self.pixels}; fit pca anew")
        self.state = state

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
