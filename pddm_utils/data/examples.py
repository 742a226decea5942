"""Simulated scans to try things on: one call for a prepared scan, its healthy twin, or slices to train with."""

from __future__ import annotations

from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan, prepare_scan
from pddm_utils.data.scan import CONTRASTS, Scan
from pddm_utils.data.slices import HealthySlices
from pddm_utils.data.sources.simulated import BLOCK, FIRST_SUBJECT, simulated_rows


def example_scan(
    kind: str = "tumour",
    contrast: str = "T2",
    split: str = "test",
    subject: int = 0,
    runs: str | Path | None = None,
) -> Scan:
    """A prepared, simulated scan of the cohort that the shipped T2 models were trained and tested on.

    Args:
        kind: `tumour`, `ms` (many small lesions) or `healthy`.
        contrast: `T1`, `T2` or `FLAIR`.
        split: `test`, `val`, or `train` (healthy only).
        subject: which subject of that kind and split, from 0 on.
        runs: folder whose `cache/` keeps the scan, shared with the benchmark; None keeps nothing.

    Raises:
        InputError: there is no such subject.

    Example:
        >>> example_scan("ms", subject=2).subject
        'simulated-220002'
    """
    return _prepared(_example_rows(kind, contrast, split, subject + 1)[-1], runs)


def healthy_twin(scan: Scan, runs: str | Path | None = None) -> Scan:
    """The same simulated anatomy without the lesion.

    Args:
        scan: of `example_scan`.
        runs: as there.

    Raises:
        InputError: the scan is no simulated one; nobody knows the healthy twin of a patient.
    """
    name, _, number = scan.subject.partition("-")
    if name != "simulated" or not number.isdigit():
        raise InputError(f"{scan.subject}: only simulated scans have a healthy twin; take one of example_scan")
    dataset = f"simulated-{scan.contrast.lower()}-healthy"
    return _prepared(
        ManifestRow(scan.subject, f"simulated:{int(number)}", "", "", "test", dataset, scan.contrast), runs
    )


def example_slices(runs: str | Path, split: str = "train", subjects: int = 4, contrast: str = "T2") -> HealthySlices:
    """Slices of simulated healthy subjects, to train or to validate with.

    Args:
        runs: folder whose `cache/` keeps the prepared scans.
        split: `train` or `val`; a test subject is never trained on.
        subjects: how many, the first of their split.
        contrast: `T1`, `T2` or `FLAIR`.

    Raises:
        InputError: a split without training slices, or no such subjects.
    """
    if split == "test":
        raise InputError("split 'test': nothing is trained on test subjects; choose train or val")
    return HealthySlices(_example_rows("healthy", contrast, split, subjects), ScanCache(Path(runs) / "cache"))


def _example_rows(kind: str, contrast: str, split: str, count: int) -> list[ManifestRow]:
    """The first `count` rows of one role."""
    if (split, kind) not in FIRST_SUBJECT:
        roles = ", ".join(" ".join(role) for role in FIRST_SUBJECT)
        raise InputError(f"no simulated {kind!r} scans in split {split!r}; there are: {roles}")
    if contrast not in CONTRASTS or not 1 <= count <= BLOCK:
        raise InputError(f"contrast {contrast!r}, {count} subjects; use {', '.join(CONTRASTS)} and 1 to {BLOCK}")
    rows = simulated_rows(contrast, count, count, count, count, [kind] if kind != "healthy" else [])
    return [row for row in rows if row.split == split and row.dataset.endswith(f"-{kind}")]


def _prepared(row: ManifestRow, runs: str | Path | None) -> Scan:
    return prepare_scan(row) if runs is None else load_scan(row, ScanCache(Path(runs) / "cache"))
