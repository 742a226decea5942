"""Figures of real scans: brain extraction, preprocessing, domain randomisation, and a patient in `detect`."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file
from pddm_utils.data.brain import extract_brain
from pddm_utils.data.manifest import ManifestRow, write_manifest
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.preprocess.masks import extract_with_deepbet
from pddm_utils.data.preprocess.runner import preprocess_manifest
from pddm_utils.data.simulation.randomised_slices import RandomisedSlices
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.ixi import ixi_rows
from pddm_utils.data.sources.mslub import mslub_rows
from pddm_utils.data.volume import LoadedVolume, load_brain_mask, load_volume
from pddm_utils.detection.detect import detect
from pddm_utils.evaluation.metrics import dice
from pddm_utils.show.extraction import REFERENCE, extraction_figure
from pddm_utils.show.preprocess_page import quality_figure, write_quality_page
from pddm_utils.show.randomised import randomised_figure

_HEALTHY = 2  # healthy scans to preprocess, the first ones of the test list
_HEADS = 20  # healthy scans whose brain is extracted, the first ones of the test list


def raw_rows(root: Path) -> list[ManifestRow]:
    """T1 scans to preprocess: the first healthy test subjects of IXI and both MSLUB patients.

    Args:
        root: folder with `ixi-t1-2mm` and `mslub-mni`.

    Raises:
        InputError: they are not there.
    """
    return [*_healthy_rows(root, _HEALTHY), *mslub_rows(root, "T1")]


def _healthy_rows(root: Path, count: int) -> list[ManifestRow]:
    """The first healthy test subjects of IXI."""
    return [row for row in ixi_rows(root, 1, 1, count) if row.split == "test" and not row.lesion_mask][:count]


def compare_extractions(root: Path) -> Figure:
    """Two extractions of the brain from 20 IXI heads (T1, 2 mm) against the brain of their label maps.

    Args:
        root: folder with `ixi-t1-2mm`.

    Raises:
        InputError: the scans are missing, or deepbet is not installed.
    """
    rows = _healthy_rows(root, _HEADS)
    scores: dict[str, list[float]] = {"deepbet": [], "threshold": []}
    for row in tqdm(rows, desc="extracting brains", unit="scan"):
        scan = load_volume(row.image)
        brain = load_brain_mask(row.brain_mask, scan)
        found = {"deepbet": extract_with_deepbet(scan), "threshold": extract_brain(scan)}
        for name, mask in found.items():
            scores[name].append(dice(mask, brain))
        if scores["threshold"][-1] == min(scores["threshold"]):
            shown, outlines = scan, {REFERENCE: brain, **found}
    for name, values in scores.items():
        print(f"{name}: Dice {np.mean(values):.3f}, {min(values):.3f} to {max(values):.3f}, {len(values)} scans")
    return extraction_figure(
        scores, _canonical(shown.data, shown), {name: _canonical(mask, shown) > 0 for name, mask in outlines.items()}
    )


def _canonical(data: np.ndarray, scan: LoadedVolume) -> np.ndarray:
    """Data of a scan's grid with its axes in RAS order."""
    image = nib.as_closest_canonical(nib.Nifti1Image(data.astype(np.float32), scan.affine))
    return np.asarray(image.dataobj)


def save_real_figures(runs: Path, out: Path) -> list[Path]:
    """Extract brains, preprocess a few real scans and look for anomalies in one; needs `PDDM_DATA` and deepbet.

    Args:
        runs: receives the preprocessed scans and `qc.html`; what is there is kept.
        out: folder for the pictures.

    Returns:
        Those pictures: `brain-extraction.png`, `preprocess-ixi.png`, `preprocess-mslub.png`, `detect-mslub.png` and
        `randomised.png`.

    Raises:
        InputError: the scans or deepbet are missing, one cannot be preprocessed, or a file cannot be written.
    """
    root, folder = require_data_root(), runs / "real-figures"
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(raw_rows(root), folder / "raw.csv")
    outcomes = preprocess_manifest(folder / "raw.csv", folder / "prepared")
    for outcome in outcomes:
        if outcome.error:
            raise InputError(f"{outcome.row.scan_id}: {outcome.error}")
    write_quality_page(outcomes, folder / "prepared")
    figures = {"brain-extraction": compare_extractions(root)}
    for name in ("ixi", "mslub"):
        last = [one for one in outcomes if one.row.dataset.startswith(name)][-1]
        figures[f"preprocess-{name}"] = quality_figure(np.load(last.folder / "pictures.npy", allow_pickle=False))
    patient = mslub_rows(root, "T2")[-1]
    figures["detect-mslub"] = detect(patient.image, contrast="T2").figure()
    row, cache = ixi_rows(root, 1, 0, 0)[0], ScanCache(runs / "cache")
    figures["randomised"] = randomised_figure(load_scan(row, cache), RandomisedSlices([row], cache))
    written = []
    for name, figure in figures.items():
        with whole_file(out / f"{name}.png") as partial:
            figure.savefig(partial, dpi=110, bbox_inches="tight", format="png")
        plt.close(figure)
        written.append(out / f"{name}.png")
    return written
