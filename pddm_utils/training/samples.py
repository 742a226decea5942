"""Healthy slices, and the draws of a training: each is a function of the seed and the sample's global number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from pddm_utils.core.errors import InputError


class SliceSource(Protocol):
    """Healthy slices, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """One slice, `(H, W)` float32 in [0, 1]."""


def check_source(source: SliceSource) -> None:
    """Refuse an empty source of slices (`InputError`)."""
    if len(source) == 0:
        raise InputError("no training slices; check the manifest's train rows")


def draw_slices(source: SliceSource, seed: int, samples: range) -> tuple[torch.Tensor, list[np.random.Generator]]:
    """The slices with these global sample numbers: the same ones for every method with this seed.

    Returns:
        Slices `(B, 1, H, W)` in [-1, 1], and for each sample the generator of whatever else it needs.
    """
    rngs = [np.random.default_rng([seed, number]) for number in samples]
    slices = [torch.from_numpy(source[int(rng.integers(len(source)))]) for rng in rngs]
    return torch.stack(slices)[:, None] * 2 - 1, rngs


def torch_generators(rngs: Sequence[np.random.Generator]) -> list[torch.Generator]:
    """A torch generator on the CPU for each sample."""
    return [torch.Generator().manual_seed(int(rng.integers(2**62))) for rng in rngs]
