"""Fixtures shared by the tests: small synthetic scans written as real files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import settings

from pddm_utils.data.manifest import ManifestRow

settings.register_profile("any processor", deadline=None)  # an example may take as long as it takes there
settings.load_profile("any processor")


@pytest.fixture
def write_nifti(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as NIfTI below the test's folder and return its path; 2 mm RAS without an affine."""

    def write(name: str, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path = tmp_path / name
        if data.dtype == bool:
            data = data.astype(np.uint8)
        nib.save(nib.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine), path)
        return path

    return write


@pytest.fixture
def stripped_head() -> np.ndarray:
    """`(80, 90, 60)` float32 skull-stripped image: an ellipsoid of random tissue on a background of zeros."""
    x, y, z = np.mgrid[-40:40, -45:45, -30:30] + 0.5
    brain = (x / 31) ** 2 + (y / 38) ** 2 + (z / 24) ** 2 < 1
    values = np.random.default_rng(0).uniform(100, 200, brain.shape)
    return np.where(brain, values, 0).astype(np.float32)


@pytest.fixture
def row_of() -> Callable[..., ManifestRow]:
    """A manifest row for one file, with sensible values for what is not given."""

    def make(
        image: str | Path, brain_mask: str | Path = "", lesion_mask: str | Path = "", **values: str
    ) -> ManifestRow:
        defaults = {"subject": "s1", "split": "test", "dataset": "mine", "contrast": "T1"}
        return ManifestRow(
            image=str(image), brain_mask=str(brain_mask), lesion_mask=str(lesion_mask), **(defaults | values)
        )

    return make
