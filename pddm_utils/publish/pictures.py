"""The pictures of the pages: the front page, a shared link, the figures of real scans, and the search's ideas."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from pddm_utils.benchmark.evaluate import map_scan
from pddm_utils.benchmark.figures import idea_figure, ranked_subjects
from pddm_utils.benchmark.models import load_method
from pddm_utils.benchmark.studies.factorial_tables import factorial_figure, read_factorial
from pddm_utils.benchmark.studies.search_tables import read_search, table_digest
from pddm_utils.benchmark.tables import read_results
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file
from pddm_utils.core.settings import Settings
from pddm_utils.core.shipped import weights_folder
from pddm_utils.data.brain import extract_brain
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow, write_manifest
from pddm_utils.data.mask_files import load_brain_mask
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.preprocess.masks import extract_with_deepbet
from pddm_utils.data.preprocess.runner import preprocess_manifest
from pddm_utils.data.scan import Scan
from pddm_utils.data.simulation.randomised_slices import RandomisedSlices
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.ixi import ixi_rows
from pddm_utils.data.sources.mslub import mslub_rows
from pddm_utils.data.volume import LoadedVolume, load_volume
from pddm_utils.detection.detect import detect
from pddm_utils.diffusion.boxes import noise_boxes
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline
from pddm_utils.evaluation.metrics import dice
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.methods.registry import NOISE_LEVEL_METHODS, SHIPPED_METHODS
from pddm_utils.publish.method_picture import lesion_box, noised_slice
from pddm_utils.publish.overview import lesions_of
from pddm_utils.show.figures import RESIDUAL_COLOURS, compare_methods, show_randomised, telling_slice
from pddm_utils.show.outlines import REFERENCE, extraction_figure, quality_figure
from pddm_utils.show.style import radiological

TITLE, SUBTITLE = "Patched diffusion\nfor brain MRI", "Find lesions with a model\nthat has never seen one."
NOTE = "A simulated scan with a simulated tumour"
_GROUND, _INK, _SOFT, _BOX = "#15191f", "#ffffff", "#a9b1ba", "#f0a264"
_SHARP = 200  # pixels an inch: twice those of a page
_INCHES, _DPI = (12.0, 6.3), 100  # 1200 x 630 pixels, as link previews show them
_HEALTHY = 2  # healthy scans to preprocess, the first ones of the test list
_HEADS = 20  # healthy scans whose brain is extracted, the first ones of the test list


def save_hero(settings: Settings, runs: Path, results: Path, out: Path) -> str:
    """Draw both shipped models on the median subject of a profile's first set with lesions; returns the subject.

    Args:
        settings: the profile of the finished benchmark.
        runs: prepared scans are kept here.
        results: the benchmark's tables.
        out: the PNG to write.
    """
    lesioned = [row for row in cohort_rows(settings) if row.split == "test" and row.lesion_mask]
    subject = ranked_subjects(read_results(results)[0], lesioned[0].dataset)["median"]
    row = next(row for row in lesioned if (row.dataset, row.subject) == (lesioned[0].dataset, subject))
    scan = load_scan(row, ScanCache(runs / "cache"))
    pairs = {
        name: map_scan(load_method(settings, name, settings.seeds[0], runs, shipped=True), scan)
        for name in SHIPPED_METHODS
        if name in NOISE_LEVEL_METHODS
    }
    figure = compare_methods(
        scan, {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}
    )
    figure.suptitle(f"{lesions_of(row.dataset)}: {subject}")
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=_SHARP, bbox_inches="tight")
    return subject


def save_social_preview(settings: Settings, runs: Path, out: Path) -> None:
    """Draw the first test subject with a tumour: scan, noise in a box, reconstruction, anomaly map.

    Args:
        settings: a profile of the simulated cohort.
        runs: prepared scans are kept here.
        out: the PNG to write, 1200 x 630 pixels.
    """
    row = next(row for row in cohort_rows(settings) if row.split == "test" and row.dataset == "simulated-t2-tumour")
    scan = load_scan(row, ScanCache(runs / "cache"))
    pipeline = load_pipeline(weights_folder("simulated-t2-pddpm"))
    figure = plt.figure(figsize=_INCHES, dpi=_DPI, facecolor=_GROUND)
    for place, (title, plane, style) in enumerate(_panels(scan, pipeline)):
        left, bottom = 0.465 + 0.262 * (place % 2), 0.515 - 0.485 * (place // 2)
        axes = figure.add_axes((left, bottom, 0.25, 0.44))
        axes.imshow(radiological(plane), interpolation="nearest", **style)
        axes.text(3, 91, title, color=_INK, fontsize=13, va="center")
        axes.set_axis_off()
    figure.text(0.04, 0.66, TITLE, color=_INK, fontsize=34, fontweight="bold", va="center", linespacing=1.25)
    figure.text(0.04, 0.40, SUBTITLE, color=_BOX, fontsize=21, va="center", linespacing=1.4)
    figure.text(0.04, 0.10, NOTE, color=_SOFT, fontsize=13)
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=_DPI, facecolor=_GROUND)
    plt.close(figure)


def _panels(scan: Scan, pipeline: PatchedReconstructionPipeline) -> list[tuple[str, np.ndarray, dict]]:
    """Title, plane `(H, W)` and style of each picture, at the slice with most lesion."""
    index = telling_slice(scan)
    rebuilt = pipeline.reconstruct_volume(scan.image, scan.brain_mask, seed=0)
    found = anomaly_map(scan.image, rebuilt, scan.brain_mask)[index]
    clean, noised, _ = noised_slice(scan.image[index], pipeline)
    boxed = noise_boxes(clean, noised, lesion_box(scan.lesion_mask[index], pipeline))[0, 0].numpy()
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
    return [
        ("scan", scan.image[index], grey),
        ("noise in a box", (boxed + 1) / 2, grey),
        ("reconstruction", rebuilt[index], grey),
        ("anomaly map", found, {"cmap": RESIDUAL_COLOURS, "vmin": 0, "vmax": max(0.05, found.max())}),
    ]


def save_idea_figure(results: Path, out: Path) -> None:
    """Draw what the validation search found, as a PNG that names the table it was drawn from, see `table_digest`.

    Args:
        results: folder of the search's tables.
        out: the PNG to write.

    Raises:
        InputError: there is no table.
    """
    table = read_search(results, "ideas")[0]
    with whole_file(out) as partial:
        idea_figure(table).savefig(partial, dpi=150, metadata={"Source": table_digest(table)})


def save_recipe_figure(results: Path, profile: str, dataset: str, out: Path) -> None:
    """Draw the curves of a factorial, as a PNG that names the table it was drawn from, see `table_digest`.

    Args:
        results: folder of its tables.
        profile: of the cohort.
        dataset: lesioned validation scans.
        out: the PNG to write; its ground is transparent.

    Raises:
        InputError: there is no table.
    """
    table = read_factorial(results, profile)[0]
    with whole_file(out) as partial:
        figure = factorial_figure(table, dataset)
        figure.savefig(partial, dpi=200, format="png", facecolor="none", metadata={"Source": table_digest(table)})


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
        runs: receives the preprocessed scans; what is there is kept.
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
    figures = {"brain-extraction": compare_extractions(root)}
    for name in ("ixi", "mslub"):
        last = [one for one in outcomes if one.row.dataset.startswith(name)][-1]
        figures[f"preprocess-{name}"] = quality_figure(np.load(last.folder / "pictures.npy", allow_pickle=False))
    patient = mslub_rows(root, "T2")[-1]
    figures["detect-mslub"] = detect(patient.image, contrast="T2", model="simulated-t2-pddpm").figure()
    row, cache = ixi_rows(root, 1, 0, 0)[0], ScanCache(runs / "cache")
    figures["randomised"] = _randomised_figure(load_scan(row, cache), RandomisedSlices([row], cache))
    written = []
    for name, figure in figures.items():
        with whole_file(out / f"{name}.png") as partial:
            figure.savefig(partial, dpi=_SHARP, bbox_inches="tight", format="png")
        plt.close(figure)
        written.append(out / f"{name}.png")
    return written


def _randomised_figure(scan: Scan, slices: RandomisedSlices) -> Figure:
    """The first six random appearances of a healthy scan's largest slice."""
    index, labels = telling_slice(scan), slices.labels[0]
    shown = [slices[number * len(labels) + index] for number in range(6)]
    return show_randomised(scan.image[index], labels[index], shown, scan.contrast)
