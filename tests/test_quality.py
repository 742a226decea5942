"""Warnings about scans that a model cannot judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import prepare_scan
from pddm_utils.data.scan import Scan
from pddm_utils.detection.quality import (
    HISTOGRAM_BINS,
    WARN_DEVIATION,
    assess_quality,
    field_of_view_warnings,
    healthy_reference,
    intensity_histogram,
)


def simulated(index: int, contrast: str) -> Scan:
    return prepare_scan(ManifestRow(f"s{index}", f"simulated:{index}", "", "", "val", "simulated", contrast))


def rebuilt(scan: Scan) -> np.ndarray:
    """A stand-in for a model: the scan with an error of its own that is much the same in every subject."""
    noise = np.random.default_rng(scan.brain_mask.sum()).normal(0, 0.05, scan.image.shape)
    return np.where(scan.brain_mask, scan.image + noise, 0).astype(np.float32)


@pytest.fixture(scope="module")
def references() -> dict[str, dict]:
    return {
        contrast: healthy_reference((scan, rebuilt(scan)) for scan in (simulated(i, contrast) for i in range(5)))
        for contrast in ("T1", "T2")
    }


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulated(7, "T2")


def test_histogram_is_of_the_brain_alone(scan) -> None:
    shares = intensity_histogram(scan)
    assert shares.shape == (HISTOGRAM_BINS,) and shares.sum() == pytest.approx(1)
    inside = scan.image[scan.brain_mask]
    assert shares[0] == pytest.approx((inside < 1 / HISTOGRAM_BINS).mean())


def test_a_scan_like_the_reference_gives_no_warning(scan, references) -> None:
    quality = assess_quality(scan, rebuilt(scan), references["T2"], {"T1": references["T1"]})
    assert quality.warnings == () and quality.out_of_distribution < WARN_DEVIATION
    assert quality.out_of_distribution == max(abs(value) for value in quality.deviations.values())


def test_a_scan_of_another_contrast_is_noticed(references) -> None:
    mistaken = replace(simulated(7, "T1"), contrast="T2")
    quality = assess_quality(mistaken, rebuilt(mistaken), references["T2"], {"T1": references["T1"]})
    assert any("more like T1 than T2" in warning for warning in quality.warnings)
    assert quality.out_of_distribution > WARN_DEVIATION


def test_a_reconstruction_that_fails_everywhere_is_noticed(scan, references) -> None:
    bad = np.where(scan.brain_mask, 1 - scan.image, 0).astype(np.float32)
    quality = assess_quality(scan, bad, references["T2"], {})
    assert any("median residual in the brain" in warning for warning in quality.warnings)


def test_half_a_brain_is_noticed(scan, references) -> None:
    half = slice(0, len(scan.image) // 2)
    part = replace(scan, image=scan.image[half], brain_mask=scan.brain_mask[half], lesion_mask=scan.lesion_mask[half])
    quality = assess_quality(part, rebuilt(part), references["T2"], {})
    assert any("height of the brain" in w for w in quality.warnings)
    assert any("brain volume" in w for w in quality.warnings)


def test_a_lesion_alone_is_no_reason_to_distrust_the_scan(references) -> None:
    row = ManifestRow("s", "simulated:7", "", "insert:tumour:7", "test", "simulated", "T2")
    ill = prepare_scan(row)
    healthy = rebuilt(simulated(7, "T2"))
    assert ill.lesion_mask.any()
    assert assess_quality(ill, healthy, references["T2"], {"T1": references["T1"]}).warnings == ()


def test_a_brain_cut_by_the_end_of_the_file_is_named_by_its_axis() -> None:
    ball = np.linalg.norm(np.mgrid[-10:11, -10:11, -10:11], axis=0) < 8
    assert field_of_view_warnings(ball) == []
    (warning,) = field_of_view_warnings(ball[:, :, 8:])
    assert "first slice of the file's axis 2" in warning and "not assessed" in warning
