"""Figures of real scans for the book: preprocessing before and after, and what `detect` draws of a patient."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pddm_utils.data.manifest import ManifestRow, write_manifest
from pddm_utils.data.preprocess.run import preprocess_manifest
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.ixi import ixi_rows
from pddm_utils.data.sources.mslub import mslub_rows
from pddm_utils.detection import detect
from pddm_utils.errors import InputError
from pddm_utils.files import whole_file
from pddm_utils.show.preprocess_page import quality_figure, write_quality_page

_HEALTHY = 2  # healthy scans to preprocess, the first ones of the test list


def raw_rows(root: Path) -> list[ManifestRow]:
    """T1 scans to preprocess: the first healthy test subjects of IXI and both MSLUB patients.

    Args:
        root: folder with `ixi-t1-2mm` and `mslub-mni`.

    Raises:
        InputError: they are not there.
    """
    healthy = [row for row in ixi_rows(root, 1, 1, _HEALTHY) if row.split == "test" and not row.lesion_mask]
    return [*healthy[:_HEALTHY], *mslub_rows(root, "T1")]


def save_real_figures(runs: Path, out: Path) -> list[Path]:
    """Preprocess a few real scans and look for anomalies in one; needs `PDDM_DATA`.

    Args:
        runs: receives the preprocessed scans and `qc.html`; what is there is kept.
        out: folder for the pictures.

    Returns:
        `preprocess-ixi.png`, `preprocess-mslub.png` and `detect-mslub.png`.

    Raises:
        InputError: the scans are missing, one cannot be preprocessed, or a file cannot be written.
    """
    root, folder = require_data_root(), runs / "real-figures"
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(raw_rows(root), folder / "raw.csv")
    outcomes = preprocess_manifest(folder / "raw.csv", folder / "prepared")
    for outcome in outcomes:
        if outcome.error:
            raise InputError(f"{outcome.row.scan_id}: {outcome.error}")
    write_quality_page(outcomes, folder / "prepared")
    figures = {}
    for name in ("ixi", "mslub"):
        last = [one for one in outcomes if one.row.dataset.startswith(name)][-1]
        figures[f"preprocess-{name}"] = quality_figure(np.load(last.folder / "pictures.npy", allow_pickle=False))
    patient = mslub_rows(root, "T2")[-1]
    figures["detect-mslub"] = detect(patient.image, contrast="T2").figure()
    written = []
    for name, figure in figures.items():
        with whole_file(out / f"{name}.png") as partial:
            figure.savefig(partial, dpi=110, bbox_inches="tight", format="png")
        plt.close(figure)
        written.append(out / f"{name}.png")
    return written
